"""One question without files: which images are worth labelling next?"""

import os

import numpy as np
import pytest
from trials import compiled_once, config_of

from configs import smoke
from tavaal_jax import METHODS, Dataset, picks, query
from tavaal_jax.data import load
from tavaal_jax.errors import UserError
from tavaal_jax.study.notebook.query import method_of


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def digits():
    """300 digits, of which 40 have a label."""
    whole = load(smoke.get_config())
    labels = np.where(np.arange(300) % 7 == 0, whole.train_labels[:300], -1)
    labels[np.flatnonzero(labels >= 0)[40:]] = -1
    return Dataset.from_arrays(
        whole.train_images[:300], labels, class_names=whole.class_names, name="mine"
    )


@pytest.fixture(scope="module")
def points():
    """120 points of the plane, of which 30 have a label."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    features = rng.normal(size=(120, 2)) + 3 * labels[:, None]
    return Dataset.from_arrays(features, np.where(np.arange(120) < 30, labels, -1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["learning_loss_v2", pytest.param("tavaal", marks=pytest.mark.slow)]
)
def test_digits_without_a_label_are_picked_and_nothing_is_written(
    method, digits, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = smoke.get_config()
    config.epochs = 1
    config.task.update(widths=(4,), blocks=(1,))
    config.vae.widths = (4, 4)
    before = config.to_json()
    found = query(config, digits, method, budget=12)
    assert len(found.indices) == len(set(found.indices)) == len(found.scores) == 12
    assert (digits.train_labels[found.indices] == -1).all()
    assert np.isfinite(found.scores).all()
    largest_first = METHODS[method].pick is picks.largest
    assert list(found.scores) == sorted(found.scores, reverse=largest_first)
    assert os.listdir(tmp_path) == []
    assert config.to_json() == before
    assert (digits.train_labels >= 0).sum() == 40


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["joint", "two_phase"])
def test_the_same_question_has_the_same_answer(points, schedule):
    config = config_of(schedule=schedule)
    first, again = (query(config, points, "tavaal", 5) for _ in range(2))
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert (first.indices >= 30).all()


def test_another_seed_gives_other_picks(points):
    found = [query(config_of(seed=seed), points, "random", 20).indices for seed in (0, 1)]
    assert set(found[0]) != set(found[1])


def test_a_larger_budget_goes_on_where_a_smaller_one_ends(points):
    small, large = (query(config_of(), points, "random", budget) for budget in (5, 20))
    np.testing.assert_array_equal(small.indices, large.indices[:5])
    np.testing.assert_array_equal(small.scores, large.scores[:5])


def test_the_configs_budget_is_the_default_and_the_whole_pool_can_be_asked_for(points):
    assert len(query(config_of(budget=7), points, "random").indices) == 7
    found = query(config_of(subset=0), points, "random", 90)
    assert sorted(found.indices) == list(range(30, 120))
    assert len(query(config_of(subset=10), points, "random", 50).indices) == 50


def test_diagnoses_are_not_asked_for(points):
    assert len(query(config_of(diagnostics=True), points, "learning_loss_v2", 3).indices) == 3


# Faults


def test_without_a_label_there_is_nothing_to_train_on(points):
    blank = Dataset.from_arrays(points.train_images, np.full(120, -1), class_names=["a", "b"])
    with pytest.raises(UserError, match="none of the 120 images has a label: label some at random"):
        query(config_of(), blank, "random", 5)


@pytest.mark.parametrize("budget", [0, -1, 91])
def test_a_budget_that_the_pool_does_not_have(points, budget):
    with pytest.raises(UserError, match=f"budget is {budget}: give 1 to 90, the images without"):
        query(config_of(), points, "random", budget)


@pytest.mark.parametrize("budget", [2.5, "five"])
def test_a_budget_that_is_no_whole_number(points, budget):
    with pytest.raises(UserError, match="give a whole number"):
        query(config_of(), points, "random", budget)


def test_a_budget_may_be_numpys(points):
    assert len(query(config_of(), points, "random", np.int64(5)).indices) == 5


def test_fewer_labels_than_a_batch(points):
    with pytest.raises(UserError, match="batch_size is 64, more than the 30 labels"):
        query(config_of(batch_size=64), points, "random", 5)


def test_an_unknown_method(points):
    with pytest.raises(UserError, match="did you mean tavaal"):
        query(config_of(), points, "tavall", 5)


def test_several_methods_are_not_one(points):
    with pytest.raises(UserError):
        query(config_of(), points, "all", 5)


def test_learning_rates_that_are_too_large(points):
    config = config_of(**{"task.learning_rate": 1e30, "task.optimiser": "sgd"})
    with pytest.raises(UserError, match=r"not finite.*lower the learning rates") as error:
        query(config, points, "learning_loss_v2", 5)
    assert "\n" not in str(error.value)


def test_without_a_method_features_and_images_have_each_their_own(digits, points):
    config = config_of()
    assert method_of(None, config, points, "tavaal") == "uherding"
    assert method_of(None, config, digits, "tavaal") == "tavaal"
    config.backbone.name = "efficientnet_lite0"
    assert method_of(None, config, digits, "tavaal") == "uherding"
    assert method_of("margin", config, digits, "tavaal") == "margin"
    expected, found = (query(config_of(), points, method, 5) for method in ("uherding", None))
    np.testing.assert_array_equal(expected.indices, found.indices)
