"""Claim: all programs of `configs/cifar100.py` compile in little more than a minute, once.

From the cache they take a quarter of a minute.

A process of its own imports the package, compiles all programs of `tavaal` under
`configs/cifar100.py` (weights, joint step, test, ranks and losses, scores) and runs each once:
first with an empty cache of compiled programs, then with the filled one.

    python benchmarks/startup.py [--rounds=1] [--json]

`ratio` is the time for tracing and compiling with the empty cache over that with the filled one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time


def child(folder):
    """Compiles and runs everything; prints seconds."""
    begin = time.perf_counter()
    import harness
    import numpy as np

    from tavaal_jax.engine import compilation

    compilation.keep_in_cache(folder)
    imported = time.perf_counter() - begin
    with compilation.Count() as count:
        programs = harness.cifar(images=1024)
        harness.seconds_of(lambda: programs.train("joint", 1))
        first_step = time.perf_counter() - begin
        programs.scores(np.arange(128))
        programs.accuracy()
    result = {
        "import": imported, "first_step": first_step, "all_compiled_and_run_once":
        time.perf_counter() - begin, "programs": count.programs, "from_cache": count.from_cache,
        "compiling": count.seconds,
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
                times[kind].append(runs[-1]["compiling"])
                print(runs[-1], flush=True)
    harness.report("tracing and compiling", times, None, arguments, runs=runs)


if __name__ == "__main__":
    main()
