"""Whole studies: files, pairing, devices, extension, a config that learns."""

import json

import numpy as np
import pytest
from conftest import read_csv
from matplotlib import pyplot as plt
from tavaal_jax.methods import METHODS
from tavaal_jax.plots.figures import FIGURES

from configs import digits
from tavaal_jax import acquisition, diagnostics, statistics
from tavaal_jax.data import load


@pytest.fixture(scope="module")
def finished(run_main, tmp_path_factory):
    """The smoke study with all methods on one device."""
    folder = tmp_path_factory.mktemp("smoke")
    done = run_main("smoke", folder, "--config.methods=all")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_files_and_table(finished):
    folder, output = finished
    rows = read_csv(folder / "results.csv")
    assert list(rows[0]) == ["method", "trial", "cycle", "labelled", "metric", "value"]
    assert [r["labelled"] for r in rows] == ["32", "48", "64"] * 8
    assert list(dict.fromkeys(r["method"] for r in rows)) == list(METHODS)
    assert {r["metric"] for r in rows} == {"accuracy"}
    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["dataset"] == "digits"
    assert set(record["versions"]) >= {"jax", "flax", "python"}
    for name in FIGURES.keys() - {"plane.png"}:
        image = plt.imread(folder / name)[..., :3]
        assert image.std() > 0.01, name
    summary = read_csv(folder / "summary.csv")
    assert list(summary[0]) == list(statistics.FIELDS)
    assert len([r for r in summary if r["metric"] == "accuracy"]) == 24
    text = (folder / "summary.md").read_text()
    assert "One trial gives neither" in text
    assert "## What was picked" in text
    assert "mean ± standard deviation over trials" in output
    assert "tavaal trial 0 cycle 2: 64 labelled, accuracy" in output
    assert "left]" in output
    assert " programs traced and compiled in " in output


@pytest.mark.parametrize("method", METHODS)
def test_picks_are_new_images_in_order_of_score(finished, method):
    folder, _ = finished
    picks = read_csv(folder / method / "trial_0" / "picks.csv")
    assert list(picks[0]) == ["cycle", "rank", "index", "id", "score"]
    assert len(picks) == len({p["index"] for p in picks}) == 32
    for cycle in ("0", "1"):
        mine = [p for p in picks if p["cycle"] == cycle]
        assert [int(p["rank"]) for p in mine] == list(range(16))
        scores = [float(p["score"]) for p in mine]
        largest_first = METHODS[method].choose is not acquisition.smallest
        assert scores == sorted(scores, reverse=largest_first)
    diagnosed = read_csv(folder / method / "trial_0" / "diagnostics.csv")
    assert list(diagnosed[0]) == list(diagnostics.FIELDS)
    assert [(d["cycle"], d["labelled"]) for d in diagnosed] == [("0", "32"), ("1", "48")]
    assert all(float(d["seconds_train"]) > 0 < float(d["seconds_select"]) for d in diagnosed)


def test_metrics_tell_every_step_once(finished):
    folder, _ = finished
    lines = (folder / "tavaal" / "trial_0" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for cycle, stage, steps in ((0, "joint", 16), (1, "joint", 24), (2, "task", 32)):
        mine = [r for r in records if (r["cycle"], r["stage"]) == (cycle, stage)]
        assert mine[-1]["step"] == steps
        assert [r["step"] for r in mine] == sorted({r["step"] for r in mine})
        assert {"task_loss", "ranking_loss"} <= set(mine[0])
    assert {"reconstruction", "kl", "discriminator_loss"} <= set(records[0])


def test_a_finished_study_says_so(finished, run_main):
    folder, _ = finished
    before = (folder / "results.csv").read_bytes()
    done = run_main("smoke", folder, "--config.methods=all")
    assert done.returncode == 0
    assert "are finished; nothing to do" in done.stdout
    assert (folder / "results.csv").read_bytes() == before


def test_a_study_can_grow_by_trials(finished, run_main):
    folder, _ = finished
    before = read_csv(folder / "results.csv")
    done = run_main("smoke", folder, "--config.trials=2", "--config.methods=random")
    assert done.returncode == 0, done.stderr
    after = read_csv(folder / "results.csv")
    assert [r for r in after if r["trial"] == "0"] == before
    assert [r["method"] for r in after if r["trial"] == "1"] == ["random"] * 3
    assert [r["value"] for r in after[:3]] != [r["value"] for r in after[3:6]]


@pytest.mark.parametrize(("devices", "methods"), [(2, "all"), (4, "tavaal")])
def test_devices_do_not_change_the_picks(finished, devices, methods, run_main, tmp_path):
    folder, _ = finished
    done = run_main("smoke", tmp_path, f"--config.methods={methods}", devices=devices)
    assert done.returncode == 0, done.stderr
    for method in METHODS if methods == "all" else [methods]:
        name = f"{method}/trial_0/picks.csv"
        one, many = read_csv(folder / name), read_csv(tmp_path / name)
        assert [p["index"] for p in one] == [p["index"] for p in many], method
        scores = [[float(p["score"]) for p in picks] for picks in (one, many)]
        np.testing.assert_allclose(*scores, rtol=1e-2, atol=1e-4)
    assert first_losses(tmp_path) == pytest.approx(first_losses(folder), rel=1e-4)


def first_losses(folder):
    line = (folder / "tavaal" / "trial_0" / "metrics.jsonl").read_text().splitlines()[0]
    record = json.loads(line)
    assert record["step"] == 1
    return {name: value for name, value in record.items() if isinstance(value, float)
            and name != "seconds"}  # fmt: skip


def test_the_training_trains(run_main, tmp_path):
    flags = ("--config.methods=tavaal", "--config.trials=1", "--config.cycles=2")
    done = run_main("digits", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "tavaal" / "trial_0" / "metrics.jsonl").read_text().splitlines()
    records = [r for r in map(json.loads, lines) if r["stage"] == "joint"]
    first, last = records[0], records[-1]
    assert last["task_loss"] < 0.2 * first["task_loss"]
    assert last["ranking_loss"] < 0.95 * first["ranking_loss"]
    train, _ = load(digits.get_config()).on_device()
    images = np.asarray(train.plain(np.arange(1297)))
    assert last["reconstruction"] < np.mean((images - images.mean(0, keepdims=True)) ** 2)
    assert 0.51 < last["discriminator_accuracy"] < 0.95


def test_moons_run_to_their_end(run_main, tmp_path):
    done = run_main("moons", tmp_path, "--config.trials=1", "--config.cycles=3")
    assert done.returncode == 0, done.stderr
    values = [float(r["value"]) for r in read_csv(tmp_path / "results.csv")]
    assert max(values) > 0.7


def test_a_learner_with_all_digits_reaches_97_percent(run_main, tmp_path):
    flags = (
        "--config.methods=random",
        "--config.trials=1",
        "--config.cycles=1",
        "--config.initial=1297",
        "--config.epochs=8",
    )
    done = run_main("digits", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    (row,) = read_csv(tmp_path / "results.csv")
    assert float(row["value"]) >= 0.97
