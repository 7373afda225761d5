"""The embedded data sets, and what is known of every data set before it is loaded."""

import numpy as np
import pytest

from configs import digits, moons
from tavaal_jax import data as sets
from tavaal_jax.data import SETS, load


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
