"""What classification and segmentation do differently: loss of one image, metric, uncertainty."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tavaal_jax import losses


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label per image; metric: test accuracy."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    measures: ClassVar[tuple[str, ...]] = ("max_entropy", "bald", "variation_ratios")

    def image_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """`l_i`: `logits [B, K], labels [B] -> [B]`."""
        return losses.cross_entropy(logits, labels)

    def counts(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """What one example adds to the metrics' counts: `logits [K], label [] -> [2]`."""
        return jnp.stack([jnp.argmax(logits) == label, jnp.ones((), bool)]).astype(jnp.int32)

    def vote(self, logits: jax.Array) -> dict[str, jax.Array]:
        """What one pass of Monte-Carlo dropout says of an image, to be averaged over passes:
        `logits [K] -> {"probability": [K], "entropy": [], "choice": [K]}`."""
        probability = jax.nn.softmax(logits)
        choice = jax.nn.one_hot(jnp.argmax(logits), len(logits))
        return {"probability": probability, "entropy": _entropy(probability), "choice": choice}

    def uncertainty(self, measure: str, votes: dict[str, jax.Array]) -> jax.Array:
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

    def summarise(self, counts: np.ndarray) -> np.ndarray:
        """Sum of the counts over a test set -> value of each metric, float32."""
        correct, total = counts
        return np.array([correct / total], np.float32)


def _entropy(probability):
    """Entropy in nats: `[K] -> []`."""
    return jnp.sum(jax.scipy.special.entr(probability))


def of(config) -> Classification:
    """The problem that a config's data set poses."""
    del config
    return Classification()
