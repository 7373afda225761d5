"""Ranker R, the paper's relaxed loss prediction module (section 3.1)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models import layers


class Ranker(nn.Module):
    """Predicts one number per image from the learner's taps; a larger one means a larger loss.

    Every tap: global average pool, Dense(`features`), ReLU; concatenated; Dense(1). With
    `features = 0` a single-layer perceptron on the taps, as on two moons.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, taps: tuple[jax.Array, ...]) -> jax.Array:
        """`taps -> [B]`."""
        pooled = [jnp.mean(t, axis=(1, 2), dtype=jnp.float32) if t.ndim == 4 else t for t in taps]
        if self.features:
            pooled = [nn.relu(layers.pytorch_dense(p, self.features, self.dtype)) for p in pooled]
        joined = jnp.concatenate(pooled, axis=-1)
        return layers.pytorch_dense(joined, 1, jnp.float32)[:, 0]
