"""What is computed of single images to pick by, and from these values to picks.

A value is written for one candidate, `(run, networks' variables, candidate, key) -> [] or [E]`,
and vmapped over the pool. Everything is in evaluation mode, so a value never depends on which
images share its batch. A choice, on the host, is `(values [M, ...] of the subset, values of L or
None, pool indices [M], count) -> positions [count], best first, and their scores [count]`.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax import task, vaal


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


@functools.partial(jax.jit, static_argnums=1)
def uniform_values(key: jax.Array, size: int) -> jax.Array:
    """What `uniform` gives for every image of a pool, `[N]`: `random` picks the smallest."""
    numbers = jnp.arange(size)
    return jax.vmap(lambda i: uniform(None, None, None, jax.random.fold_in(key, i)))(numbers)


def discriminator(run, variables, candidate, key) -> jax.Array:
    """Equation (7): the logit of D(r, mu) of one image; the smallest looks least labelled."""
    del key
    _, vaal_state = variables
    predicted = candidate.predicted[None] if run.method.adversary == "ranked" else None
    return vaal.score(run, vaal_state, candidate.image[None], predicted)[0]


def predicted_loss(run, variables, candidate, key) -> jax.Array:
    """R(x), the loss that the Ranker predicts."""
    del run, variables, key
    return candidate.predicted


def embedding(run, variables, candidate, key) -> jax.Array:
    """T's penultimate features `[E]`."""
    del key
    task_state, _ = variables
    return task.predict(run, task_state, candidate.image[None]).embedding[0]


def mc_dropout(run, variables, candidate, key) -> jax.Array:
    """Uncertainty of T over passes with other units dropped ("Deep Bayesian active learning with
    image data", Gal et al., ICML 2017).

    The passes are scanned: memory does not grow with their number.
    """
    task_state, _ = variables
    settings = run.config.mc_dropout

    def vote(number):
        keys = jax.random.fold_in(key, number)[None]
        return run.problem.vote(
            task.predict(run, task_state, candidate.image[None], keys).logits[0]
        )

    def add(votes, number):
        return jax.tree.map(jnp.add, votes, vote(number)), None

    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(vote, 0))
    votes, _ = lax.scan(add, empty, jnp.arange(settings.passes))
    votes = jax.tree.map(lambda x: x / settings.passes, votes)
    return run.problem.uncertainty(settings.measure, votes)


def smallest(values, labelled_values, indices, count) -> tuple[np.ndarray, np.ndarray]:
    """The smallest values; ties go to the smaller pool index."""
    del labelled_values
    positions = _first(values, indices, count)
    return positions, values[positions]


def largest(values, labelled_values, indices, count) -> tuple[np.ndarray, np.ndarray]:
    """The largest values; ties go to the smaller pool index."""
    del labelled_values
    positions = _first(-values, indices, count)
    return positions, values[positions]


def _first(values: np.ndarray, indices: np.ndarray, count: int) -> np.ndarray:
    chex.assert_equal_shape([values, indices])
    if not np.isfinite(values).all():
        raise FloatingPointError("a score is not finite")
    return np.lexsort((indices, values))[:count]


def core_set(values, labelled_values, indices, count) -> tuple[np.ndarray, np.ndarray]:
    """Greedy k-center on embeddings `[M, E]`; a score is the pick's distance to the nearest center
    before it. Ties go to the smaller pool index, `indices` being sorted."""
    chex.assert_equal_shape_prefix([values, indices], 1)
    if not (np.isfinite(values).all() and np.isfinite(labelled_values).all()):
        raise FloatingPointError("an embedding is not finite")
    # The first one repeated up to a power of two changes no minimum, and saves compilations.
    padded = 2 ** (len(labelled_values) - 1).bit_length()
    fill = np.repeat(labelled_values[:1], padded - len(labelled_values), axis=0)
    centers = np.concatenate([labelled_values, fill])
    positions, squared_distances = k_center(values, centers, min(count, len(values)))
    return np.asarray(positions), np.sqrt(np.asarray(squared_distances))


@functools.partial(jax.jit, static_argnames="count")
def k_center(subset: jax.Array, labelled: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Greedy k-center of "Active learning for convolutional neural networks: a core-set approach"
    (Sener and Savarese, ICLR 2018): positions `[count]` in `subset`, in the order of picking, and
    each one's squared distance to the nearest center before it.

    Each pick is the embedding of `subset [M, E]` that is farthest from all of `labelled [L, E]` and
    the picks so far; ties go to the smaller position. Memory is linear in M. Squared distances are
    sums of squared differences, which near points do not cancel. `count` is at most M.
    """
    chex.assert_rank([subset, labelled], 2)
    squared_distances = lambda center: jnp.sum(jnp.square(subset - center[None]), axis=1)

    def cover(nearest, center):
        return jnp.minimum(nearest, squared_distances(center)), None

    def pick(nearest, _):
        position, farthest = jnp.argmax(nearest), jnp.max(nearest)
        nearest, _ = cover(nearest, subset[position])
        # Never again, not even among duplicates.
        return nearest.at[position].set(-1.0), (position, farthest)

    nearest, _ = lax.scan(cover, jnp.full(len(subset), jnp.inf), labelled)
    return lax.scan(pick, nearest, length=count)[1]
