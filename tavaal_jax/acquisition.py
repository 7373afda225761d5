"""Scores of single images, and from scores to picks.

A score is written for one image, `(run, networks' variables, image, key) -> []`, and vmapped over
the pool. Everything is in evaluation mode, so a score never depends on which images share its
batch.
"""

import chex
import jax
import numpy as np

from tavaal_jax import task, vaal


def uniform(run, variables, image, key) -> jax.Array:
    """Uniform in [0, 1): picking by it is drawing without replacement."""
    del run, variables, image
    return jax.random.uniform(key)


def discriminator(run, variables, image, key) -> jax.Array:
    """Equation (7): the logit of D(r, mu) of one image; the smallest looks least labelled."""
    del key
    task_state, vaal_state = variables
    images = image[None]
    predicted = None
    if run.method.adversary == "ranked":
        predicted = task.predict_loss(run, task_state, images)
    return vaal.score(run, vaal_state, images, predicted)[0]


def pick(scores: np.ndarray, indices: np.ndarray, count: int, smallest_first: bool) -> np.ndarray:
    """Positions in `scores [M]` of the `count` picks, best first; ties go to the smaller pool
    index."""
    chex.assert_equal_shape([scores, indices])
    if not np.isfinite(scores).all():
        raise FloatingPointError("a score is not finite")
    order = np.lexsort((indices, scores if smallest_first else -scores))
    return order[:count]
