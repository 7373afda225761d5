"""Greedy k-center of a pool that is spread over devices: each has a part of it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax.algorithm import picks
from tavaal_jax.engine import devices


def pick(chosen: Callable[..., picks.Picks]) -> Callable[..., picks.Picks]:
    """The same pick on all devices, where it is one whose work can be shared."""
    return functools.partial(chosen, greedy=k_center) if chosen is picks.core_set else chosen


def k_center(subset: np.ndarray, labelled: np.ndarray, count: int) -> tuple[Any, Any]:
    """:func:`tavaal_jax.algorithm.picks.k_center`, to the same picks on any number of devices."""
    parts, begins = devices.spread(subset)
    return _program(count)(parts, begins, labelled, np.int32(len(subset)))


@functools.cache
def _program(count: int) -> Callable[..., tuple[Any, Any]]:
    def part(
        subset: jax.Array, begin: jax.Array, labelled: jax.Array, size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return picks.k_center(subset, labelled, count, begin, size, _farthest)

    return devices.spread_program(part, in_axes=(0, 0, None, None))


def _farthest(candidate: picks.CenterCandidate) -> picks.CenterCandidate:
    """The best of all devices' candidates; among equals that of the first device, and position."""
    distances, positions, centers = lax.all_gather(candidate, devices.AXIS)
    best = jnp.argmax(distances)
    return distances[best], positions[best], centers[best]
