"""Killed in each of the eight methods, a study goes on to the same files.

A file of its own, so that it runs beside `test_resume`.
"""

import pathlib
import random
import signal

from conftest import read_csv
from tavaal_jax.methods import METHODS
from test_resume import interrupt


def test_every_method_survives_being_killed(command, run_main, tmp_path_factory):
    flags = (
        "--config.methods=all",
        "--config.trials=1",
        "--config.cycles=3",
        "--config.epochs=20",
        "--config.steps_per_call=3",
        "--config.score_batch_size=4",
        "--config.checkpoint_every_steps=5",
    )
    whole, killed = (tmp_path_factory.mktemp(name) for name in ("all", "killed"))
    done = run_main("moons", whole, *flags)
    assert done.returncode == 0, done.stderr
    chance = random.Random(1)
    for method in METHODS:
        # Its log tells of training and tests: ranks, values, choice and diagnosis follow.
        goal = chance.choice(["task", "joint"] if METHODS[method].adversary else ["task"])
        goal = chance.choice([goal, "evaluate", "select"])
        delay = chance.uniform(0, 0.1)
        process, stderr = interrupt(
            command, killed, flags, goal, delay, signal.SIGKILL, method, "moons"
        )
        assert process.returncode == -signal.SIGKILL, (method, goal, stderr)
    done = run_main("moons", killed, *flags)
    assert done.returncode == 0, done.stderr
    assert (killed / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for method in METHODS:
        run = pathlib.Path(method, "trial_0")
        picks = [(folder / run / "picks.csv").read_bytes() for folder in (whole, killed)]
        assert picks[0] == picks[1], method
        tables = [read_csv(folder / run / "diagnostics.csv") for folder in (whole, killed)]
        for row in (*tables[0], *tables[1]):
            for name in [name for name in row if name.startswith("seconds")]:
                assert float(row.pop(name)) >= 0
        assert tables[0] == tables[1], method
