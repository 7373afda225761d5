"""Discriminator D on `[z, r]`: does a latent come from the labelled pool (section 3.3)?"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models import layers


class Discriminator(nn.Module):
    """MLP with ReLU and one logit; `len(hidden) + 1` dense layers."""

    hidden: Sequence[int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latent: jax.Array, rank: jax.Array | None) -> jax.Array:
        """`latent [B, Z], rank [B, 1] or None (VAAL) -> logits [B]`, large where it looks
        labelled."""
        x = latent if rank is None else jnp.concatenate([latent, rank], axis=-1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=layers.he_normal, dtype=self.dtype)(x))
        return nn.Dense(1, kernel_init=layers.he_normal)(x.astype(jnp.float32))[:, 0]
