"""Greedy k-center on all devices together, each of which holds a shard of the pool."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax.algorithm import picks
from tavaal_jax.engine import devices


def on_all_devices(pick: Callable[..., picks.Picks]) -> Callable[..., picks.Picks]:
    """The pick with its work shared by all devices, where it is greedy k-center; else as it is."""
    return functools.partial(pick, greedy=k_center) if pick is picks.core_set else pick


def k_center(subset: np.ndarray, labelled: np.ndarray, count: int) -> tuple[jax.Array, jax.Array]:
    """:func:`tavaal_jax.algorithm.picks.k_center`, to the same picks on any number of devices."""
    shards, begins = shard(subset)
    return _program(count)(shards, begins, labelled, np.int32(len(subset)))


def shard(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shards of rows for the local devices: `[n, ...] -> [local D, m, ...], [local D]`.

    Device d of all has the d-th m rows; the second array holds the index of the first of them.
    Zeros fill up the last shards.
    """
    length = -(-len(rows) // jax.device_count())
    local = jax.local_device_count()
    begins = (jax.process_index() * local + np.arange(local, dtype=np.int32)) * length
    shards = np.zeros((local, length, *rows.shape[1:]), rows.dtype)
    for own, begin in zip(shards, begins, strict=True):
        there = rows[begin : begin + length]
        own[: len(there)] = there
    return shards, begins


@functools.cache
def _program(count: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    def part(
        subset: jax.Array, begin: jax.Array, labelled: jax.Array, size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return picks.k_center(subset, labelled, count, begin, size, _farthest)

    return devices.sharded_program(part, in_axes=(0, 0, None, None))


def _farthest(candidate: picks.CenterCandidate) -> picks.CenterCandidate:
    """The best of all devices' candidates; among equals that of the first device, and position."""
    distances, positions, centers = lax.all_gather(candidate, devices.AXIS)
    best = jnp.argmax(distances)
    return distances[best], positions[best], centers[best]
