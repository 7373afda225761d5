"""Whole studies of label maps: of a DRN, and of a network that compiles quickly."""

import pathlib

import numpy as np
import pytest
from conftest import read_csv
from flax import linen as nn
from trials import compiled_once

import tavaal_jax
from configs import scenes
from tavaal_jax import models
from tavaal_jax.data.sets.scenes import scenes as drawn
from tavaal_jax.models import TaskOutput, layers
from tavaal_jax.report import records
from tavaal_jax.report.plots import figures

pytestmark = pytest.mark.slow

COUNT = 40


class Pixels(nn.Module):
    """Two convolutions and a class for each pixel."""

    classes: int
    axis_name: str | None
    dropout: models.Dropout

    def setup(self):
        self.first, self.second = layers.Conv(4, 3, 1, 1), layers.Conv(6, 3, 1, 1)
        self.last = nn.Dense(self.classes)

    def head(self, features, dropout_keys, size):
        del size
        return self.last(layers.dropout(features, dropout_keys, self.dropout.rate, 0))

    def __call__(self, images, train, dropout_keys=None):
        hidden = nn.relu(self.first(images))
        x = nn.relu(self.second(hidden))
        logits = self.head(x, dropout_keys, images.shape[1:3])
        return TaskOutput(logits, (hidden, x), x.mean((1, 2)), x)


@pytest.fixture(autouse=True, scope="module")
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture
def quick(monkeypatch):
    """The network in the place of the DRN."""
    build = lambda config, classes, shape, axis_name: Pixels(
        classes, axis_name, models.Dropout("head", config.mc_dropout.rate)
    )
    monkeypatch.setitem(models.NETWORKS, "drn", models.Network(build, maps=True))


@pytest.fixture(scope="module")
def arrays():
    """Some of the scenes, with a class in the test set that no training image has."""
    every = drawn.arrays()
    busy = np.argsort([-len(np.unique(one)) for one in every["train_labels"]], kind="stable")
    chosen = np.sort(busy[: COUNT * 4])[::4]
    return (
        every["train_images"][chosen], every["train_labels"][chosen],
        every["test_images"][:10], every["test_labels"][:10], tuple(every["class_names"]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset(arrays):
    images, labels, test_images, test_labels, names = arrays
    return tavaal_jax.Dataset.from_arrays(
        images, labels, test_images, test_labels, class_names=names, name="mine"
    )


def config_of(**changes):
    config = scenes.get_config()
    config.update(
        methods="random,tavaal", trials=1, cycles=2, epochs=2, initial=8, budget=6, subset=0,
        batch_size=8, score_batch_size=8, parallel="devices",
    )  # fmt: skip
    config.task.widths = (4, 4, 4, 8, 8, 8, 8, 8)
    config.vae.update(latent=4, widths=(4, 4), image_size=8)
    config.discriminator.hidden = (8, 8)
    config.mc_dropout.passes = 2
    config.update_from_flattened_dict(changes)
    return config


def run(dataset, folder, **changes):
    return tavaal_jax.run_study(config_of(**changes), folder, dataset=dataset)


def content(folder):
    """Results, per-class figures and picks, byte for byte."""
    names = {"results.csv", "picks.csv", "class_iou.csv"}
    files = (f for f in pathlib.Path(folder).rglob("*.csv") if f.name in names)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


FLAGS = (
    "--config.methods=tavaal", "--config.trials=1", "--config.cycles=2",
    "--config.epochs=2", "--config.task.widths=(4, 4, 4, 8, 8, 8, 8, 8)",
    "--config.augmentation.crop=32", "--config.subset=40", "--config.parallel=devices",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory, run_main):
    """Of the DRN, on all scenes."""
    folder = tmp_path_factory.mktemp("maps")
    done = run_main("scenes", folder / "study", *FLAGS, f"--config.data_dir={folder}")
    assert done.returncode == 0, done.stderr
    return tavaal_jax.StudyResult(folder / "study")


def test_what_a_study_of_maps_writes(study):
    rows = study.rows()
    assert {r["metric"] for r in rows} == {"mean_iou", "pixel_accuracy"}
    assert all(0 < r["value"] < 1 for r in rows)
    by_class = records.read_class_iou(study.folder / "tavaal" / "trial_0")
    assert [r["class"] for r in by_class] == 2 * list(drawn.CLASSES.values())
    for cycle, labelled in enumerate((24, 48)):
        values = [r["iou"] for r in by_class if r["cycle"] == cycle]
        mean = next(
            r["value"] for r in rows
            if (r["method"], r["cycle"], r["metric"]) == ("tavaal", cycle, "mean_iou")
        )  # fmt: skip
        np.testing.assert_allclose(np.nanmean(values), mean, atol=1e-6)
        assert {r["labelled"] for r in by_class if r["cycle"] == cycle} == {labelled}
    (row,) = (r for r in study.diagnostics() if r["method"] == "tavaal")
    assert 0 < float(row["picks_class_entropy"]) < np.log(11)


def test_the_model_that_is_left_draws_maps(study):
    model = tavaal_jax.load_model(study.folder / "tavaal" / "trial_0")
    every = drawn.arrays()
    maps = model.predict(every["test_images"])
    truth = every["test_labels"]
    assert maps.shape == truth.shape
    (accuracy,) = (
        r["value"] for r in study.rows()
        if (r["method"], r["cycle"], r["metric"]) == ("tavaal", 1, "pixel_accuracy")
    )  # fmt: skip
    assert (maps == truth)[truth != 255].mean() == pytest.approx(accuracy, abs=1e-4)


def test_figures_and_page_of_maps(study):
    names = figures.draw(study.folder)
    assert {"picks.png", "maps.png", "class_iou.png", "class_entropy.png"} <= set(names)
    page = (study.folder / "report.html").read_text()
    assert "picks by class: " in page
    assert "mean_iou" in page


WINDOWS = {"augmentation.crop": 24, "vae.updates": 3, "vae.epochs": 1}
"""The same in each test, whose programs are compiled once then."""


@pytest.mark.usefixtures("quick")
def test_streamed_and_resident_studies_pick_alike(dataset, tmp_path):
    """Windows are cut by the host or by the devices; the files have the same bytes.

    With the other schedule they are test_cityscapes.py's.
    """
    flags = {"methods": "tavaal", "schedule": "two_phase", **WINDOWS}
    one, other = (
        run(dataset, tmp_path / feed, data_placement=feed, **flags)
        for feed in ("resident", "streamed")
    )
    assert content(one.folder) == content(other.folder)
    assert len(read_csv(one.folder / "results.csv")) == 4


@pytest.mark.usefixtures("quick")
def test_labels_that_nobody_has_given_change_nothing(dataset, arrays, tmp_path):
    """All maps but those of the first images and the picks are other ones."""
    images, labels, test_images, test_labels, names = arrays
    flags = {"methods": "tavaal,sraal", "data_placement": "resident", **WINDOWS}
    study = run(dataset, tmp_path / "true", **flags)
    picked = set(study.picks("sraal").index) | set(study.picks("tavaal").index)
    first = np.load(study.folder / "tavaal" / "trial_0" / "diagnostics" / "cycle_0.npz")["labelled"]
    known = np.isin(np.arange(COUNT), [*picked, *first])
    poisoned = np.where(known[:, None, None], labels, 10 - np.minimum(labels, 10)).astype(np.uint8)
    other = tavaal_jax.Dataset.from_arrays(
        images, poisoned, test_images, test_labels, class_names=names, name="mine"
    )
    again = run(other, tmp_path / "poisoned", **flags)
    assert content(again.folder) == content(study.folder)


@pytest.mark.usefixtures("quick")
def test_methods_of_every_kind_go_through_their_cycles(dataset, tmp_path):
    """In windows that are wider than the images are high: these are filled up."""
    methods = ("coreset", "mc_dropout", "badge")  # Those above have adversaries.
    flags = {"methods": ",".join(methods), "augmentation.crop": 60}
    result = run(dataset, tmp_path, epochs=1, **flags)
    assert {r["method"] for r in result.rows()} == set(methods)
    for name in methods:
        assert len(np.unique(result.picks(name).index)) == 6


@pytest.mark.usefixtures("quick")
def test_a_query_about_maps(arrays):
    images, labels, *_, names = arrays
    unknown = labels.copy()
    unknown[10:] = 255
    mine = tavaal_jax.Dataset.from_arrays(images, unknown, class_names=names)
    picks = tavaal_jax.query(config_of(), mine, "entropy", budget=5)
    assert len(set(picks.indices)) == 5
    assert picks.indices.min() >= 10
