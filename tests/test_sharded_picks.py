"""K-center of a pool that lies on several devices."""

import jax
import numpy as np
import pytest
from conftest import several_devices

from tavaal_jax.algorithm import picks
from tavaal_jax.engine import sharded_picks


def points(random, count, kind):
    if kind == "ties":  # On a grid: most distances occur many times.
        return random.integers(0, 3, (count, 3)).astype(np.float32)
    return random.normal(size=(count, 8)).astype(np.float32)


@several_devices
@pytest.mark.parametrize("kind", ["normal", "ties"])
@pytest.mark.parametrize("size", [5, 40, 41, 43, 203])
def test_picks_are_those_of_one_device(kind, size, rng):
    subset, labelled = points(rng, size, kind), points(rng, 3, kind)
    count = min(40, size)  # With ties, more than there are different points.
    alone = picks.k_center(subset, labelled, count)
    together = sharded_picks.k_center(subset, labelled, count)
    assert jax.device_count() > 1
    for mine, whole in zip(together, alone, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(whole))
    assert len(set(np.asarray(together[0]).tolist())) == count


def test_rows_are_sharded_in_order_and_filled_up():
    rows = np.arange(1, 2 * 10 + 1).reshape(10, 2)
    parts, begins = sharded_picks.shard(rows, -(-10 // jax.device_count()))
    assert len(parts) == len(begins) == jax.local_device_count()
    length = parts.shape[1]
    np.testing.assert_array_equal(begins, length * np.arange(len(parts)))
    flat = parts.reshape(-1, 2)
    np.testing.assert_array_equal(flat[:10], rows)
    assert not flat[10:].any()
