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

    def image_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """`l_i`: `logits [B, K], labels [B] -> [B]`."""
        return losses.cross_entropy(logits, labels)

    def counts(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """What one example adds to the metrics' counts: `logits [K], label [] -> [2]`."""
        return jnp.stack([jnp.argmax(logits) == label, jnp.ones((), bool)]).astype(jnp.int32)

    def summarise(self, counts: np.ndarray) -> np.ndarray:
        """Sum of the counts over a test set -> value of each metric, float32."""
        correct, total = counts
        return np.array([correct / total], np.float32)


def of(config) -> Classification:
    """The problem that a config's data set poses."""
    del config
    return Classification()
