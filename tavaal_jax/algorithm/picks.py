"""From values to picks: `(values, count, key, labelled=None) -> positions, scores`, see `Pick`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from tavaal_jax.algorithm.clusters import draw
from tavaal_jax.ops.convolution import on_cpu

Values = Any
"""A value of each image: arrays `[M, ...]`, or a tree of such as the method's value returns."""
Picks = tuple[np.ndarray, np.ndarray]
"""Positions `[count]` in the subset, best first, and the score of each `[count]`."""


class Labelled(NamedTuple):
    """What a pick is given of L where `Method.sees_labels` is set."""

    values: Values
    """Arrays `[L, ...]`, or a tree of such."""
    labels: np.ndarray | None
    """Class of each, int32 `[L]`; None where labels are maps."""


class Pick(Protocol):
    """Picks `count` images of the subset by their values.

    `values` are the subset's, in the order of pool indices, `labelled` those of L where
    `Method.compares` is set (a `Labelled` where `sees_labels` is, too), None where L is empty. No
    position is returned twice; ties go to the smaller one. A pick with a further parameter
    `map_blocks` is given one that shares the work among all devices, see `blocks.MapBlocks`.
    """

    def __call__(
        self, values: Values, count: int, key: jax.Array, labelled: Values = None, /
    ) -> Picks:
        """Positions and scores of the picks."""


def smallest(values: np.ndarray, count: int, key: jax.Array, labelled: Values = None) -> Picks:
    """Picks the smallest of `values [M]`."""
    del key, labelled
    chex.assert_rank(values, 1)
    positions = np.argsort(values, kind="stable")[:count]
    return positions, values[positions]


def largest(values: np.ndarray, count: int, key: jax.Array, labelled: Values = None) -> Picks:
    """Picks the largest of `values [M]`."""
    if values.dtype.kind in "bu":  # These have no negatives.
        values = values.astype(np.float32 if values.itemsize < 4 else np.float64)
    positions, scores = smallest(-values, count, key, labelled)
    return positions, -scores


INCREMENTAL: tuple[Pick, ...] = (smallest, largest)
"""Picks of a whole that are picks of its parts, so that `Best` can make them part by part."""
_BUFFER = 2**16  # values kept beside the picks so far, before they are sorted out


class Best:
    """Makes an `INCREMENTAL` pick from values that come part by part, keeping few of them."""

    def __init__(self, pick: Pick, count: int, key: jax.Array):
        self._pick, self._count, self._key = pick, count, key
        self._values: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._added = self._kept = 0

    def add(self, values: np.ndarray) -> None:
        """Adds the next values `[n]`."""
        self._values.append(values)
        self._positions.append(self._added + np.arange(len(values)))
        self._added += len(values)
        self._kept += len(values)
        if self._kept > self._count + _BUFFER:
            positions, _, values = self._now()
            order = np.argsort(positions)  # Ties go to the smaller position.
            self._positions, self._values = [positions[order]], [values[order]]
            self._kept = len(positions)

    def picks(self) -> Picks:
        """Picks from all values so far."""
        positions, scores, _ = self._now()
        return positions, scores

    def _now(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, scores and values of the picks so far."""
        if not self._added:
            return np.zeros(0, int), np.zeros(0, np.float32), np.zeros(0, np.float32)
        values, positions = np.concatenate(self._values), np.concatenate(self._positions)
        found, scores = self._pick(values, min(self._count, len(values)), self._key)
        return positions[found], scores, values[found]


CenterCandidate = tuple[jax.Array, jax.Array, jax.Array]
"""Candidate for the next center: squared distance `[]`, position `[]`, embedding `[E]`."""
Greedy = Callable[[np.ndarray, np.ndarray, int], tuple[jax.Array, jax.Array]]
"""`(subset [M, E], centers [L, E], count) -> positions, squared distances`, as `k_center`."""


@functools.partial(jax.jit, static_argnames=("count", "farthest"))
def k_center(
    subset: jax.Array, labelled: jax.Array, count: int, begin: ArrayLike = 0,
    size: ArrayLike | None = None,
    farthest: Callable[[CenterCandidate], CenterCandidate] = lambda candidate: candidate,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Greedy k-center ("a core-set approach", Sener and Savarese, ICLR 2018).

    Returns positions `[count]` in `subset [M, E]`, in the order of picking, and each one's squared
    distance to the nearest center before it. Each pick is the embedding that is farthest from
    `labelled [L, E]` and all picks so far; ties go to the smaller position. Memory is linear in M.
    Squared distances are sums of squared differences: near points lose no digits. `count` is at
    most M.

    `subset` may be one device's part of `size` embeddings, beginning at position `begin`; then
    `farthest` gives all devices the best of their candidates.
    """
    chex.assert_rank([subset, labelled], 2)
    positions = begin + jnp.arange(len(subset))

    def pick(nearest: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        best = jnp.argmax(nearest)
        distance, position, center = farthest((nearest[best], positions[best], subset[best]))
        nearest = _cover(subset, nearest, center[None])
        # Never again, not even among duplicates.
        return jnp.where(positions == position, -1.0, nearest), (position, distance)

    start = jnp.full(len(subset), jnp.inf, subset.dtype)
    if size is not None:  # Padding of a part to the others' length is never picked.
        start = jnp.where(positions < size, start, -1.0)
    return lax.scan(pick, _cover(subset, start, labelled), length=count)[1]


_COVERED = 1024  # rows that stay in a CPU's cache while all centers go by: eight times as fast


def _cover(subset: jax.Array, nearest: jax.Array, centers: jax.Array) -> jax.Array:
    """Squared distances to the nearest of `centers [L, E]` too: `[M, E], [M] -> [M]`."""
    length = min(len(subset), _COVERED) if on_cpu() else len(subset)

    def block(number: jax.Array, nearest: jax.Array) -> jax.Array:
        begin = jnp.minimum(number * length, len(subset) - length)
        rows = lax.dynamic_slice_in_dim(subset, begin, length)

        def reach(nearest: jax.Array, center: jax.Array) -> tuple[jax.Array, None]:
            return jnp.minimum(nearest, jnp.sum(jnp.square(rows - center[None]), axis=1)), None

        now = lax.dynamic_slice_in_dim(nearest, begin, length)
        return lax.dynamic_update_slice_in_dim(nearest, lax.scan(reach, now, centers)[0], begin, 0)

    return lax.fori_loop(0, -(-len(subset) // max(1, length)), block, nearest)


def core_set(
    values: np.ndarray, count: int, key: jax.Array, labelled: np.ndarray | None = None,
    greedy: Greedy = k_center,
) -> Picks:  # fmt: skip
    """Greedy k-center on embeddings `[M, E]`, centers `labelled [L, E]`.

    A score is the pick's distance to the nearest center before it. `greedy` is `k_center`, or its
    like on several devices.
    """
    del key
    if labelled is None:
        raise ValueError("core_set needs the values of L: set Method.compares")
    # The first one repeated up to a power of two changes no minimum, and saves compilations.
    padded = 2 ** (len(labelled) - 1).bit_length()
    fill = np.repeat(labelled[:1], padded - len(labelled), axis=0)
    centers = np.concatenate([labelled, fill])
    positions, squared_distances = greedy(values, centers, min(count, len(values)))
    return np.asarray(positions), np.sqrt(np.asarray(squared_distances))


def badge(
    values: dict[str, np.ndarray], count: int, key: jax.Array, labelled: Values = None
) -> Picks:
    """k-means++ seeding on BADGE's gradient embeddings, given by their two factors.

    A score is the pick's distance to the nearest pick before it; the first one's is its norm.
    """
    del labelled
    error, embedding = values["error"], values["embedding"]
    positions, squares = k_means_plus_plus(key, error, embedding, min(count, len(error)))
    return np.asarray(positions), np.sqrt(np.asarray(squares))


@functools.partial(jax.jit, static_argnames="count")
def k_means_plus_plus(
    key: jax.Array, left: jax.Array, right: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """k-means++ (Arthur and Vassilvitskii, SODA 2007) on the products of `left` and `right`.

    Row i stands for the outer product of `left[i] [K]` and `right[i] [E]`, which is never formed,
    since `|a b' - c d'|^2 = |a|^2 |b|^2 + |c|^2 |d|^2 - 2 (a . c) (b . d)`: memory is linear in M
    (K + E). The first pick is uniform, each later one is drawn with a probability in proportion to
    its squared distance from the nearest pick, and never again. Returns positions `[count]` and
    these squared distances, for the first its squared norm. `count` is at most M.
    """
    chex.assert_rank([left, right], 2)
    chex.assert_equal_shape_prefix([left, right], 1)
    lengths = jnp.sum(jnp.square(left), axis=1) * jnp.sum(jnp.square(right), axis=1)

    def cover(nearest: jax.Array, position: jax.Array) -> jax.Array:
        along = (left @ left[position]) * (right @ right[position])
        squares = jnp.maximum(lengths + lengths[position] - 2 * along, 0)
        # A pick is at distance 0 from itself, whatever the rounding.
        return jnp.minimum(nearest, squares).at[position].set(0)

    def pick(
        carry: tuple[jax.Array, jax.Array], number: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        nearest, free = carry
        # Where only duplicates of picks are left, any will do.
        weights = jnp.where(jnp.any(nearest > 0), nearest, free.astype(nearest.dtype))
        position = draw(key, number, weights)
        found = position, nearest[position]
        return (cover(nearest, position), free.at[position].set(False)), found

    free = jnp.ones(len(left), bool)
    first = draw(key, jnp.zeros((), jnp.int32), free.astype(lengths.dtype))
    start = cover(jnp.full_like(lengths, jnp.inf), first), free.at[first].set(False)
    numbers = jnp.arange(1, count)
    _, (positions, squares) = lax.scan(pick, start, numbers)
    return (
        jnp.concatenate([first[None], positions]),
        jnp.concatenate([lengths[first][None], squares]),
    )
