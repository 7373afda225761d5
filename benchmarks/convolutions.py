"""Claim: on a CPU, inside a loop, our convolutions train several times faster than `lax`'s.

Every training step is part of a loop on the device, where XLA's CPU backend runs the gradients of a
`lax` convolution on a slow path. Here the value, the input gradient and the kernel gradient of each
shape of ResNet-18 and the VAE run in a `fori_loop`, ours and `lax`'s in turn.

    python benchmarks/convolutions.py [--batch_size=32] [--runs=5] [--json]

Prints GFLOP/s (median over the runs) and the ratio of the medians; with --json the last line is
one JSON object whose `ratio` is the geometric mean of lax's time over ours.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import convolution

# kind, image side, C, F, window, stride, padding
SHAPES = (
    ("conv", 32, 64, 64, 3, 1, 1),
    ("conv", 16, 128, 128, 3, 1, 1),
    ("conv", 8, 256, 256, 3, 1, 1),
    ("conv", 4, 512, 512, 3, 1, 1),
    ("conv", 32, 64, 128, 3, 2, 1),
    ("conv", 32, 3, 128, 4, 2, 1),
    ("conv", 16, 128, 256, 4, 2, 1),
    ("conv", 8, 256, 512, 4, 2, 1),
    ("conv", 4, 512, 1024, 4, 2, 1),
    ("transposed", 4, 1024, 512, 4, 2, 1),
    ("transposed", 8, 512, 256, 4, 2, 1),
)
OURS = {"conv": convolution.conv, "transposed": convolution.conv_transpose}
LAX = {"conv": convolution._lax_conv, "transposed": convolution._lax_conv_transpose}


def in_a_loop(function):
    """A compiled loop of one iteration around `function(*arrays)`; nothing can be hoisted out."""

    def loop(count, *arrays):
        def body(_, total):
            shifted = [a + 0 * total for a in arrays]
            return sum(jnp.sum(out) for out in jax.tree.leaves(function(*shifted))) * 1e-9

        return lax.fori_loop(0, count, body, jnp.float32(0))

    return jax.jit(loop)


def products(operation, stride, padding):
    """The three products of a convolution as functions of (images, kernel, gradient)."""
    apply = lambda x, w: operation(x, w, stride, padding)
    return {
        "value": lambda x, w, _: apply(x, w),
        "input gradient": lambda x, w, d: jax.vjp(lambda x: apply(x, w), x)[1](d),
        "kernel gradient": lambda x, w, d: jax.vjp(lambda w: apply(x, w), w)[1](d),
    }


def seconds(function, arrays):
    """Wall time of one call that is compiled already."""
    begin = time.perf_counter()
    jax.block_until_ready(function(1, *arrays))
    return time.perf_counter() - begin


def measure(shape, batch_size, runs):
    """`{product: (GFLOP/s of lax, GFLOP/s of ours, ratio of the median times)}` of one shape."""
    kind, side, channels, features, window, stride, padding = shape
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (batch_size, side, side, channels))
    kernel = jax.random.normal(keys[1], (window, window, channels, features))
    gradient = jax.random.normal(keys[2], LAX[kind](images, kernel, stride, padding).shape)
    arrays = (images, kernel, gradient)
    positions = side**2 if kind == "transposed" else (side // stride) ** 2
    work = 2e-9 * batch_size * positions * window**2 * channels * features
    results = {}
    theirs, ours = (products(op[kind], stride, padding) for op in (LAX, OURS))
    for name in theirs:
        pair = [in_a_loop(each[name]) for each in (theirs, ours)]
        for function in pair:
            seconds(function, arrays)
        times = [[seconds(function, arrays) for function in pair] for _ in range(runs)]
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        results[name] = (work / medians[0], work / medians[1], medians[0] / medians[1])
    return results


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    arguments = parser.parse_args()
    ratios = []
    print(f"{'shape':36s} {'product':16s} {'lax':>8s} {'ours':>8s}  GFLOP/s   lax / ours, time")
    for shape in SHAPES:
        kind, side, channels, features, window, stride, _ = shape
        label = f"{kind} {side}px {channels}->{features} {window}x{window}/{stride}"
        results = measure(shape, arguments.batch_size, arguments.runs)
        for name, (lax_rate, our_rate, ratio) in results.items():
            print(
                f"{label:36s} {name:16s} {lax_rate:8.1f} {our_rate:8.1f} {ratio:20.2f}", flush=True
            )
            ratios.append(ratio)
    ratio = statistics.geometric_mean(ratios)
    print(f"geometric mean of the ratios: {ratio:.2f} on {jax.devices()[0].device_kind}")
    if arguments.json:
        print(json.dumps({"ratio": ratio, "ratios": ratios, "runs": arguments.runs}))


if __name__ == "__main__":
    main()
