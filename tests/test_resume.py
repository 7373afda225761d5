"""Stopped at any moment, the same command goes on to the same files, byte for byte."""

import random
import signal
import subprocess
import time

import pytest
from conftest import ROOT

CONFIG = ("--config.methods=tavaal", "--config.vae.epochs=6", "--config.steps_per_call=3")
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


def reached(folder, goal):
    """Whether a study is at `goal`: in a stage, writing a checkpoint, or at its start."""
    run = folder / "tavaal" / "trial_0"
    if goal == "start":
        return run.exists()
    if goal == "checkpoint":
        return any(".orbax-checkpoint-tmp" in p.name for p in run.glob("checkpoints/*"))
    log = run / "metrics.jsonl"
    return log.exists() and f'"{goal}"' in log.read_text()


def interrupt(command, folder, flags, goal, delay, number):
    """Sends signal `number` once a study is at `goal`: the ended process and its stderr."""
    argv, environment = command("smoke", folder, *flags)
    process = subprocess.Popen(
        argv,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not reached(folder, goal):
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    _, stderr = process.communicate()
    return process, stderr


def test_kill_at_random_moments_of_every_stage(whole, command, run_main, tmp_path):
    flags, expected = whole
    two_phase = "two_phase" in flags[-1]
    chance = random.Random(0)
    train = ["task", "adversary"] if two_phase else ["joint"]
    for goal in ("start", *train, "checkpoint", "evaluate", "checkpoint"):
        interrupt(command, tmp_path, flags, goal, chance.uniform(0, 0.5), signal.SIGKILL)
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
