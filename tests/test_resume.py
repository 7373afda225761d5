"""Stopped at any moment, the same command goes on to the same files, byte for byte."""

import pathlib
import random
import signal
import subprocess
import time

import pytest
from conftest import ROOT, read_csv

from tavaal_jax.algorithm.methods import METHODS

SHORT = (
    "--config.trials=1",
    "--config.cycles=3",
    "--config.epochs=20",
    "--config.steps_per_call=3",
    "--config.score_batch_size=4",
    "--config.checkpoint_every_steps=5",
)
QUICK = ("--config.methods=tavaal", *SHORT)
LONG = (
    "--config.methods=tavaal",
    "--config.trials=1",
    "--config.cycles=4",  # Every kill must find something left to do.
    "--config.checkpoint_every_steps=10",
    "--config.vae.epochs=6",
    "--config.vae.updates=2",
    "--config.steps_per_call=3",
    "--config.score_batch_size=4",
)


def content(folder, method="tavaal"):
    """Files that must come out the same; diagnostics but for their times."""
    trial = folder / method / "trial_0"
    files = {p: (folder / p).read_bytes() for p in ("results.csv", f"{method}/trial_0/picks.csv",
                                                    f"{method}/trial_0/results.csv")}  # fmt: skip
    rows = read_csv(trial / "diagnostics.csv")
    for row in rows:
        for name in [name for name in row if name.startswith("seconds")]:
            assert float(row.pop(name)) >= 0
    return {**files, "diagnostics": rows}


def marks(folder, goal, method):
    """Signs that a study has been at `goal`: lines of its log, or checkpoints begun."""
    trial = folder / method / "trial_0"
    if goal == "checkpoint":
        return {p.name for p in trial.glob("checkpoints/*.orbax-checkpoint-tmp*")}
    log = trial / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return {line for line in lines if f'"{goal}"' in line}


def interrupt(command, folder, config, flags, goal, delay, number, method="tavaal"):
    """Sends signal `number` once a study is at `goal` anew: the ended process and its stderr."""
    before = marks(folder, goal, method)
    argv, environment = command(config, folder, *flags)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(argv, env=environment, cwd=ROOT, text=True, **pipes)
    while process.poll() is None and not marks(folder, goal, method) - before:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    _, stderr = process.communicate()
    return process, stderr


def whole(run_main, folder, config, flags, method="tavaal"):
    """An uninterrupted study."""
    done = run_main(config, folder, *flags)
    assert done.returncode == 0, done.stderr
    return content(folder, method)


def kill(command, folder, config, flags, goal, delay=0.0, method="tavaal"):
    process, stderr = interrupt(command, folder, config, flags, goal, delay, signal.SIGKILL, method)
    assert process.returncode == -signal.SIGKILL, (goal, stderr)


def stop(command, folder, config, flags, goal, number):
    process, stderr = interrupt(command, folder, config, flags, goal, 0, number)
    assert process.returncode == 128 + number, stderr
    assert stderr.strip().splitlines()[-1] == (
        f"stopped by {number.name}; everything is saved, the same command continues"
    )


def go_on(run_main, folder, config, flags):
    done = run_main(config, folder, *flags)
    assert done.returncode == 0, done.stderr
    assert "continues in cycle" in done.stdout
    return content(folder)


@pytest.mark.slow
def test_killed_and_stopped_it_goes_on_to_the_same_files(command, run_main, tmp_path):
    expected = whole(run_main, tmp_path / "whole", "moons", QUICK)
    killed = tmp_path / "killed"
    kill(command, killed, "moons", QUICK, "joint")
    kill(command, killed, "moons", QUICK, "select")
    stop(command, killed, "moons", QUICK, "joint", signal.SIGUSR1)
    stop(command, killed, "moons", QUICK, "joint", signal.SIGTERM)
    assert go_on(run_main, killed, "moons", QUICK) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("config", "schedule"), [("smoke", "joint"), ("moons", "two_phase")])
def test_kill_at_random_moments_of_every_stage(config, schedule, command, run_main, tmp_path):
    flags = (*LONG, f"--config.schedule={schedule}")
    expected = whole(run_main, tmp_path / "whole", config, flags)
    chance = random.Random(0)
    train = ["joint"] if schedule == "joint" else ["task", "adversary"]
    killed = tmp_path / "killed"
    # "evaluate" is logged when it ends: scoring and picking follow within milliseconds.
    for goal in (*train, "checkpoint", "evaluate", "label"):
        kill(command, killed, config, flags, goal, chance.uniform(0, 0.05))
    number, goal = (signal.SIGTERM, "joint") if schedule == "joint" else (signal.SIGINT, "task")
    stop(command, killed, config, flags, goal, number)
    assert go_on(run_main, killed, config, flags) == expected


@pytest.mark.slow
def test_methods_of_every_kind_survive_being_killed(command, run_main, tmp_path):
    """T alone, with dropout, with a Ranker, with an adversary, with both."""
    methods = ("badge", "mc_dropout", "learning_loss_v2", "sraal", "tavaal")
    flags = (f"--config.methods={','.join(methods)}", *SHORT)
    folder, killed = tmp_path / "whole", tmp_path / "killed"
    done = run_main("moons", folder, *flags)
    assert done.returncode == 0, done.stderr
    chance = random.Random(1)
    for method in methods:
        # Its log tells of training and tests: ranks, values, choice and diagnosis follow.
        goal = "joint" if METHODS[method].adversary else "task"
        goal = chance.choice([goal, "evaluate", "select", "label"])
        kill(command, killed, "moons", flags, goal, chance.uniform(0, 0.1), method)
    done = run_main("moons", killed, *flags)
    assert done.returncode == 0, done.stderr
    for method in methods:
        assert content(killed, method) == content(folder, method), method


@pytest.mark.slow
def test_killed_while_finishing_it_loses_nothing(command, run_main, tmp_path):
    """The last moments: results complete, model being written, checkpoints being removed."""
    flags = ("--config.methods=random", *SHORT)  # Any method ends so, and this one starts quickly.
    expected = whole(run_main, tmp_path / "whole", "moons", flags, "random")
    for number in range(4):
        killed = tmp_path / f"killed_{number}"
        argv, environment = command("moons", killed, *flags)
        process = subprocess.Popen(
            argv, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        results = pathlib.Path(killed, "random", "trial_0", "results.csv")
        while process.poll() is None and not (
            results.exists() and "40," in results.read_text(encoding="utf-8")
        ):
            time.sleep(0.001)
        time.sleep(0.02 * number)
        process.kill()
        process.wait()
        done = run_main("moons", killed, *flags)
        assert done.returncode == 0, done.stderr
        assert content(killed, "random") == expected
        assert (killed / "random" / "trial_0" / "model" / "model.json").exists()
        assert not (killed / "random" / "trial_0" / "checkpoints").exists()
