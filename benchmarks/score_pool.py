"""Claim: on a CPU, the pool is scored faster than PyTorch scores it.

Ours is what `main` runs to pick images for `tavaal`: T and R, then encoder and D, image by image
under `vmap`, gathered from the pool and fetched to the host. The peer runs the same four networks
in evaluation mode on a batch prepared beforehand, in its faster memory format, eager and compiled.

    python benchmarks/score_pool.py [--batch_size=128] [--images=512] [--rounds=7]
        [--bfloat16] [--json]

`ratio` is the faster peer's time per image over ours.
"""

import harness
import numpy as np


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=7)
    flags.add_argument("--batch_size", type=int, default=128)
    flags.add_argument("--images", type=int, default=512, help="scored per round")
    flags.add_argument("--bfloat16", action="store_true", help="ours and PyTorch's, under autocast")
    arguments = flags.parse_args()
    size, count = arguments.batch_size, arguments.images
    dtype = "bfloat16" if arguments.bfloat16 else "float32"
    programs = harness.cifar(dtype, score_batch_size=size, batch_size=size)
    indices = np.arange(count)

    def ours():
        return harness.turn(lambda: programs.scores(indices)) / count

    ours()
    peers = harness.both_ways(
        {"PyTorch": "score"}, programs.config, arguments, batch_size=size,
        bfloat16=arguments.bfloat16,
    )  # fmt: skip
    timed = max(1, count // size)
    sides = {"ours, per image": ours}
    sides |= {name: lambda p=p: p(timed=timed) / size for name, p in peers.items()}
    times = harness.interleave(sides, arguments.rounds)
    about = {name: peer.about for name, peer in peers.items()}
    rate = 1 / np.median(times["ours, per image"])
    for peer in peers.values():
        peer.close()
    title = f"scores of {count} images in {dtype} ({rate:.0f} images per second)"
    gflop = harness.gflop(about) / size
    harness.report(title, times, gflop, arguments, peers=about, images_per_second=rate)


if __name__ == "__main__":
    main()
