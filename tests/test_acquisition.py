"""From scores to picks."""

import numpy as np
import pytest

from tavaal_jax import acquisition


def test_smallest_first_and_largest_first():
    scores, indices = np.array([0.3, -1.0, 2.0, 0.0]), np.array([5, 6, 7, 8])
    assert list(acquisition.pick(scores, indices, 2, smallest_first=True)) == [1, 3]
    assert list(acquisition.pick(scores, indices, 2, smallest_first=False)) == [2, 0]


def test_ties_go_to_the_smaller_pool_index():
    scores, indices = np.array([1.0, 0.0, 0.0, 0.0]), np.array([1, 9, 3, 5])
    assert list(acquisition.pick(scores, indices, 3, smallest_first=True)) == [2, 3, 1]
    assert list(acquisition.pick(-scores, indices, 3, smallest_first=False)) == [2, 3, 1]


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(FloatingPointError):
        acquisition.pick(np.array([0.0, np.nan]), np.arange(2), 1, smallest_first=True)
