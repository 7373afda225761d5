"""Folds of near-duplicates against a graph's components, and one image of each fold."""

import numpy as np
import pytest
from scipy.sparse import csgraph

from tavaal_jax.algorithm import near_duplicates


def twins(rng, groups=12, features=24, noise=0.02):
    """Groups of one to four near-duplicates, in random order."""
    sizes = np.arange(groups) % 4 + 1
    of = rng.permutation(np.repeat(np.arange(groups), sizes))
    points = rng.normal(size=(groups, features))[of] + noise * rng.normal(size=(len(of), features))
    return points.astype(np.float32), of


def by_definition(points, cosine):
    """The least index of each image's component."""
    unit = points.astype(np.float64) / np.linalg.norm(points, axis=1, keepdims=True)
    _, numbers = csgraph.connected_components(unit @ unit.T > cosine)
    return np.array([np.flatnonzero(numbers == number)[0] for number in numbers])


@pytest.mark.parametrize("block", [1, 4, 64])
def test_folds_are_components_whatever_the_block(rng, monkeypatch, block):
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    points, of = twins(rng)
    found = near_duplicates.folds(points, 0.9)
    np.testing.assert_array_equal(found, by_definition(points, 0.9))
    np.testing.assert_array_equal(found[:, None] == found, of[:, None] == of)
    # A long chain, through which blocks meet in any order.
    angles = rng.permutation(40) * 0.1
    chain = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert not near_duplicates.folds(chain, np.cos(0.11)).any()
    assert len(np.unique(near_duplicates.folds(chain, np.cos(0.09)))) == 40


def test_lengths_do_not_matter_and_images_without_features_are_alone(rng):
    points, _ = twins(rng)
    scaled = points * rng.uniform(0.01, 100, size=(len(points), 1))
    expected = near_duplicates.folds(points, 0.9)
    np.testing.assert_array_equal(near_duplicates.folds(scaled, 0.9), expected)
    points[:3] = 0
    assert near_duplicates.folds(points, 0.9)[:3].tolist() == [0, 1, 2]
    assert near_duplicates.folds(points[:0], 0.9).shape == (0,)


def test_one_of_each_fold_that_nobody_has_taken():
    folds = np.array([0, 0, 2, 2, 2, 5, 6])
    candidates = np.array([1, 1, 0, 1, 1, 1, 0], bool)
    free = near_duplicates.one_of_each(folds, candidates, np.zeros(7, bool))
    assert np.flatnonzero(free).tolist() == [0, 3, 5]
    taken = np.array([0, 0, 1, 0, 0, 0, 1], bool)
    free = near_duplicates.one_of_each(folds, candidates, taken)
    assert np.flatnonzero(free).tolist() == [0, 5]
