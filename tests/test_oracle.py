"""The simulation's oracle."""

import numpy as np
import pytest

import tavaal_jax
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.errors import UserError
from tavaal_jax.study.parallel import runner


def test_known_answers_at_once_and_reveals_the_same():
    oracle, asked = SimulatedOracle([3, 1, 2, 0]), np.array([2, 0, 2])
    for answers in (oracle.answer(asked), oracle.reveal(asked)):
        np.testing.assert_array_equal(answers, [2, 3, 2])
        assert answers.dtype == np.int32
    assert oracle.answer(np.array([], int)).shape == (0,)


def test_an_unknown_label_is_not_known():
    with pytest.raises(ValueError, match="-1 is not one"):
        SimulatedOracle(np.array([0, 1, -1]))


def with_maps(train, test):
    """A data set of 3 training and 2 test images with maps full of these classes."""
    images = np.zeros((3, 4, 4, 3), np.uint8)
    maps = np.array(train, np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    answers = np.array(test, np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return tavaal_jax.Dataset.from_arrays(images, maps, images[:2], answers, class_names="ab")


@pytest.mark.parametrize(
    ("train", "test", "which"), [([255] * 3, [0, 1], "training"), ([0, 1, 255], [255] * 2, "test")]
)
def test_a_simulation_needs_a_map_with_a_class(train, test, which):
    says = f"all {which} maps of arrays are 255 in every pixel, which is none of its 2 classes"
    with pytest.raises(UserError, match=says):
        runner.oracle(with_maps(train, test))


def test_some_maps_may_be_without_a_class():
    oracle = runner.oracle(with_maps([255, 0, 1], [255, 1]))
    np.testing.assert_array_equal(oracle.class_counts(np.arange(3)), [[0, 0], [16, 0], [0, 16]])


@pytest.mark.parametrize(
    ("labels", "tests", "says"),
    [
        ([0, -1, 1], 2, "1 of 3 labels of arrays are -1: a study simulates people and needs them"),
        ([0, 1, 1], None, "arrays has no test images: a study is measured on some"),
    ],
)
def test_a_simulation_needs_labels_and_a_test_set(labels, tests, says):
    images = np.zeros((3, 4, 4, 1), np.uint8)
    test = (images[:tests], labels[:1] * tests) if tests else ()
    with pytest.raises(UserError, match=says):
        runner.oracle(tavaal_jax.Dataset.from_arrays(images, labels, *test))
