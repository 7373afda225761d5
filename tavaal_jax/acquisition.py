"""Scores of single images, and from scores to picks.

A score is written for one candidate, `(run, networks' variables, candidate, key) -> []`, and
vmapped over the pool. Everything is in evaluation mode, so a score never depends on which images
share its batch.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax import vaal


class Candidate(NamedTuple):
    """An unlabelled image that may be picked."""

    image: jax.Array
    """Normalised, `[H, W, C]`, or features `[F]`."""
    predicted: jax.Array | None
    """R(x) `[]`; None for a method without a Ranker."""


def uniform(run, variables, candidate, key) -> jax.Array:
    """Uniform in [0, 1): picking by it is drawing without replacement."""
    del run, variables, candidate
    return jax.random.uniform(key)


def discriminator(run, variables, candidate, key) -> jax.Array:
    """Equation (7): the logit of D(r, mu) of one image; the smallest looks least labelled."""
    del key
    _, vaal_state = variables
    predicted = candidate.predicted[None] if run.method.adversary == "ranked" else None
    return vaal.score(run, vaal_state, candidate.image[None], predicted)[0]


@functools.partial(jax.jit, static_argnames="count")
def k_center(subset: jax.Array, labelled: jax.Array, count: int) -> jax.Array:
    """Greedy k-center of "Active learning for convolutional neural networks: a core-set approach"
    (Sener and Savarese, ICLR 2018): positions `[count]` in `subset`, in the order of picking.

    Each pick is the embedding of `subset [M, E]` that is farthest from all of `labelled [L, E]` and
    the picks so far; ties go to the smaller position. Memory is linear in M. Squared distances are
    sums of squared differences, which near points do not cancel. `count` is at most M.
    """
    chex.assert_rank([subset, labelled], 2)
    squared_distances = lambda center: jnp.sum(jnp.square(subset - center[None]), axis=1)

    def cover(nearest, center):
        return jnp.minimum(nearest, squared_distances(center)), None

    def pick(nearest, _):
        position = jnp.argmax(nearest)
        nearest, _ = cover(nearest, subset[position])
        return nearest.at[position].set(-1.0), position  # Never again, not even among duplicates.

    nearest, _ = lax.scan(cover, jnp.full(len(subset), jnp.inf), labelled)
    return lax.scan(pick, nearest, length=count)[1]


def pick(scores: np.ndarray, indices: np.ndarray, count: int, smallest_first: bool) -> np.ndarray:
    """Positions in `scores [M]` of the `count` picks, best first; ties go to the smaller pool
    index."""
    chex.assert_equal_shape([scores, indices])
    if not np.isfinite(scores).all():
        raise FloatingPointError("a score is not finite")
    order = np.lexsort((indices, scores if smallest_first else -scores))
    return order[:count]
