"""Claim: features of a frozen backbone are computed once, in constant memory.

python benchmarks/features.py [FOLDER] [--backbone=NAME] [--weights=FILE] [--image_size=PIXELS]
    [--most=100000]

With a FOLDER of photos: the time to decode and compute all, then with all in the cache. Always:
arrays of 1,000 images of 32x32 pixels, and ten times as many up to `most`, with the highest memory
of the process after each: it must not grow by more than the images' ids.
"""

import argparse
import resource
import tempfile
import time

import numpy as np

import tavaal_jax
from tavaal_jax.models.backbones import load_backbone
from tavaal_jax.study import features


def timed(what, count, act):
    """Prints a line on what `act` takes."""
    begin = time.perf_counter()
    act()
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {seconds:.2f} s, {count / seconds:,.1f} images/s, at most {memory:,.0f} MB")


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="")
    parser.add_argument("--image_size", type=int, default=0, help="pixels; 0: the network's own")
    parser.add_argument("--most", type=int, default=100_000)
    given = parser.parse_args()
    made = features.embedder(load_backbone(given.backbone, given.weights, given.image_size))
    timed(
        "compilation, 8 images of 32x32", 8, lambda: made.over(np.zeros((8, 32, 32, 3), np.uint8))
    )
    with tempfile.TemporaryDirectory() as cache:
        if given.folder:
            embed = lambda: tavaal_jax.embed(
                given.folder, given.backbone, given.weights, given.image_size, data_dir=cache
            )
            timed("photos, decoded and computed", 1, embed)
            count = len(embed().ids)
            timed(f"{count:,} photos again", count, embed)
        count = 1000
        while count <= given.most:
            images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)
            run = lambda images=images: features.of_images(cache, made, images)
            timed(f"{count:,} images of 32x32", count, run)
            timed(f"{count:,} again", count, run)
            count *= 10


if __name__ == "__main__":
    main()
