"""Doubtful answers: what a model that was fitted without them finds unlikely."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tavaal_jax.algorithm import blocks, logistic
from tavaal_jax.algorithm.logistic import Examples
from tavaal_jax.data.pool import Normaliser

_PARTS = 10  # into which the answers are divided; each is judged by a fit of the others


class Doubts(NamedTuple):
    """What is thought of given labels."""

    probability: np.ndarray
    """Of the label that was given `[L]`; nan where no other image has it."""
    instead: np.ndarray
    """The likeliest class `[L]`."""
    classes: int
    """Number of classes that were given."""

    @property
    def worst(self) -> np.ndarray:
        """Indices of labels less probable than a random one, the least probable first."""
        below = np.flatnonzero(self.probability < 1 / max(self.classes, 1))
        return below[np.argsort(self.probability[below], kind="stable")]


def doubtful(
    features: np.ndarray, labels: np.ndarray, key: jax.Array, folds: np.ndarray | None = None
) -> Doubts:
    """Judges labels `[L]` by a head solved on features `[L, F]` of the others, in ten parts.

    Give answers for training only: who mends test labels by what the model says makes the test set
    agree with it. `folds [L]`, numbers or names, of near-duplicates stay together: none confirms
    another.
    """
    names, numbers = np.unique(labels, return_inverse=True)
    count, classes = len(labels), len(names)
    nothing = Doubts(np.full(count, np.nan), np.asarray(labels), classes)
    if classes < 2:
        return nothing
    normalise = Normaliser.of_features(features)
    rows = (np.asarray(features, np.float32) - normalise.mean) / normalise.std
    length = blocks.power_of_two(count)
    parts = _parts(numbers, np.arange(count) if folds is None else folds, key)
    examples = Examples(
        jnp.asarray(blocks.padded(rows.astype(np.float32), length)),
        jnp.asarray(blocks.padded(numbers.astype(np.int32), length)),
        jnp.asarray(blocks.padded(np.ones(count, np.float32), length)),
    )
    given = _without(examples, blocks.padded(parts, length, -1), classes)
    found = np.asarray(given)[:count]
    counts = np.zeros((_PARTS, classes), int)
    np.add.at(counts, (parts, numbers), 1)
    is_seen = (counts.sum(0) > counts)[parts, numbers]
    probability = np.where(is_seen, found[np.arange(count), numbers], np.nan)
    return Doubts(probability, names[found.argmax(1)], classes)


def _parts(numbers: np.ndarray, folds: np.ndarray, key: jax.Array) -> np.ndarray:
    """Part of each label `[L]`: the folds of a class are dealt out in turn, in random order."""
    _, first, fold = np.unique(folds, return_index=True, return_inverse=True)
    order = np.asarray(jax.random.permutation(key, len(first)))
    order = order[np.argsort(numbers[first][order], kind="stable")]
    part = np.empty(len(first), np.int32)
    part[order] = np.arange(len(first)) % _PARTS
    return part[fold]


@functools.partial(jax.jit, static_argnums=2)
def _without(examples: Examples, parts: jax.Array, classes: int) -> jax.Array:
    """Probabilities `[n, K]` of each example by a fit without its part."""
    _, choice = logistic.fit(examples, classes)

    def judged(part: jax.Array) -> jax.Array:
        rest = examples._replace(weights=jnp.where(parts == part, 0, examples.weights))
        head = logistic.fit_with(rest, classes, choice.strength)
        return jax.nn.softmax(examples.features @ head.kernel + head.bias[None])

    every = jax.lax.map(judged, jnp.arange(_PARTS))
    mine: jax.Array = every[jnp.maximum(parts, 0), jnp.arange(parts.shape[0])]
    return mine
