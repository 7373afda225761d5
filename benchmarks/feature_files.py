"""Makes the files of features that the studies on features read, by EfficientNet-Lite0.

    python benchmarks/feature_files.py clothing cifar10.npz cifar100.npz [--out=FOLDER]

An .npz has `train_images`, `train_labels`, `test_images` and `test_labels`: 5,000 random images of
the first and 2,000 of the others are taken, by `numpy.random.default_rng(0)`. A folder has train/
and test/, each with a folder of photos per class: all are taken. A file of features has `features
[N, F]`, `labels [N]`, `test [N]`, a mask of the images that are not to be labelled, and
`class_names`.
"""

import argparse
import pathlib

import numpy as np

import tavaal_jax

TRAIN, TEST = 5_000, 2_000


def of_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """A random part of the images in an .npz."""
    random = np.random.default_rng(0)
    with np.load(path) as file:
        parts = {
            part: random.permutation(len(file[f"{part}_labels"]))[:most]
            for part, most in (("train", TRAIN), ("test", TEST))
        }
        images, labels = (
            np.concatenate([file[f"{part}_{what}"][rows] for part, rows in parts.items()])
            for what in ("images", "labels")
        )
        names = file["class_names"]
    test = np.arange(len(labels)) >= len(parts["train"])
    features = tavaal_jax.embed(images).features
    return {"features": features, "labels": labels, "test": test, "class_names": names}


def of_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All photos of a folder, in the order of their paths."""
    found = tavaal_jax.embed(folder)
    paths = [pathlib.PurePath(file).parts for file in found.files]
    names = sorted({name for _, name, _ in paths})
    return {
        "features": found.features,
        "labels": np.array([names.index(name) for _, name, _ in paths]),
        "test": np.array([part == "test" for part, _, _ in paths]),
        "class_names": np.array(names),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path())
    arguments = parser.parse_args()
    for source in arguments.sources:
        found = of_folder(source) if source.is_dir() else of_arrays(source)
        np.savez(arguments.out / f"{source.stem}.npz", **found)
        counts = [int(np.sum(found["test"] == is_test)) for is_test in (False, True)]
        print(f"{source.stem}: {counts[0]:,} images and {counts[1]:,} to test on", flush=True)


if __name__ == "__main__":
    main()
