"""Claim: k-means, herding and typicality are linear in the pool, in time and in memory.

Seconds, the compilation left out, and the peak of the process's memory beside the pool itself, each
in a process of its own: clusters of random points, on unit length as features of a backbone are.

    python benchmarks/picks.py [--sizes=10000,100000,1000000] [--width=384] [--budget=20] [--json]

`k_means` makes as many clusters as the budget, `many` 500 as `typiclust` does once there are as
many labels; `typiclust` and `max_herding` are whole picks without labels, `uherding` with 100.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from tavaal_jax.algorithm import clusters
from tavaal_jax.algorithm.feature_picks import herding, typicality
from tavaal_jax.algorithm.picks import Labelled
from tavaal_jax.engine import sharded_picks

KEY = jax.random.key(0)
WORKS = ("k_means", "many", "typiclust", "max_herding", "uherding")
_LABELLED, _CLASSES, _CENTERS, _PART = 100, 10, 100, 10_000


def points(size, width):
    """The pool, some rows at a time, so that no copy of it is in the peak."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(_CENTERS, width)).astype(np.float32)
    found = np.empty((size, width), np.float32)
    for begin in range(0, size, _PART):
        part = found[begin : begin + _PART]
        part[:] = random.standard_normal(part.shape, np.float32)
        part += centers[random.integers(_CENTERS, size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def run(work, pool, budget):
    """One pick, or one clustering, on all devices."""
    shared = sharded_picks.map_blocks
    if work in ("k_means", "many"):
        return clusters.k_means(pool, budget if work == "k_means" else 500, KEY, shared)
    if work == "typiclust":
        return typicality.typiclust(pool, budget, KEY, None, shared)
    if work == "max_herding":
        return herding.max_herding(pool, budget, KEY, None, shared)
    logits = np.random.default_rng(1).normal(size=(len(pool), _CLASSES)).astype(np.float32)
    known = {"embedding": pool[:_LABELLED], "logits": logits[:_LABELLED]}
    labelled = Labelled(known, np.arange(_LABELLED, dtype=np.int32) % _CLASSES)
    values = {"embedding": pool[_LABELLED:], "logits": logits[_LABELLED:]}
    return herding.uherding(values, budget, KEY, labelled, shared)


def measure(work, size, width, budget):
    """`{"seconds", "peak_mib"}` of one work, in this process."""
    pool = points(size, width)
    run(work, pool[: min(size, 2**15)], budget)  # Compiles; most shapes are those of the whole.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    run(work, pool, budget)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pool_mib = pool.nbytes / 2**20
    return {
        "work": work, "size": size, "seconds": round(seconds, 2),
        "peak_mib": round(after / 1024), "pool_mib": round(pool_mib),
        "more_mib": round((after - before) / 1024),
    }  # fmt: skip


def main():
    """Command line."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sizes", default="10000,100000,1000000")
    flags.add_argument("--works", default=",".join(WORKS))
    flags.add_argument("--width", type=int, default=384)
    flags.add_argument("--budget", type=int, default=20)
    flags.add_argument("--json", action="store_true", help="last line: one JSON object")
    flags.add_argument("--one", help="work:size, in this process")
    arguments = flags.parse_args()
    if arguments.one:
        work, size = arguments.one.split(":")
        print(json.dumps(measure(work, int(size), arguments.width, arguments.budget)))
        return
    rows = []
    print("| work | pool | seconds | peak, MiB | of that the pool, MiB |\n|---|---|---|---|---|")
    for work in arguments.works.split(","):
        for size in arguments.sizes.split(","):
            command = [
                sys.executable, __file__, f"--one={work}:{size}", f"--width={arguments.width}",
                f"--budget={arguments.budget}",
            ]  # fmt: skip
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rows.append(json.loads(out.splitlines()[-1]))
            row = rows[-1]
            print(
                f"| {work} | {row['size']:,} | {row['seconds']} | {row['peak_mib']:,} |"
                f" {row['pool_mib']:,} |",
                flush=True,
            )
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
