"""Claim: `configs/cifar100.py` takes its first step within a minute of a start.

From the cache of compiled programs it is there in a quarter of a minute.

A process of its own imports the package and takes `tavaal` under `configs/cifar100.py`, on random
images, through one step and the rest of a first cycle (test, ranks, scores, picks): first with an
empty cache of compiled programs, then with the filled one.

    python benchmarks/startup.py [--rounds=1] [--json]

`first_step` is the time from the process's first line to the end of the first step, which is part
of it, `cycle` to the end of the cycle; `compiling` is the time of tracing and compiling, summed
over threads. `ratio` is `first_step` with the empty cache over that with the filled one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time


def child(folder):
    """Runs a cycle of one training step; prints seconds."""
    begin = time.perf_counter()
    import harness
    import jax
    import numpy as np

    from configs import cifar100
    from tavaal_jax.algorithm.methods import METHODS
    from tavaal_jax.data import Dataset
    from tavaal_jax.data.oracle import SimulatedOracle
    from tavaal_jax.engine import compilation
    from tavaal_jax.study import cycle, setup

    compilation.keep_in_cache(folder)
    result = {"import": time.perf_counter() - begin}
    config = cifar100.get_config()
    config.update(initial=config.batch_size, budget=64, subset=256, epochs=1, cycles=2)
    images, labels = harness.random_images(1024)
    dataset = Dataset.from_arrays(
        images, labels, images[:256], labels[:256], class_names=[str(i) for i in range(100)]
    )
    with compilation.Count() as count:
        placed, oracle = setup.place(config, dataset), SimulatedOracle.of(dataset)
        made = setup.prepare(config, METHODS["tavaal"], dataset, placed, oracle)
        key = jax.random.key(0)
        begun = cycle.start(made, key)
        for state, report in cycle.advance(made, key, begun, lambda stage: 1):
            if report.count:
                jax.block_until_ready(state.learner)
                result["first_step"] = time.perf_counter() - begin
            if report.stage == "label":
                break
    picks = np.flatnonzero(state.picked_in == 0)
    result |= {
        "cycle": time.perf_counter() - begin, "cpu": time.process_time(),
        "programs": count.programs, "from_cache": count.from_cache, "compiling": count.seconds,
        "sum_of_picks": int(picks.sum()), "sum_of_scores": float(state.pick_score.sum()),
    }  # fmt: skip
    print(json.dumps(result))


def main():
    """Command line."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
        return
    import harness

    arguments = harness.parser(__doc__, rounds=1).parse_args()
    times = {"warm": [], "cold": []}
    runs = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", "warm"):
                command = [sys.executable, __file__, "--child", folder]
                output = subprocess.run(
                    command, check=True, capture_output=True, encoding="utf-8", env=os.environ
                ).stdout
                runs.append({"cache": kind, **json.loads(output.splitlines()[-1])})
                times[kind].append(runs[-1]["first_step"])
                print(runs[-1], flush=True)
    harness.report("start to the end of the first step", times, None, arguments, runs=runs)


if __name__ == "__main__":
    main()
