"""What a problem is: how its examples are augmented, its loss, its metrics, its uncertainties."""

import dataclasses
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tavaal_jax.algorithm import losses
from tavaal_jax.algorithm.state import Example

Votes = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label per image; metric: test accuracy."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    classes: int
    """K"""
    pad: int = 0
    """Pixels of zeros on each side before the random crop."""
    flip: bool = False
    """Horizontally, half of the time."""

    @classmethod
    def of(cls, config: Any, classes: int) -> "Classification":
        """That of a config, for `classes` classes."""
        return cls(classes, config.augmentation.pad, config.augmentation.flip)

    def augment(self, example: Example, key: jax.Array) -> Example:
        """Random crop from the padded image, then a flip; a label knows no place."""
        crop_key, flip_key = jax.random.split(key)
        image, pad = example.image, self.pad
        if pad:
            padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
            corner = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
            image = lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
        if self.flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return example._replace(image=image)

    def image_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """`l_i`: `logits [B, K], labels [B] -> [B]`, nats."""
        return losses.cross_entropy(logits, labels)

    def counts(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """What one example adds to the metrics' counts: `logits [K], label [] -> [2]`."""
        chex.assert_rank([logits, label], [1, 0])
        return jnp.stack([jnp.argmax(logits) == label, jnp.ones((), bool)]).astype(jnp.int32)

    def summarise(self, counts: np.ndarray) -> np.ndarray:
        """Sum of the counts over a test set -> value of each metric, float32 `[metrics]`."""
        correct, total = counts
        return np.array([correct / total], np.float32)

    # Uncertainties of one image

    def confidence(self, logits: jax.Array) -> jax.Array:
        """Probability of the class that T chooses: `[K] -> []`."""
        return jnp.max(jax.nn.softmax(logits))

    def margin(self, logits: jax.Array) -> jax.Array:
        """The highest probability less the second highest: `[K] -> []`."""
        highest = lax.top_k(jax.nn.softmax(logits), 2)[0]
        return highest[0] - highest[1]

    def entropy(self, logits: jax.Array) -> jax.Array:
        """Of the prediction, nats: `[K] -> []`."""
        return _entropy(jax.nn.softmax(logits))

    def indicator(self, logits: jax.Array) -> jax.Array:
        """SRAAL's online uncertainty indicator, 0 (certain) to 1: `[K] -> []`.

        `1 - MINVar(p) / Var(p) * max(p)`, where MINVar is the variance of the probabilities `p` if
        all but the largest were equal, the least it can be (Zhang et al., CVPR 2020, section 3.3).
        Both variances are over K here, so that a certain prediction has none; the released code
        divides one of them by K - 1.
        """
        probability, classes = jax.nn.softmax(logits), len(logits)
        highest = jnp.max(probability)
        rest = (1.0 - highest) / (classes - 1)
        variance = jnp.mean(jnp.square(probability - 1 / classes))
        apart = jnp.square(highest - 1 / classes) + (classes - 1) * jnp.square(rest - 1 / classes)
        least = apart / classes
        # Where all probabilities are alike both are zero; rounding may put one above the other.
        ratio = jnp.where(variance > 0, least / jnp.where(variance > 0, variance, 1), 1)
        return 1.0 - jnp.clip(ratio, 0, 1) * highest

    def error(self, logits: jax.Array) -> jax.Array:
        """Gradient of the loss on the logits, were T's choice right: `p - onehot`, `[K] -> [K]`."""
        choice = jax.nn.one_hot(jnp.argmax(logits), len(logits), dtype=logits.dtype)
        return jax.nn.softmax(logits) - choice

    def vote(self, logits: jax.Array) -> Votes:
        """What one pass with dropout says of an image, to be averaged over passes: `logits [K]`.

        `-> {"probability": [K], "entropy": [], "choice": [K]}`
        """
        probability = jax.nn.softmax(logits)
        choice = jax.nn.one_hot(jnp.argmax(logits), len(logits), dtype=logits.dtype)
        return {"probability": probability, "entropy": _entropy(probability), "choice": choice}

    def disagreement(self, measure: str, votes: Votes) -> jax.Array:
        """Uncertainty `[]` from the mean of the votes, in nats but for `variation_ratios`.

        `max_entropy` is the entropy H of the mean prediction, `bald` the mutual information of
        prediction and weights, H less the mean entropy (Houlsby et al., arXiv:1112.5745),
        `variation_ratios` the share of passes that do not choose the most frequent class: equations
        (6) to (9) of "Deep Bayesian active learning with image data" (Gal et al., ICML 2017).
        """
        if measure == "variation_ratios":
            return 1.0 - jnp.max(votes["choice"])
        total = _entropy(votes["probability"])
        return total - votes["entropy"] if measure == "bald" else total


MEASURES = ("max_entropy", "bald", "variation_ratios")
"""Names of `Classification.disagreement`."""


def _entropy(probability: jax.Array) -> jax.Array:
    """Entropy in nats: `[K] -> []`."""
    return jnp.sum(jax.scipy.special.entr(probability))
