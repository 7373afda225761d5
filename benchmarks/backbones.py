"""Claim: on a CPU, features of EfficientNet-Lite0 come faster than PyTorch's, eager or compiled.

Ours is `Backbone.apply` with random weights (they do not change the speed), on images that are in
memory. The peers are the same network in PyTorch with channels last or not, whichever is faster,
eager and by `torch.compile`, each in a process of its own. Decoding is on neither side.

    python benchmarks/backbones.py [--network=efficientnet_lite0 | dinov2_small] [--batch_size=16]
        [--images=128] [--rounds=5] [--json]

`ratio` is the faster peer's time per image over ours. With `--memory=100000` instead: peak resident
memory, in MiB, after 1,000, 10,000, ... images in batches, and no peer.
"""

import functools
import json
import resource
import statistics

import harness
import jax
import jax.numpy as jnp

from tavaal_jax.models import NETWORKS, backbones

SIDE = 224
NAMES = ("efficientnet_lite0", "dinov2_small")


def features_of(name):
    """`images [B, 224, 224, 3] -> features`, compiled."""
    network = NETWORKS[name].published.frozen({}, (SIDE, SIDE, 3))
    image = jnp.zeros((1, SIDE, SIDE, 3))
    variables = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), image)
    return functools.partial(jax.jit(functools.partial(backbones._features, network)), variables)


def peak():
    """MiB that this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(features, images, most):
    """Prints the peak after ever more images."""
    done, found = 0, {}
    for count in (10**power for power in range(3, 10) if 10**power <= most):
        while done < count:
            jax.block_until_ready(features(images))
            done += len(images)
        found[count] = peak()
        print(f"  {count:8d} images: {found[count]:.0f} MiB")
    return found


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=5)
    flags.add_argument("--network", default="efficientnet_lite0", choices=NAMES)
    flags.add_argument("--batch_size", type=int, default=16)
    flags.add_argument("--images", type=int, default=128, help="of a turn")
    flags.add_argument("--memory", type=int, default=0, help="images of the memory's measurement")
    arguments = flags.parse_args()
    size, runs = arguments.batch_size, max(1, arguments.images // arguments.batch_size)
    features = features_of(arguments.network)
    images = jax.random.normal(jax.random.key(1), (size, SIDE, SIDE, 3))
    if arguments.memory:
        found = memory(features, images, arguments.memory)
        if arguments.json:
            print(json.dumps({"ratio": max(found.values()) / min(found.values()), "mib": found}))
        return

    def ours():
        return harness.turn(lambda: [features(images) for _ in range(runs)]) / (runs * size)

    ours()
    peers = {
        name: harness.Peer(
            "features", arguments.huge_pages_for_peer, batch_size=size, network=arguments.network,
            compiled=compiled,
        )
        for name, compiled in (("eager", False), ("compiled", True))
    }  # fmt: skip
    sides = {"ours, per image": ours} | {
        f"PyTorch, {name}, per image": lambda peer=peer: peer(timed=runs) / size
        for name, peer in peers.items()
    }
    times = harness.interleave(sides, arguments.rounds)
    first, *others = times
    times = {
        n: times[n] for n in (first, *sorted(others, key=lambda n: statistics.median(times[n])))
    }
    rates = {name: 1 / statistics.median(values) for name, values in times.items()}
    about = {name: peer.about for name, peer in peers.items()}
    for peer in peers.values():
        peer.close()
    title = f"{arguments.network}, images per second: " + ", ".join(
        f"{name.removesuffix(', per image')} {rate:.0f}" for name, rate in rates.items()
    )
    gflop = about["eager"]["gflop"] / size
    harness.report(title, times, gflop, arguments, peers=about, images_per_second=rates)


if __name__ == "__main__":
    main()
