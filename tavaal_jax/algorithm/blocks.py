"""Functions of rows mapped over a pool block by block: memory linear in the pool, the same bits.

A block's length depends on the number of rows alone, never on the number of devices, so that what
is computed of a row does not depend on the devices either.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Rows = Any
"""Arrays `[n, ...]`, or a tree of such."""
RowFunction = Callable[..., Rows]
"""`(rows of a block [B, ...], *shared) -> arrays [B, ...]`; at the top level of its file."""

_BLOCK = 512  # rows
_PART = 2048  # references that a block is compared with at once
SAMPLE = 2**14
"""References for a mean over, or neighbours in, larger sets: a random sample of that many."""
_HIGHEST = lax.Precision.HIGHEST


class MapBlocks(Protocol):
    """Maps a function of a block of rows over all rows."""

    def __call__(self, function: RowFunction, rows: Rows, *shared: Rows) -> Rows:
        """NumPy arrays `[n, ...]` for rows `[n, ...]`, n > 0; all blocks are given `shared`,
        each of which may be `Held`."""


class Held:
    """Arrays that many calls of `MapBlocks` share: they are put on the devices once."""

    def __init__(self, rows: Rows):
        """`rows` are arrays, or a tree of such, that do not change."""
        self._rows = rows
        self._placed: Rows = None

    def placed(self, place: Callable[[Rows], Rows]) -> Rows:
        """The arrays as `place` put them where they are used."""
        if self._placed is None:
            self._placed = place(self._rows)
        return self._placed


def placed(shared: tuple[Rows, ...], place: Callable[[Rows], Rows]) -> list[Rows]:
    """What all blocks share, on the devices."""
    return [rows.placed(place) if isinstance(rows, Held) else place(rows) for rows in shared]


def block_length(count: int) -> int:
    """Rows in a block of `count` rows: a power of two."""
    return min(_BLOCK, power_of_two(count))


def power_of_two(number: int) -> int:
    """The smallest power of two that is not less than `number`."""
    return 1 << max(0, number - 1).bit_length()


def padded(array: np.ndarray, length: int, fill: float = 0) -> np.ndarray:
    """`array [n, ...]` with rows of `fill` up to `length`."""
    missing = ((0, length - len(array)), *((0, 0),) * (array.ndim - 1))
    return np.pad(array, missing, constant_values=fill)


def in_parts(array: np.ndarray, fill: float = 0) -> np.ndarray:
    """`[n, ...] -> [parts, m, ...]`, padded by `fill` to a power of two, to be scanned."""
    length = power_of_two(len(array))
    return padded(array, length, fill).reshape(-1, min(_PART, length), *array.shape[1:])


def one_device(function: RowFunction, rows: Rows, *shared: Rows) -> Rows:
    """Maps a function over all rows on the default device, see `MapBlocks`."""
    length = block_length(len(jax.tree.leaves(rows)[0]))
    program, on_device = _jitted(function), placed(shared, jax.device_put)
    found = []
    for count, part in slices(rows, length):
        block = jax.tree.map(lambda x: padded(x, length), part)
        found.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], program(block, *on_device)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@functools.cache
def _jitted(function: RowFunction) -> RowFunction:
    compiled: RowFunction = jax.jit(function)
    return compiled


def slices(rows: Rows, length: int) -> Iterator[tuple[int, Rows]]:
    """Successive `length` rows, with how many there are: the last slice may be shorter."""
    count = len(jax.tree.leaves(rows)[0])
    for start in range(0, count, length):
        part = jax.tree.map(lambda x, start=start: x[start : start + length], rows)
        yield min(length, count - start), part


# Functions of a block


def squared_distances(rows: jax.Array, others: jax.Array) -> jax.Array:
    """Squared distances: `[B, F], [m, F] -> [B, m]`; near points lose digits."""
    along = jnp.matmul(rows, others.T, precision=_HIGHEST)
    left, right = (jnp.sum(jnp.square(x), axis=1) for x in (rows, others))
    return jnp.maximum(left[:, None] + right[None] - 2 * along, 0)


def nearest(rows: jax.Array, centers: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nearest of the first `count` of `centers [k, F]`, and its squared distance: `[B], [B]`.

    The distance is a sum of squared differences: near points lose no digits.
    """
    squares = squared_distances(rows, centers)
    is_center = jnp.arange(len(centers), dtype=jnp.int32)[None] < count
    squares = jnp.where(is_center, squares, jnp.inf)
    found = jnp.argmin(squares, axis=1).astype(jnp.int32)
    return found, jnp.sum(jnp.square(rows - centers[found]), axis=1)


def kernel(rows: jax.Array, others: jax.Array, radius: jax.Array) -> jax.Array:
    """Radial kernel `exp(-(|x - y| / radius)^2)`: `[B, F], [m, F] -> [B, m]`."""
    return jnp.exp(-squared_distances(rows, others) / jnp.square(radius))


def coverage(
    rows: jax.Array, points: jax.Array, weights: jax.Array, radius: jax.Array
) -> jax.Array:
    """Largest kernel with a point of weight 1: `points [p, m, F], weights [p, m] -> [B]`."""

    def reach(covered: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        points, weights = part
        found = jnp.max(kernel(rows, points, radius) * weights[None], axis=1)
        return jnp.maximum(covered, found), None

    return lax.scan(reach, jnp.zeros(len(rows), rows.dtype), (points, weights))[0]


def farthest(rows: jax.Array, points: jax.Array, weights: jax.Array) -> jax.Array:
    """Largest squared distance to points `[p, m, F]` of weight 1, `weights [p, m]`: `-> [B]`."""

    def reach(far: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        points, weights = part
        found = jnp.max(squared_distances(rows, points) * weights[None], axis=1)
        return jnp.maximum(far, found), None

    return lax.scan(reach, jnp.zeros(len(rows), rows.dtype), (points, weights))[0]


def kernels(rows: jax.Array, references: jax.Array, radius: jax.Array) -> jax.Array:
    """Kernel with every one of `references [p, m, F]`: `-> [B, p, m]`."""
    parts = lax.map(lambda points: kernel(rows, points, radius), references)
    return jnp.moveaxis(parts, 0, 1)


def gain(rows: jax.Array, covered: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum over references of `weight * max(kernel - covered, 0)`: `-> [B]`.

    `rows` are kernels `[B, p, m]`, `covered [p, m]`, `weights [p, m]`. All sums are in one order:
    where `covered` grows, no gain does, to the last bit.
    """
    return _summed(jnp.moveaxis(rows, 1, 0), covered, weights, lambda part: part)


def gain_of_points(
    rows: jax.Array,
    references: jax.Array,
    covered: jax.Array,
    weights: jax.Array,
    radius: jax.Array,
) -> jax.Array:
    """:func:`gain` of points `[B, F]`, whose kernels with `references [p, m, F]` are not kept."""
    of_part = lambda points: kernel(rows, points, radius)
    return _summed(references, covered, weights, of_part)


def _summed(
    parts: jax.Array,
    covered: jax.Array,
    weights: jax.Array,
    kernel_of: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    def add(
        total: jax.Array, part: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        given, covered, weights = part
        more = jnp.maximum(kernel_of(given) - covered[None], 0)
        return total + jnp.sum(weights[None] * more, axis=1), None

    length = jax.eval_shape(kernel_of, parts[0]).shape[0]
    return lax.scan(add, jnp.zeros(length, parts.dtype), (parts, covered, weights))[0]


NEIGHBOURS = 20
"""Distances that `neighbours` gives."""


def neighbours(rows: dict[str, jax.Array], points: jax.Array, numbers: jax.Array) -> jax.Array:
    """Distances to the nearest of `points [p, m, F]`, the nearest first: `-> [B, NEIGHBOURS]`.

    `rows` are `{"point": [B, F], "number": [B]}`; a point whose number, of `numbers [p, m]`, is the
    row's own is left out, and one whose number is -1. Where there are too few, distances are
    infinite. They are sums of squared differences: duplicates have distance 0.
    """
    point, own = rows["point"], rows["number"]
    length = points.shape[1]

    def search(
        found: tuple[jax.Array, jax.Array], part: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        squares, places = found
        others, numbers, begin = part
        here = begin + jnp.arange(length, dtype=jnp.int32)
        is_other = (numbers[None] != own[:, None]) & (numbers[None] >= 0)
        more = jnp.where(is_other, squared_distances(point, others), jnp.inf)
        squares = jnp.concatenate([squares, more], axis=1)
        places = jnp.concatenate([places, jnp.broadcast_to(here[None], more.shape)], axis=1)
        negative, best = lax.top_k(-squares, NEIGHBOURS)
        return (-negative, jnp.take_along_axis(places, best, axis=1)), None

    shape = (len(point), NEIGHBOURS)
    start = jnp.full(shape, jnp.inf, point.dtype), jnp.zeros(shape, jnp.int32)
    begins = length * jnp.arange(len(points), dtype=jnp.int32)
    (squares, places), _ = lax.scan(search, start, (points, numbers, begins))
    flat = points.reshape(-1, points.shape[-1])
    exact = lax.map(lambda place: jnp.sum(jnp.square(point - flat[place]), axis=1), places.T).T
    return jnp.sort(jnp.sqrt(jnp.where(jnp.isfinite(squares), exact, jnp.inf)), axis=1)
