"""Multi-layer perceptron as a task learner for feature vectors, the paper's learner on two
moons."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models import layers
from tavaal_jax.models.outputs import TaskOutput


class MLP(nn.Module):
    """Dense layers of `widths` with ReLU, then the logits; the tap is the middle layer."""

    classes: int
    widths: Sequence[int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> TaskOutput:
        """`features [B, F] -> logits [B, K], taps, embedding [B, E]`; `train` changes nothing."""
        del train
        hidden = []
        x = features.reshape(features.shape[0], -1)
        for width in self.widths:
            x = nn.relu(layers.pytorch_dense(x, width, self.dtype))
            hidden.append(x)
        logits = layers.pytorch_dense(x, self.classes, jnp.float32)
        return TaskOutput(logits, (hidden[len(hidden) // 2],), x.astype(jnp.float32))
