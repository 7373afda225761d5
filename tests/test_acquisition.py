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


def brute_force_k_center(subset, labelled, count):
    """The definition, in float64."""
    subset, chosen = subset.astype(np.float64), [x.astype(np.float64) for x in labelled]
    picks = []
    for _ in range(count):
        nearest = [
            -1.0 if i in picks else min(np.sum((x - c) ** 2) for c in chosen)
            for i, x in enumerate(subset)
        ]
        picks.append(int(np.argmax(nearest)))
        chosen.append(subset[picks[-1]])
    return picks


@pytest.mark.parametrize("seed", range(20))
def test_k_center_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    offset = 100 * random.normal(size=7)  # far from the origin, where |x|^2 - 2xy + |y|^2 cancels
    subset, labelled = (
        (offset + random.normal(size=(n, 7))).astype(np.float32) for n in (40, 1 + seed % 5)
    )
    picks = acquisition.k_center(subset, labelled, 15)
    np.testing.assert_array_equal(picks, brute_force_k_center(subset, labelled, 15))


def test_k_center_picks_duplicates_last_and_once_each():
    subset = np.float32([[0, 0], [3, 0], [3, 0], [0, 1]])
    picks = acquisition.k_center(subset, np.float32([[0, 0]]), 4)
    np.testing.assert_array_equal(picks, [1, 3, 0, 2])
