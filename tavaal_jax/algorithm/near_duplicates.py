"""Folds of near-duplicates: images whose features have a cosine above a threshold.

A fold is a connected component: two images of different folds are never near-duplicates, so that a
test set has none in training, and which images are together does not depend on their order. The
price is that a chain of pairs is one fold, whose ends may differ: with features of a pretrained
network chains are short at 0.9 and above, and long below 0.85.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tavaal_jax.algorithm import blocks

_BLOCK = 2048  # images that are compared with as many at once


def folds(features: np.ndarray, cosine: float) -> np.ndarray:
    """Number of each image's fold, int32 `[N]`: the least index in it, from features `[N, F]`.

    Memory is linear in N, time quadratic. An image whose features are all 0 is alone.
    """
    count = len(features)
    found = np.arange(count, dtype=np.int32)
    length = min(_BLOCK, blocks.power_of_two(count))
    for start in range(0, count, length):
        rows = blocks.padded(np.asarray(features[start : start + length]), length)
        for other in range(start, count, length):
            others = blocks.padded(np.asarray(features[other : other + length]), length)
            near = np.asarray(_near(rows, others, cosine))
            left, right = np.nonzero(np.triu(near, 1) if other == start else near)
            found = _joined(found, left + start, right + other)
    return found


def one_of_each(folds: np.ndarray | None, candidates: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Candidates of which no near-duplicate is taken, the first of each fold: bool `[N]`.

    `folds [N]` are those of :func:`folds`, None: all are alone; the others are masks `[N]`.
    """
    if folds is None:
        return candidates
    free = np.flatnonzero(candidates & ~np.isin(folds, folds[taken]))
    _, first = np.unique(folds[free], return_index=True)
    chosen = np.zeros(len(folds), bool)
    chosen[free[first]] = True
    return chosen


@jax.jit
def _near(rows: jax.Array, others: jax.Array, cosine: jax.Array) -> jax.Array:
    """Whether cosines `[B, F], [B, F] -> [B, B]` are above a threshold."""
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    left, right = (unit(x.astype(jnp.float32)) for x in (rows, others))
    return jnp.matmul(left, right.T, precision="highest") > cosine


def _joined(found: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Folds after pairs of images, indices `[n]` each, are joined; each has its least index."""
    left, right = found[left], found[right]
    while (left != right).any():
        # The greater of two roots goes below the least that it meets; then all follow to the root.
        np.minimum.at(found, np.maximum(left, right), np.minimum(left, right))
        while (found[found] != found).any():
            found = found[found]
        left, right = found[left], found[right]
    return found
