"""k-means: k-means++ start, Lloyd's iterations, mini-batches for a large pool."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax.algorithm import blocks
from tavaal_jax.algorithm.blocks import MapBlocks

_LARGE = 10**5  # points above which Lloyd's iterations see a batch of them
_ITERATIONS = 50  # at most
_BATCHES = 100
_BATCH = 2**13  # points
_SUMMED = 2**13  # points whose float64 copy is in memory


class Clusters(NamedTuple):
    """Clusters of M points."""

    centers: np.ndarray
    """float32 `[count, F]`"""
    assigned: np.ndarray
    """Cluster of each point, int32 `[M]`."""
    squares: np.ndarray
    """Squared distance of each point to its center, float32 `[M]`."""


def k_means(
    points: np.ndarray, count: int, key: jax.Array, map_blocks: MapBlocks = blocks.one_device
) -> Clusters:
    """Clusters of `points [M, F]` by k-means ("Least squares quantization in PCM", Lloyd, 1982).

    It starts from greedy k-means++ on a random sample of at most 2^14 points. Iterations end when
    no point changes its cluster, at the latest after 50; above 10^5 points there are 100
    mini-batches of 2^13 (Sculley, WWW 2010). A cluster may be empty, where there are fewer
    different points. Means are float64 sums in the order of the points: the clusters do not depend
    on the devices.
    """
    points = np.asarray(points, np.float32)
    key_start, key = jax.random.split(key)
    random = generator(key)
    centers = _start(points, count, key_start, random)

    def assign(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wide = blocks.padded(centers, blocks.power_of_two(count))
        assigned, squares = map_blocks(blocks.nearest, rows, wide, np.int32(count))
        return assigned, squares

    if len(points) > _LARGE:
        seen = np.zeros(count)
        for _ in range(_BATCHES):
            batch = points[np.sort(random.integers(len(points), size=_BATCH))]
            sums, sizes = _sums(batch, assign(batch)[0], count)
            seen += sizes
            moved = (sums - sizes[:, None] * centers) / np.maximum(seen, 1)[:, None]
            centers = (centers + moved).astype(np.float32)
        return Clusters(centers, *assign(points))
    assigned, squares = assign(points)
    for _ in range(_ITERATIONS):
        sums, sizes = _sums(points, assigned, count)
        means = sums / np.maximum(sizes, 1)[:, None]
        centers = np.where(sizes[:, None] > 0, means, centers).astype(np.float32)
        before = assigned
        assigned, squares = assign(points)
        if np.array_equal(assigned, before):
            break
    return Clusters(centers, assigned, squares)


def generator(key: jax.Array) -> np.random.Generator:
    """NumPy's generator of random numbers, seeded by a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def sample(count: int, random: np.random.Generator) -> np.ndarray:
    """Sorted positions of a random sample of at most `blocks.SAMPLE` of `count` rows."""
    if count <= blocks.SAMPLE:
        return np.arange(count)
    return np.sort(random.choice(count, blocks.SAMPLE, replace=False))


def _sums(points: np.ndarray, assigned: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of each cluster's points, float64 `[count, F], [count]`."""
    sums = np.zeros((count, points.shape[1]))
    for begin in range(0, len(points), _SUMMED):
        part = assigned[begin : begin + _SUMMED]
        order = np.argsort(part, kind="stable")
        there, first = np.unique(part[order], return_index=True)
        rows = points[begin : begin + _SUMMED][order].astype(np.float64)
        sums[there] += np.add.reduceat(rows, first, axis=0)
    return sums, np.bincount(assigned, minlength=count).astype(np.float64)


def _start(
    points: np.ndarray, count: int, key: jax.Array, random: np.random.Generator
) -> np.ndarray:
    """Centers to begin with, `[count, F]`."""
    some = points[sample(len(points), random)]
    wide = blocks.padded(some, blocks.power_of_two(len(some)))
    most = blocks.power_of_two(count)
    positions = _plus_plus(key, wide, np.int32(len(some)), np.int32(count), most)
    return some[np.asarray(positions)[:count]]


@functools.partial(jax.jit, static_argnames="most")
def _plus_plus(
    key: jax.Array, points: jax.Array, size: jax.Array, count: jax.Array, most: int
) -> jax.Array:
    """k-means++ on the first `size` of `points [S, F]`: positions int32 `[most]`, `count` of them.

    The greedy variant: of some draws the one that leaves the least sum of squared distances. Where
    only duplicates are left, centers are drawn uniformly.
    """
    tries = 2 + int(np.log(most))
    numbers = jnp.arange(tries, dtype=jnp.int32)
    is_point = jnp.arange(len(points), dtype=jnp.int32) < size

    def pick(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        squares, positions = carry
        weights = jnp.where(jnp.any(squares > 0), squares, is_point.astype(squares.dtype))
        drawn = jax.vmap(lambda n: draw(key, tries * number + n, weights))(numbers)
        after = jnp.minimum(squares[:, None], blocks.squared_distances(points, points[drawn]))
        best = jnp.argmin(jnp.sum(jnp.where(is_point[:, None], after, 0), axis=0))
        return after[:, best], positions.at[number].set(drawn[best].astype(jnp.int32))

    # The first one is uniform: all are as far from no center.
    start = is_point.astype(points.dtype) * 1e30, jnp.zeros(most, jnp.int32)
    return lax.fori_loop(0, count, pick, start)[1]


def draw(key: jax.Array, number: jax.Array, weights: jax.Array) -> jax.Array:
    """Draws a position in proportion to `weights [M]`, by inversion; never one of weight 0.

    `number` is folded into the key.
    """
    # Sums are rounded: none may rise where the weight is 0, or fall anywhere.
    total = lax.cummax(jnp.where(weights > 0, jnp.cumsum(weights), 0))
    uniform = jax.random.uniform(jax.random.fold_in(key, number), dtype=weights.dtype)
    return jnp.searchsorted(total, uniform * total[-1], side="right").clip(max=_last(weights > 0))


def _last(mask: jax.Array) -> jax.Array:
    """Position of the last True."""
    return len(mask) - 1 - jnp.argmax(mask[::-1])
