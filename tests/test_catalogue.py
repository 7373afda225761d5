"""The embedded data sets, what is known of one before it is loaded, and one from outside."""

import pathlib

import numpy as np
import pytest
from conftest import read_csv

import tavaal_jax as tv
from configs import digits, moons
from tavaal_jax import data as sets
from tavaal_jax.data import SETS, DataFacts, Dataset, load
from tavaal_jax.errors import UserError
from tavaal_jax.study.checks import config as checks


def test_moons_are_500_and_50_and_tested_evenly():
    data = load(moons.get_config())
    assert data.train_images.shape == (550, 2)
    np.testing.assert_array_equal(np.bincount(data.train_labels), [500, 50])
    np.testing.assert_array_equal(np.bincount(data.test_labels), [1000, 1000])


def test_moons_are_drawn_anew_for_each_seed():
    config = moons.get_config()
    first, again = load(config), load(config)
    np.testing.assert_array_equal(first.train_images, again.train_images)
    config.seed = 1
    other = load(config)
    assert (first.train_images != other.train_images).any()
    assert (first.test_images != other.test_images).any()


def test_digits_are_all_there_once():
    data = load(digits.get_config())
    assert data.train_images.shape == (1297, 8, 8, 1)
    assert data.test_images.shape == (500, 8, 8, 1)
    assert data.train_images.dtype == np.uint8
    assert len(set(data.train_ids)) == 1297
    assert min(np.bincount(data.test_labels)) >= 48


@pytest.mark.parametrize("config", [digits, moons])
def test_what_is_said_before_loading_is_true(config):
    config = config.get_config()
    facts, data = sets.facts(config), load(config)
    assert facts == SETS[config.dataset].facts
    assert facts == (len(data.train_images), data.classes, data.shape, False)
    assert set(np.unique(data.train_labels)) == set(range(data.classes))
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert data.train_images.dtype == data.test_images.dtype


# A data set from outside


def of_points(config, count=120):
    """Three clouds of points; another seed, other points."""
    random = np.random.default_rng(config.seed)
    labels = np.arange(count) % 3
    points = random.normal(size=(count, 2)) + labels[:, None]
    return Dataset.from_arrays(points[20:], labels[20:], points[:20], labels[:20])


def settings():
    config = moons.get_config()
    config.dataset = "mine"
    return config


@pytest.mark.parametrize(
    "facts", [None, DataFacts(100, 3, (2,)), lambda config: DataFacts(100, 3, (2,))]
)
def test_a_row_from_outside_is_a_data_set_by_name(facts, monkeypatch):
    monkeypatch.setitem(SETS, "mine", tv.DataSource(of_points, facts))
    config = settings()
    assert tv.SETS is SETS
    assert sets.facts(config) == (100, 3, (2,), False)
    assert load(config).name == "mine"
    assert sets.is_at_hand(config)
    assert sets.fingerprint(config) is None
    checks.check(config, 1)
    config.cycles = 100
    with pytest.raises(UserError, match="more than the 100 training images of mine"):
        checks.check(config, 1)


def test_a_row_that_is_at_fault(monkeypatch):
    monkeypatch.setitem(SETS, "mine", tv.DataSource(lambda config: np.zeros(3)))
    with pytest.raises(UserError, match=r"SETS\['mine'\].load returned ndarray: return a"):
        load(settings())

    def refuse(config):
        raise UserError(f"seed is {config.seed}: give 1")

    monkeypatch.setitem(SETS, "mine", tv.DataSource(of_points, refuse))
    with pytest.raises(UserError, match="seed is 0: give 1"):
        checks.check(settings(), 1)
    config = settings()
    config.dataset = "mien"
    with pytest.raises(UserError, match=r"dataset is 'mien' .did you mean mine"):
        checks.check(config, 1)


def test_imbalance_is_that_of_the_config(monkeypatch):
    monkeypatch.setitem(SETS, "mine", tv.DataSource(of_points))
    config = settings()
    config.imbalance.update(ratio=4, classes=(0,))
    assert len(load(config).train_images) == 100 - 25


CONFIG = """
import numpy as np
import tavaal_jax as tv
from configs import moons

def load(config):
    labels = np.arange(90) % 3
    points = np.random.default_rng(0).normal(size=(90, 2)) + labels[:, None]
    return tv.Dataset.from_arrays(points[30:], labels[30:], points[:30], labels[:30])

tv.SETS["mine"] = tv.DataSource(load)

def get_config():
    config = moons.get_config()
    config.update(dataset="mine", methods="random,coreset", trials=2, cycles=2, epochs=2)
    return config
"""


@pytest.mark.slow
def test_a_data_set_of_a_config_file_runs_here_and_in_workers(run_main, tmp_path):
    file = pathlib.Path(tmp_path, "mine.py")
    file.write_text(CONFIG, encoding="utf-8")
    results = []
    for name, flags in (
        ("here", ()), ("apart", ("--config.parallel=trials", "--config.workers=2"))
    ):  # fmt: skip
        done = run_main(file, tmp_path / name, *flags)
        assert done.returncode == 0, done.stderr
        results.append((tmp_path / name / "results.csv").read_bytes())
        assert (tmp_path / name / "plane.png").exists()
        assert (tmp_path / name / "report.html").exists()
    assert results[0] == results[1]
    assert len(read_csv(tmp_path / "here" / "results.csv")) == 2 * 2 * 2
