"""Claim: on a CPU, the pool is scored faster than PyTorch scores it.

Ours is what `main` runs to pick images for `tavaal`: T and R, then encoder and D, image by image
under `vmap`, gathered from the pool and fetched to the host. The peer runs the same four networks
in evaluation mode on a batch prepared beforehand, in its faster memory format.

    python benchmarks/score_pool.py [--batch_size=128] [--images=512] [--rounds=7] [--json]

`ratio` is the peer's time per image over ours.
"""

import harness
import numpy as np


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=7)
    flags.add_argument("--batch_size", type=int, default=128)
    flags.add_argument("--images", type=int, default=512, help="scored per round")
    arguments = flags.parse_args()
    size, count = arguments.batch_size, arguments.images
    programs = harness.cifar(score_batch_size=size, batch_size=size)
    indices = np.arange(count)

    def ours():
        return harness.turn(lambda: programs.scores(indices)) / count

    ours()
    config = programs.config
    hidden, latent = len(config.discriminator.hidden), config.vae.latent
    peer = harness.Peer(
        "score", arguments.huge_pages_for_peer, batch_size=size, hidden=hidden, latent=latent
    )
    timed = max(1, count // size)
    sides = {"ours, per image": ours, "PyTorch, per image": lambda: peer(timed=timed) / size}
    times = harness.interleave(sides, arguments.rounds)
    gflop = peer.about["gflop"] / size
    rate = 1 / np.median(times["ours, per image"])
    peer.close()
    title = f"scores of {count} images ({rate:.0f} images per second)"
    harness.report(title, times, gflop, arguments, peers=peer.about, images_per_second=rate)


if __name__ == "__main__":
    main()
