"""Picks made by all devices together, each of which holds a shard of the pool, or of its blocks."""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax.algorithm import blocks, picks
from tavaal_jax.algorithm.blocks import RowFunction, Rows
from tavaal_jax.engine import devices, memory


def on_all_devices(pick: Callable[..., picks.Picks]) -> Callable[..., picks.Picks]:
    """The pick with its work shared by all devices, where it is made for that; else as it is.

    That is greedy k-center, and each pick with a parameter `map_blocks`.
    """
    if pick is picks.core_set:
        return functools.partial(pick, greedy=k_center)
    try:
        takes_blocks = "map_blocks" in inspect.signature(pick).parameters
    except (TypeError, ValueError):  # A function without a signature.
        return pick
    return functools.partial(pick, map_blocks=map_blocks) if takes_blocks else pick


def k_center(subset: np.ndarray, labelled: np.ndarray, count: int) -> tuple[jax.Array, jax.Array]:
    """:func:`tavaal_jax.algorithm.picks.k_center`, to the same picks on any number of devices."""
    shards, begins = shard(subset, -(-len(subset) // jax.device_count()))
    return _program(count)(shards, begins, labelled, np.int32(len(subset)))


def map_blocks(function: RowFunction, rows: Rows, *shared: Rows) -> Rows:
    """Maps a function over all rows, a block on each device at a time, see `blocks.MapBlocks`."""
    length = blocks.block_length(len(jax.tree.leaves(rows)[0]))
    program = _blocks_program(function, len(shared))
    on_devices = blocks.placed(shared, devices.place)
    found = []
    for count, part in blocks.slices(rows, length * jax.device_count()):
        results = program(jax.tree.map(lambda x: shard(x, length)[0], part), *on_devices)
        flat = lambda x, n=count: np.asarray(x).reshape(-1, *x.shape[2:])[:n]
        found.append(jax.tree.map(flat, results))
    joined: Rows = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    return joined


def shard(rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Shards of rows for the local devices: `[n, ...] -> [local D, length, ...], [local D]`.

    Device d of all has the d-th `length` rows; the second array holds the index of the first of
    them. Zeros fill up the last shards.
    """
    local = jax.local_device_count()
    begins = (jax.process_index() * local + np.arange(local, dtype=np.int32)) * length
    if local == 1 and begins[0] == 0 and len(rows) == length:
        return rows[None], begins  # Without a copy.
    shards = memory.host_array((local, length, *rows.shape[1:]), rows.dtype)
    for own, begin in zip(shards, begins, strict=True):
        there = rows[begin : begin + length]
        own[: len(there)], own[len(there) :] = there, 0
    return shards, begins


@functools.cache
def _blocks_program(function: RowFunction, shared: int) -> RowFunction:
    def block(rows: Rows, *shared: Rows) -> Rows:
        gathered: Rows = lax.all_gather(function(rows, *shared), devices.AXIS)
        return gathered

    return devices.sharded_program(block, in_axes=(0, *(None,) * shared))


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
