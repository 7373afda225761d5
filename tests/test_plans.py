"""Pools, subsets and index plans."""

import jax
import numpy as np

from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import plans

KEY = jax.random.key(3)
FIRST, SECOND = (derive(KEY, Stream.SUBSET, cycle) for cycle in (1, 2))


def test_initial_pool_has_its_size_and_depends_on_the_key():
    first = plans.initial(KEY, 100, 10)
    assert len(set(first)) == 10
    assert first.min() >= 0
    assert first.max() < 100
    np.testing.assert_array_equal(first, plans.initial(KEY, 100, 10))
    assert set(first) != set(plans.initial(jax.random.key(4), 100, 10))


def test_a_larger_initial_pool_contains_the_smaller_one():
    np.testing.assert_array_equal(plans.initial(KEY, 100, 30)[:10], plans.initial(KEY, 100, 10))


def test_subset_is_unlabelled_and_the_same_for_every_method():
    labelled = np.arange(100) < 30
    subset = plans.subset(FIRST, ~labelled, 20)
    assert len(set(subset)) == 20
    assert not labelled[subset].any()
    np.testing.assert_array_equal(subset, plans.subset(FIRST, ~labelled, 20))
    assert set(subset) != set(plans.subset(SECOND, ~labelled, 20))


def test_subset_draws_agree_where_pools_differ():
    # One order per (trial, cycle): what both pools lack decides, nothing else.
    one, other = np.zeros(100, bool), np.zeros(100, bool)
    other[:5] = True
    drawn = set(plans.subset(FIRST, ~one, 50))
    assert len(drawn & set(plans.subset(FIRST, ~other, 50))) >= 45


def test_subset_larger_than_the_pool_and_of_all():
    labelled = np.arange(10) < 4
    assert list(plans.subset(FIRST, ~labelled, 100)) == [4, 5, 6, 7, 8, 9]
    assert list(plans.subset(FIRST, ~labelled, 0)) == [4, 5, 6, 7, 8, 9]


def test_a_pass_meets_every_image_at_most_once_in_full_batches():
    pool = np.arange(50) % 2 == 0  # 25 images: 6 batches of 4, one image sits out
    stream = plans.IndexStream(KEY, pool, 4)
    assert stream.steps_per_pass == 6
    passes = [stream.rows(6 * p, 6).ravel() for p in range(3)]
    for rows in passes:
        assert len(set(rows)) == 24
        assert pool[rows].all()
    assert set(passes[0]) != set(passes[1]) or list(passes[0]) != list(passes[1])
    assert list(passes[0]) != list(passes[1])


def test_rows_do_not_depend_on_where_reading_starts():
    stream = plans.IndexStream(KEY, np.ones(20, bool), 4)
    whole = stream.rows(0, 17)
    again = plans.IndexStream(KEY, np.ones(20, bool), 4)
    parts = [again.rows(13, 4), again.rows(0, 2), again.rows(2, 11)]
    np.testing.assert_array_equal(whole, np.concatenate([parts[1], parts[2], parts[0]]))


def test_a_pool_smaller_than_a_batch_is_repeated():
    pool = np.arange(10) < 3
    rows = plans.IndexStream(KEY, pool, 8).rows(0, 2)
    assert rows.shape == (2, 8)
    assert set(rows.ravel()) == {0, 1, 2}


def test_groups_are_the_same_batches_some_to_a_step():
    stream = plans.IndexStream(KEY, np.ones(40, bool), 8)
    groups = stream.groups(2, 3, 4)
    assert groups.shape == (3, 8, 4)
    rows = stream.rows(8, 12)
    for step in range(3):
        for number in range(4):
            np.testing.assert_array_equal(groups[step, :, number], rows[4 * step + number])
