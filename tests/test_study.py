"""A whole study of every kind: files, growth, what is missing or unreadable, and its union."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import assert_same_picks, features, read_csv
from matplotlib import image

import tavaal_jax
from configs import moons
from tavaal_jax.report import diagnostics, statistics
from tavaal_jax.report.plots.figures import FIGURES

QUICK = ("random", "learning_loss_v2", "tavaal")
SHORT = ("--config.cycles=3", "--config.epochs=5", "--config.trials=1")


@pytest.fixture(scope="module")
def finished(run_main, tmp_path_factory):
    """Moons with some methods on one device: the folder and what was printed."""
    folder = tmp_path_factory.mktemp("moons")
    done = run_main("moons", folder, *SHORT, f"--config.methods={','.join(QUICK)}")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def again(run_main, folder, *flags, methods=QUICK):
    done = run_main("moons", folder, *SHORT, f"--config.methods={','.join(methods)}", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(folder):
    """The study's own files, and its trials', but for what tells the time."""
    kept = [p for p in folder.rglob("*") if p.suffix in (".csv", ".md", ".jsonl")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def test_files_and_table(finished):
    folder, output = finished
    rows = read_csv(folder / "results.csv")
    assert list(rows[0]) == ["method", "trial", "cycle", "labelled", "metric", "value"]
    assert [r["labelled"] for r in rows] == ["20", "30", "40"] * len(QUICK)
    assert tuple(dict.fromkeys(r["method"] for r in rows)) == QUICK
    assert {r["metric"] for r in rows} == {"accuracy"}
    record = json.loads((folder / "config.json").read_text())
    assert record["format"] == 2
    assert record["config"]["dataset"] == "moons"
    assert set(record["versions"]) >= {"jax", "flax", "python"}
    for name in FIGURES.keys() - {"picks.png", "maps.png", "class_iou.png"}:
        assert image.imread(folder / name)[..., :3].std() > 0.01, name
    summary = read_csv(folder / "summary.csv")
    assert list(summary[0]) == list(statistics.FIELDS)
    assert len([r for r in summary if r["metric"] == "accuracy"]) == 3 * len(QUICK)
    text = (folder / "summary.md").read_text()
    assert "One trial gives neither" in text
    assert "## What was picked" in text
    assert "mean ± standard deviation over trials" in output
    assert "tavaal trial 0 cycle 2: 40 labelled, accuracy" in output
    assert "left]" in output
    assert " programs traced and compiled in " in output


@pytest.mark.parametrize("method", QUICK)
def test_a_trial_writes_its_own_files_whole_and_keeps_its_model(finished, method):
    folder, _ = finished
    trial = folder / method / "trial_0"
    union = [r for r in read_csv(folder / "results.csv") if r["method"] == method]
    assert read_csv(trial / "results.csv") == union
    picks = read_csv(trial / "picks.csv")
    assert list(picks[0]) == ["cycle", "rank", "index", "id", "score"]
    assert len(picks) == len({p["index"] for p in picks}) == 20
    for cycle in ("0", "1"):
        mine = [p for p in picks if p["cycle"] == cycle]
        assert [int(p["rank"]) for p in mine] == list(range(10))
    diagnosed = read_csv(trial / "diagnostics.csv")
    assert list(diagnosed[0]) == list(diagnostics.FIELDS)
    assert [(d["cycle"], d["labelled"]) for d in diagnosed] == [("0", "20"), ("1", "30")]
    assert all(float(d["seconds_train"]) > 0 < float(d["seconds_select"]) for d in diagnosed)
    assert not (trial / "checkpoints").exists()
    assert {p.name for p in (trial / "model").iterdir()} == {"weights.npz", "model.json"}


def test_metrics_tell_every_step_once(finished):
    folder, _ = finished
    lines = (folder / "tavaal" / "trial_0" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for cycle, stage, steps in ((0, "joint", 5), (1, "joint", 5), (2, "task", 10)):
        mine = [r for r in records if (r["cycle"], r["stage"]) == (cycle, stage)]
        assert mine[-1]["step"] == steps
        assert [r["step"] for r in mine] == sorted({r["step"] for r in mine})
        assert {"task_loss", "ranking_loss"} <= set(mine[0])
        assert ("reconstruction" in mine[0]) == (stage == "joint")
    asked = [r for r in records if r["stage"] == "label"]
    assert [(r["asked"], r["answered"]) for r in asked] == [(10, 10)] * 2


def test_a_finished_study_says_so_and_stays_as_it_is(finished, run_main, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    before = files_of(tmp_path)
    assert "are finished; nothing to do" in again(run_main, tmp_path)
    assert files_of(tmp_path) == before


@pytest.mark.slow
def test_a_study_can_grow_by_trials_and_methods(finished, run_main, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    before = read_csv(tmp_path / "results.csv")
    again(run_main, tmp_path, "--config.trials=2", methods=("random", "margin"))
    after = read_csv(tmp_path / "results.csv")
    assert [r for r in after if r["trial"] == "0" and r["method"] != "margin"] == before
    grown = [(r["method"], r["trial"]) for r in after if r not in before]
    assert grown == [("random", "1")] * 3 + [("margin", "0")] * 3 + [("margin", "1")] * 3
    values = {t: [r["value"] for r in after if (r["method"], r["trial"]) == ("random", t)]
              for t in "01"}  # fmt: skip
    assert values["0"] != values["1"]


@pytest.mark.slow
def test_nothing_is_dropped_because_a_folder_or_a_methods_row_is_missing(
    finished, run_main, tmp_path
):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    before = read_csv(tmp_path / "results.csv")
    shutil.rmtree(tmp_path / "learning_loss_v2")
    shutil.move(tmp_path / "tavaal", tmp_path / "unheard_of")
    results = tmp_path / "unheard_of" / "trial_0" / "results.csv"
    results.write_text(results.read_text().replace("tavaal", "unheard_of"))
    again(run_main, tmp_path, methods=("random",))
    after = read_csv(tmp_path / "results.csv")
    assert {r["method"] for r in after} == {*QUICK, "unheard_of"}
    assert [r for r in after if r["method"] == "learning_loss_v2"] == [
        r for r in before if r["method"] == "learning_loss_v2"
    ]


@pytest.mark.slow
def test_an_unreadable_trial_does_not_stop_the_others(finished, run_main, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    broken = tmp_path / "learning_loss_v2" / "trial_0"
    (broken / "results.csv").write_text("method,trial\nlearning_loss_v2\n")
    (broken / "checkpoints" / "7" / "arrays").mkdir(parents=True)
    (broken / "checkpoints" / "7" / "_CHECKPOINT_METADATA").write_text("{}")
    methods = ("learning_loss_v2", "random", "entropy")
    done = run_main("moons", tmp_path, *SHORT, f"--config.methods={','.join(methods)}")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(broken) in last
    rows = read_csv(tmp_path / "results.csv")
    assert [r["method"] for r in rows].count("entropy") == 3
    assert [r["method"] for r in rows].count("learning_loss_v2") == 3  # It keeps its rows.
    assert "the other trials go on" in done.stdout


@pytest.mark.slow
def test_a_damaged_file_of_one_trial_leaves_the_others_alone(finished, run_main, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    trial = tmp_path / "learning_loss_v2" / "trial_0"
    (trial / "diagnostics.csv").write_bytes(b"cycle,labelled\n0,\xff\xfe\n")
    (trial / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    flags = (*SHORT, "--config.methods=random,entropy")
    done = run_main("moons", tmp_path, *flags)
    assert done.returncode == 2
    assert f"{trial / 'diagnostics.csv'} cannot be read" in done.stderr.strip().splitlines()[-1]
    rows = read_csv(tmp_path / "results.csv")
    assert [r["method"] for r in rows].count("entropy") == 3
    assert (tmp_path / "entropy" / "trial_0" / "model" / "model.json").exists()


@pytest.mark.slow
def test_arrays_of_features(tmp_path):
    """No plane and no image: there are no pictures, and all the rest."""
    dataset = features()
    config = moons.get_config()
    config.update(methods="random,margin", trials=1, cycles=2, epochs=2, batch_size=16, subset=0)
    told = []
    result = tavaal_jax.run_study(config, tmp_path, dataset, progress=told.append)
    assert {r["method"] for r in result.rows()} == {"random", "margin"}
    assert {p.name for p in tmp_path.glob("*.png")} == {"accuracy.png", "class_entropy.png"}
    done = [event.done for event in told if event.done is not None]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)
    before = files_of(tmp_path)
    tavaal_jax.run_study(config, tmp_path, dataset)
    assert files_of(tmp_path) == before
    # Other arrays are another study.
    other = dataclasses.replace(dataset, train_images=dataset.train_images + 1)
    with pytest.raises(tavaal_jax.UserError, match="the images and labels of the data set"):
        tavaal_jax.run_study(config, tmp_path, other)
    config.imbalance.ratio = 2
    with pytest.raises(tavaal_jax.UserError, match="is 2, and arrays is given"):
        tavaal_jax.run_study(config, tmp_path / "new", dataset)
    # Without a trial in common there is no difference to draw, and no fault.
    shutil.move(tmp_path / "margin" / "trial_0", tmp_path / "margin" / "trial_1")
    path = tmp_path / "margin" / "trial_1" / "results.csv"
    path.write_text(path.read_text().replace("margin,0", "margin,1"))
    (tmp_path / "results.csv").unlink()
    config.imbalance.ratio = 1
    config.update(methods="random")
    rows = tavaal_jax.run_study(config, tmp_path, dataset).rows()
    assert {(r["method"], r["trial"]) for r in rows} == {("random", 0), ("margin", 1)}


def test_stopped_from_python_the_studys_results_are_there(tmp_path):
    config = moons.get_config()
    config.update(methods="random", trials=1, cycles=3, epochs=2, batch_size=16)
    told = []
    stop = lambda: 15 if any(e.stage == "evaluate" for e in told) else None
    with pytest.raises(tavaal_jax.Interrupted):
        tavaal_jax.run_study(config, tmp_path, progress=told.append, stop=stop)
    assert [r["cycle"] for r in read_csv(tmp_path / "results.csv")] == ["0"]
    rows = tavaal_jax.run_study(config, tmp_path).rows()
    assert [r["cycle"] for r in rows] == [0, 1, 2]


# Long ones


# One of each kind: test_golden.py has the first choice of all methods on these images, and
# test_cycle.py a cycle of each.
ON_IMAGES = ("coreset", "mc_dropout", "tavaal", "sraal", "badge", "uherding", "alfa_mix")


@pytest.fixture(scope="module")
def smoke(run_main, tmp_path_factory):
    """The smoke study on one device."""
    folder = tmp_path_factory.mktemp("smoke")
    done = run_main("smoke", folder, f"--config.methods={','.join(ON_IMAGES)}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ON_IMAGES)
def test_a_method_of_every_kind_on_images(smoke, method):
    picks = read_csv(smoke / method / "trial_0" / "picks.csv")
    assert len({p["index"] for p in picks}) == 32
    rows = [r for r in read_csv(smoke / "results.csv") if r["method"] == method]
    assert [r["labelled"] for r in rows] == ["32", "48", "64"]
    assert image.imread(smoke / "picks.png")[..., :3].std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "methods"), [(2, "coreset,mc_dropout,badge"), (4, "tavaal")])
def test_devices_do_not_change_the_picks(smoke, devices, methods, run_main, tmp_path):
    done = run_main("smoke", tmp_path, f"--config.methods={methods}", devices=devices)
    assert done.returncode == 0, done.stderr
    for method in methods.split(","):
        name = f"{method}/trial_0/picks.csv"
        one, many = read_csv(smoke / name), read_csv(tmp_path / name)
        assert_same_picks(one, many)
        losses = first_losses(smoke / method)
        assert first_losses(tmp_path / method) == pytest.approx(losses, rel=1e-4)


def first_losses(folder):
    line = (folder / "trial_0" / "metrics.jsonl").read_text().splitlines()[0]
    record = json.loads(line)
    assert record["step"] == 1
    return {name: value for name, value in record.items() if isinstance(value, float)
            and name != "seconds"}  # fmt: skip


@pytest.mark.slow
def test_the_training_trains(run_main, tmp_path):
    from configs import digits
    from tavaal_jax.data import load
    from tavaal_jax.data.pool import Normaliser

    # The VAE starts as the released code's; what it rebuilds beats the mean image after 100 to 160
    # steps: 160 labels are enough for 200.
    flags = ("--config.methods=tavaal", "--config.trials=1", "--config.cycles=2",
             "--config.initial=160", "--config.diagnostics=False")  # fmt: skip
    done = run_main("digits", tmp_path, *flags, optimised=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "tavaal" / "trial_0" / "metrics.jsonl").read_text().splitlines()
    records = [r for r in map(json.loads, lines) if r["stage"] == "joint"]
    first, last = records[0], records[-1]
    assert last["task_loss"] < 0.2 * first["task_loss"]
    assert last["ranking_loss"] < 0.95 * first["ranking_loss"]
    images = load(digits.get_config()).train_images
    plain = np.asarray(Normaliser.of(images)(images))
    assert last["reconstruction"] < np.mean((plain - plain.mean(0, keepdims=True)) ** 2)
    assert 0.51 < last["discriminator_accuracy"] < 0.95


@pytest.mark.slow
def test_a_learner_with_all_digits_reaches_97_percent(run_main, tmp_path):
    flags = (
        "--config.methods=random",
        "--config.trials=1",
        "--config.cycles=1",
        "--config.initial=1297",
        "--config.epochs=8",
    )
    done = run_main("digits", tmp_path, *flags, optimised=True)
    assert done.returncode == 0, done.stderr
    (row,) = read_csv(tmp_path / "results.csv")
    assert float(row["value"]) >= 0.97
