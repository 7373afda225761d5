"""Multi-layer perceptron for feature vectors, the paper's task learner on two moons."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput


class MLP(nn.Module):
    """Dense layers of `widths` with ReLU, then the logits; the tap is the middle layer."""

    classes: int
    widths: Sequence[int]
    dropout: Dropout = Dropout()
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The last layer, which `head` calls."""
        number = len(self.widths)
        self.last = layers.dense_from(self.widths[-1], self.classes, name=f"Dense_{number}")

    def head(
        self, features: jax.Array, dropout_keys: jax.Array | None, size: tuple[int, ...] = ()
    ) -> jax.Array:
        """Logits from the features of a `TaskOutput`: `[B, E] -> [B, K]`."""
        del size
        features = self.dropout.before_head(features, dropout_keys, len(self.widths))
        return self.last(features)

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
        logits = self.head(x, dropout_keys)
        tap = hidden[len(hidden) // 2]
        return TaskOutput(logits, (tap,), x.astype(jnp.float32), x)
