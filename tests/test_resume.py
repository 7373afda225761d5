"""Stopped at any moment, the same command goes on to the same files, byte for byte."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT, read_csv
from trials import compiled_once, config_of

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.report import files
from tavaal_jax.report.progress import silent
from tavaal_jax.run import run_study
from tavaal_jax.study import recorder

EVERY = 5  # steps between checkpoints: a stage that is killed after more has one of its own.
FLAGS = (
    "--config.methods=tavaal",
    "--config.trials=1",
    "--config.cycles=4",  # Every kill must find something left to do.
    f"--config.checkpoint_every_steps={EVERY}",
    "--config.epochs=12",
    "--config.vae.epochs=6",
    "--config.seconds_per_call=0.001",  # A step in each call, of the programs of other tests.
)


def content(folder, method="tavaal"):
    """Files that must come out the same; diagnostics but for their times."""
    trial = folder / method / "trial_0"
    same = {p: (folder / p).read_bytes() for p in ("results.csv", f"{method}/trial_0/picks.csv",
                                                   f"{method}/trial_0/results.csv")}  # fmt: skip
    rows = read_csv(trial / "diagnostics.csv")
    for row in rows:
        for name in [name for name in row if name.startswith("seconds")]:
            assert float(row.pop(name)) >= 0
    return {**same, "diagnostics": rows}


def marks(folder, goal):
    """Signs that a study has been at `goal`: lines of its log, or checkpoints begun.

    In a stage that trains, after a checkpoint of its own.
    """
    trial = folder / "tavaal" / "trial_0"
    if goal == "checkpoint":
        return {p.name for p in trial.glob("checkpoints/*.orbax-checkpoint-tmp*")}
    log = trial / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    lines = [line for line in lines if f'"{goal}"' in line and line.endswith("}")]
    return {line for line in lines if not 0 < json.loads(line)["step"] <= EVERY}


def interrupt(command, folder, config, flags, goal, delay, number):
    """Sends signal `number` once a study is at `goal` anew: the ended process and its stderr."""
    before = marks(folder, goal)
    argv, environment = command(config, folder, *flags)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(argv, env=environment, cwd=ROOT, text=True, **pipes)
    while process.poll() is None and not marks(folder, goal) - before:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    _, stderr = process.communicate()
    return process, stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "schedule", "goals", "number"),
    [
        ("smoke", "joint", ("joint", "checkpoint", "select"), signal.SIGTERM),
        ("moons", "two_phase", ("task", "adversary", "evaluate", "label"), signal.SIGUSR1),
    ],
)
def test_killed_and_stopped_at_random_moments_of_every_stage_it_goes_on_to_the_same_files(
    config, schedule, goals, number, command, run_main, tmp_path
):
    """The stage "evaluate" is logged when it ends: scoring and picking follow in milliseconds."""
    flags = (*FLAGS, f"--config.schedule={schedule}")
    done = run_main(config, tmp_path / "whole", *flags)
    assert done.returncode == 0, done.stderr
    chance, killed = random.Random(0), tmp_path / "killed"
    for goal in goals:
        delay = chance.uniform(0, 0.05)
        process, stderr = interrupt(command, killed, config, flags, goal, delay, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, (goal, stderr)
    process, stderr = interrupt(command, killed, config, flags, goals[0], 0, number)
    assert process.returncode == 128 + number, stderr
    assert stderr.strip().splitlines()[-1] == (
        f"stopped by {number.name}; everything is saved, the same command continues"
    )
    done = run_main(config, killed, *flags)
    assert done.returncode == 0, done.stderr
    assert "continues in cycle" in done.stdout
    assert content(killed) == content(tmp_path / "whole")


class Killed(BaseException):
    """The end of a process: nobody catches it, and nothing is saved after it."""


@pytest.fixture(scope="module")
def moons():
    """Two moons in this process: `(folder, methods, told) -> None`, with its programs kept."""
    changes = {"trials": 1, "cycles": 3, "epochs": 12, "seconds_per_call": 0.001,
               "checkpoint_every_steps": EVERY}  # fmt: skip

    def run(folder, methods, told=silent):
        run_study(config_of(methods=methods, **changes), folder, progress=told)

    with compiled_once():
        yield run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["badge", "mc_dropout", "learning_loss_v2", "sraal", "tavaal"])
def test_methods_of_every_kind_go_on_from_the_midst_of_a_training(method, moons, tmp_path):
    """T alone, with dropout, with a Ranker, with an adversary, with both: weights of each."""
    moons(tmp_path / "whole", method)
    stage, told = "joint" if METHODS[method].adversary else "task", []

    def kill(event):
        if (event.cycle, event.stage) == (1, stage) and event.step > EVERY:
            raise Killed

    with pytest.raises(Killed):
        moons(tmp_path / "killed", method, kill)
    moons(tmp_path / "killed", method, lambda event: told.append(event.text or ""))
    assert any(f"continues in cycle 1, stage {stage}, step {EVERY}" in text for text in told)
    assert content(tmp_path / "killed", method) == content(tmp_path / "whole", method)


@pytest.fixture(scope="module")
def finished(moons, tmp_path_factory):
    """An uninterrupted study of the method that is begun fastest: any method ends so."""
    folder = tmp_path_factory.mktemp("finished")
    moons(folder, "random")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "name"),
    [(recorder.records, "write_picks"), (recorder, "from_state"), (files, "write"),
     (recorder, "remove")],
    ids=["picks", "no model", "half a model", "half of the checkpoints"],
)  # fmt: skip
def test_killed_while_finishing_it_loses_nothing(of, name, moons, finished, tmp_path, monkeypatch):
    """The last moments: results complete, model being written, checkpoints being removed."""
    complete = (finished / "random" / "trial_0" / "results.csv").read_bytes()
    mine, usual = tmp_path / "random" / "trial_0", getattr(of, name)

    def killed(*arguments, **options):
        is_last = (mine / "results.csv").exists() and name != "write"
        is_last = is_last or arguments[0] == mine / "model" / "model.json"
        if not is_last or (mine / "results.csv").read_bytes() != complete:
            return usual(*arguments, **options)
        if name == "remove":
            shutil.rmtree(next(path for path in arguments[0].iterdir() if path.is_dir()))
        raise Killed

    monkeypatch.setattr(of, name, killed)
    with pytest.raises(Killed):
        moons(tmp_path, "random")
    monkeypatch.undo()
    assert (mine / "results.csv").read_bytes() == complete
    moons(tmp_path, "random")
    assert content(tmp_path, "random") == content(finished, "random")
    assert (mine / "model" / "model.json").exists()
    assert not (mine / "checkpoints").exists()
