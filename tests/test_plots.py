"""The figures' command line, studies put together from several folders, and files that lack."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, read_csv
from matplotlib import pyplot as plt

from tavaal_jax import plots
from tavaal_jax.errors import UserError

MOONS = (
    "--config.cycles=3",
    "--config.epochs=5",
    "--config.methods=random,learning_loss,learning_loss_v2,tavaal",
)


@pytest.fixture(scope="module")
def parts(run_main, tmp_path_factory):
    """Two trials of one study, each in a workdir of its own, as two machines would leave them."""
    folders = []
    for trial in range(2):
        folders.append(tmp_path_factory.mktemp(f"part_{trial}"))
        flags = (f"--config.first_trial={trial}", f"--config.trials={trial + 1}")
        done = run_main("moons", folders[-1], *MOONS, *flags)
        assert done.returncode == 0, done.stderr
    return folders


def draw(*arguments):
    command = [sys.executable, "-m", "tavaal_jax.plots", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_part_has_its_trial_alone_and_all_figures(parts):
    rows = read_csv(parts[1] / "results.csv")
    assert {r["trial"] for r in rows} == {"1"}
    for name in plots.figures.FIGURES.keys() - {"picks.png"}:
        assert plt.imread(parts[1] / name)[..., :3].std() > 0.01, name


def test_parts_put_together_are_a_finished_study(parts, run_main, tmp_path):
    for part in parts:
        shutil.copytree(part, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.png"))
    done = run_main("moons", tmp_path, *MOONS, "--config.trials=2")
    assert done.returncode == 0, done.stderr
    assert "are finished; nothing to do" in done.stdout
    rows = read_csv(tmp_path / "results.csv")
    assert len(rows) == 4 * 2 * 3
    assert [r for r in rows if r["trial"] == "0"] == read_csv(parts[0] / "results.csv")
    assert "Trials: random 2" in (tmp_path / "summary.md").read_text()
    again = draw(tmp_path, "--trial=1", "--cycle=0")
    assert again.returncode == 0, again.stderr
    assert f"{tmp_path / 'plane.png'}: Figure 1" in again.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--trial=7",), "--trial is 7: give one of 0"),
        (("--cycle=9",), "--cycle is 9, but nothing was picked there: give 0 to 1"),
    ],
)
def test_a_choice_that_is_not_there(parts, flags, message):
    done = draw(parts[0], *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line == f"error: {message}"


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(UserError, match="holds no results of a study"):
        plots.draw(tmp_path)


def test_a_torn_line_of_the_log_is_left_out(parts, tmp_path):
    shutil.copytree(parts[0], tmp_path, dirs_exist_ok=True)
    with (tmp_path / "learning_loss" / "trial_0" / "metrics.jsonl").open("a") as file:
        file.write('{"cycle": 1, "st')
    assert "ranking_loss.png" in plots.draw(tmp_path)


def test_without_diagnostics_there_are_neither_files_nor_their_figures(run_main, tmp_path):
    flags = ("--config.methods=random", "--config.trials=1", "--config.diagnostics=False")
    done = run_main("moons", tmp_path, *MOONS[:2], *flags)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["accuracy.png"]
    run = tmp_path / "random" / "trial_0"
    assert not list(run.glob("diagnostics*"))
    picks = read_csv(run / "picks.csv")
    assert len(np.unique([p["index"] for p in picks])) == 20
