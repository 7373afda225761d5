"""Heads: the Ranker on T's taps (section 3.1), discriminator and classifier on latents (3.3)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from tavaal_jax.models import layers


class Ranker(nn.Module):
    """R, the paper's loss prediction module: one number per image, larger for a larger loss.

    Every tap: global average pool, Dense(`features`), ReLU; concatenated; Dense(1). With
    `features = 0` a single-layer perceptron on the taps, as on two moons.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, taps: tuple[jax.Array, ...]) -> jax.Array:
        """`taps -> [B]`."""
        pooled = [jnp.mean(t, axis=(1, 2), dtype=jnp.float32) if t.ndim == 4 else t for t in taps]
        if self.features:
            pooled = [nn.relu(layers.pytorch_dense(p, self.features, self.dtype)) for p in pooled]
        joined = jnp.concatenate(pooled, axis=-1)
        return layers.pytorch_dense(joined, 1, jnp.float32)[:, 0]


class Discriminator(nn.Module):
    """D: whether a latent comes from L; `len(hidden) + 1` dense layers with ReLU, one logit."""

    hidden: Sequence[int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, latent: jax.Array, rank: jax.Array | None) -> jax.Array:
        """`latent [B, Z], rank [B, 1] or None -> logits [B]`, large where it looks labelled."""
        x = latent if rank is None else jnp.concatenate([latent, rank], axis=-1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=layers.he_normal, dtype=self.dtype)(x))
        return nn.Dense(1, kernel_init=layers.he_normal)(x.astype(jnp.float32))[:, 0]


class LatentClassifier(nn.Module):
    """SRAAL's supervised target learner: the class from a latent.

    `len(hidden) + 1` dense layers with ReLU, all He normal, as released.
    """

    classes: int
    hidden: Sequence[int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, latent: jax.Array) -> jax.Array:
        """`latent [B, Z] -> logits [B, K]`."""
        x = latent
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=layers.he_normal, dtype=self.dtype)(x))
        return nn.Dense(self.classes, kernel_init=layers.he_normal)(x.astype(jnp.float32))


def build_ranker(config: ConfigDict) -> Ranker:
    """R for any learner's taps."""
    return Ranker(config.ranker.features, jnp.dtype(config.dtype))


def build_discriminator(config: ConfigDict) -> Discriminator:
    """D for any latent and rank."""
    return Discriminator(tuple(config.discriminator.hidden), jnp.dtype(config.dtype))
