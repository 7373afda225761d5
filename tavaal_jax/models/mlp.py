"""Multi-layer perceptron for feature vectors, the paper's task learner on two moons."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput


class MLP(nn.Module):
    """Dense layers of `widths` with ReLU, then the logits; the tap is the middle layer."""

    classes: int
    widths: Sequence[int]
    dropout: Dropout = Dropout()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`features [B, F] -> logits [B, K], taps, embedding [B, E]`; `train` changes nothing."""
        del train
        hidden = []
        x = features.reshape(features.shape[0], -1)
        for number, width in enumerate(self.widths):
            x = nn.relu(layers.pytorch_dense(x, width, self.dtype))
            if self.dropout.place == "stages":
                x = layers.dropout(x, dropout_keys, self.dropout.rate, number)
            hidden.append(x)
        out = x
        if self.dropout.place == "head":
            out = layers.dropout(x, dropout_keys, self.dropout.rate, len(self.widths))
        logits = layers.pytorch_dense(out, self.classes, jnp.float32)
        return TaskOutput(logits, (hidden[len(hidden) // 2],), x.astype(jnp.float32))
