"""The paper's equations as pure functions, every one on logits and in float32.

`mean` over the batch is the mean over this device's part of it; callers average over devices.
"""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

IGNORED = 255
"""A label map's number for pixels without a class or without a label."""


class RankingLoss(Protocol):
    """Loss of the Ranker: `predicted R(x) [B], task losses l [B] -> []`.

    `weights [B/2]`, of mean 1, belong to the pairs (i, B-1-i), 0 where an image has no loss; only a
    problem with such images (label maps) gives them. B is even.
    """

    def __call__(
        self, predicted: jax.Array, losses: jax.Array, weights: jax.Array | None = None, /
    ) -> jax.Array:
        """Mean loss over the pairs."""


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`l_i` of classification: `logits [B, K], labels [B] -> [B]`, in nats."""
    chex.assert_rank([logits, labels], [2, 1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights of the classes by which all count alike, `labels [n] -> float32 [K]`.

    `n / (classes with a label * labels of the class)`, as in scikit-learn; 0 for one without.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0).astype(np.float32)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`l_i` of segmentation: `logits [B, H, W, K], maps [B, H, W] -> [B]`, in nats.

    The mean over an image's labelled pixels; 0 where it has none.
    """
    chex.assert_rank([logits, labels], [4, 3])
    labelled = labels != IGNORED
    pixel_losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(labelled, labels, 0).astype(jnp.int32)
    )
    weights = labelled.astype(pixel_losses.dtype)
    return jnp.sum(pixel_losses * weights, (1, 2)) / jnp.maximum(jnp.sum(weights, (1, 2)), 1)


def share_cross_entropy(logits: jax.Array, counts: jax.Array) -> jax.Array:
    """Cross-entropy with the classes' shares of an image, in nats.

    `logits [B, K], pixels per class [B, K] -> [B]`
    """
    chex.assert_equal_shape([logits, counts])
    shares = counts / jnp.maximum(jnp.sum(counts, -1, keepdims=True), 1)
    return optax.softmax_cross_entropy(logits, shares)


def _pairs(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pairs (i, B-1-i), i < B/2: `[B] -> [B/2], [B/2]`."""
    chex.assert_rank(values, 1)
    chex.assert_is_divisible(values.shape[0], 2)
    half = values.shape[0] // 2
    return values[:half], jnp.flip(values)[:half]


def pair_weights(weights: jax.Array) -> jax.Array:
    """Weights of the pairs that equation (1) compares, from the images': `[B] -> [B/2]`."""
    first, second = _pairs(weights)
    return first * second


def ranking(predicted: jax.Array, losses: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Equation (1): `predicted R(x) [B], losses l [B] -> []`; no gradient through `losses`.

    `weights [B/2]` weigh the pairs; their mean is 1.
    """
    chex.assert_equal_shape([predicted, losses])
    first, second = _pairs(predicted)
    truth_first, truth_second = _pairs(jax.lax.stop_gradient(losses))
    larger = (truth_first > truth_second).astype(predicted.dtype)
    return _mean(optax.sigmoid_binary_cross_entropy(first - second, larger), weights)


def margin(
    predicted: jax.Array, losses: jax.Array, weights: jax.Array | None = None,
    epsilon: float = 1.0,
) -> jax.Array:  # fmt: skip
    """Margin loss of "Learning loss" (Yoo and Kweon, CVPR 2019): `[B], [B] -> []`."""
    chex.assert_equal_shape([predicted, losses])
    first, second = _pairs(predicted)
    truth_first, truth_second = _pairs(jax.lax.stop_gradient(losses))
    sign = jnp.where(truth_first > truth_second, 1.0, -1.0)
    return _mean(jnp.maximum(0.0, -sign * (first - second) + epsilon), weights)


def _mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    return jnp.mean(values if weights is None else weights * values)


def normalised_rank(predicted: jax.Array) -> jax.Array:
    """`r = sigmoid(R(x))` without gradient, section 3.1: any shape."""
    return jax.nn.sigmoid(jax.lax.stop_gradient(predicted))


def reconstruction(images: jax.Array, decoded: jax.Array) -> jax.Array:
    """First term of equation (4) as a mean squared error over all entries: `[B, ...] -> []`."""
    chex.assert_equal_shape([images, decoded])
    return jnp.mean(jnp.square(images - decoded))


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Second term of equation (4), KL(q(z|x) || N(0, 1)), mean over entries: `[B, Z] -> []`."""
    chex.assert_equal_shape([mean, log_variance])
    return 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)


def adversarial(labelled_logits: jax.Array, unlabelled_logits: jax.Array) -> jax.Array:
    """Equation (5), the VAE's: `-log D(L) - log D(U)`, `logits [B], [B] -> []`.

    It is least where D takes both pools for labelled.
    """
    chex.assert_rank([labelled_logits, unlabelled_logits], 1)
    return jnp.mean(jax.nn.softplus(-labelled_logits)) + jnp.mean(
        jax.nn.softplus(-unlabelled_logits)
    )


def discriminator(labelled_logits: jax.Array, unlabelled_logits: jax.Array) -> jax.Array:
    """Equation (6), D's: `-log D(L) - log(1 - D(U))`, `logits [B], [B] -> []`."""
    chex.assert_rank([labelled_logits, unlabelled_logits], 1)
    return jnp.mean(jax.nn.softplus(-labelled_logits)) + jnp.mean(
        jax.nn.softplus(unlabelled_logits)
    )


def relabelled_discriminator(
    labelled_logits: jax.Array, unlabelled_logits: jax.Array, uncertainty: jax.Array
) -> jax.Array:
    """SRAAL's loss of D (Zhang et al., CVPR 2020): `[B], [B], [B] -> []`.

    The target of an unlabelled image is relabelled from 0 to `1 - u`, u its uncertainty: one that T
    is certain of counts as labelled, `-log D(L) - u log(1 - D(U)) - (1 - u) log D(U)`. With `u = 1`
    it is (6).
    """
    chex.assert_rank([labelled_logits, unlabelled_logits, uncertainty], 1)
    state = 1.0 - jax.lax.stop_gradient(uncertainty)
    return jnp.mean(jax.nn.softplus(-labelled_logits)) + jnp.mean(
        optax.sigmoid_binary_cross_entropy(unlabelled_logits, state)
    )
