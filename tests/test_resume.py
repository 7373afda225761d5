"""Stopped at any moment, the same command goes on to the same files, byte for byte."""

import random
import signal
import subprocess
import time

import pytest
from conftest import ROOT

CONFIG = (
    "--config.methods=tavaal",
    "--config.cycles=4",  # Every kill must find something left to do.
    "--config.vae.epochs=6",
    "--config.steps_per_call=3",
    "--config.score_batch_size=4",
)
FILES = ("results.csv", "tavaal/trial_0/picks.csv")


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module", params=["joint", "two_phase"])
def whole(request, run_main, tmp_path_factory):
    """An uninterrupted study: its flags and its files."""
    flags = (*CONFIG, f"--config.schedule={request.param}")
    folder = tmp_path_factory.mktemp("whole")
    done = run_main("smoke", folder, *flags)
    assert done.returncode == 0, done.stderr
    return flags, content(folder)


def marks(folder, goal, method="tavaal"):
    """Signs that a study has been at `goal`: lines of its log, or checkpoints begun."""
    run = folder / method / "trial_0"
    if goal == "checkpoint":
        return {p.name for p in run.glob("checkpoints/*.orbax-checkpoint-tmp*")}
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return {line for line in lines if f'"{goal}"' in line}


def interrupt(command, folder, flags, goal, delay, number, method="tavaal", config="smoke"):
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


def test_kill_at_random_moments_of_every_stage(whole, command, run_main, tmp_path):
    flags, expected = whole
    chance = random.Random(0)
    train = ["task", "adversary"] if "two_phase" in flags[-1] else ["joint"]
    # "evaluate" is logged when it ends: scoring and picking follow within milliseconds.
    for goal in (*train, "checkpoint", "evaluate"):
        delay = chance.uniform(0, 0.05)
        process, stderr = interrupt(command, tmp_path, flags, goal, delay, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, (goal, stderr)
    done = run_main("smoke", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path) == expected


def test_a_polite_signal_saves_first(whole, command, run_main, tmp_path):
    flags, expected = whole
    two_phase = "two_phase" in flags[-1]
    goal, number = ("adversary", signal.SIGINT) if two_phase else ("joint", signal.SIGTERM)
    process, stderr = interrupt(command, tmp_path, flags, goal, 0, number)
    assert process.returncode == 128 + number, stderr
    assert stderr.strip().splitlines()[-1] == (
        f"stopped by {number.name}; everything is saved, the same command continues"
    )
    saved = [int(p.name) for p in tmp_path.glob("tavaal/trial_0/checkpoints/[0-9]*")]
    assert max(saved) > 0
    done = run_main("smoke", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert "continues in cycle" in done.stdout
    assert content(tmp_path) == expected
