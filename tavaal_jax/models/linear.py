"""One linear layer on features, the task learner beside a frozen network."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput

_LAYER = "Dense_0"


class Linear(nn.Module):
    """Logits of features; these are the embedding, and divided by sqrt(F) the Ranker's tap.

    Normalised features have a squared length of about F: undivided they made the Ranker's loss grow
    without bound at learning rates that suit pooled taps. It shares no parameter with the Ranker,
    and its loss is convex: `algorithm.logistic` solves it. Units are dropped from the features,
    wherever `dropout.place` is.
    """

    classes: int
    features: int
    dropout: Dropout = Dropout()

    def setup(self) -> None:
        """The layer."""
        self.last = layers.dense_from(self.features, self.classes, name=_LAYER)

    def head(
        self, features: jax.Array, dropout_keys: jax.Array | None, size: tuple[int, ...] = ()
    ) -> jax.Array:
        """Logits from the features of a `TaskOutput`: `[B, F] -> [B, K]`."""
        del size
        logits: jax.Array = self.last(layers.dropout(features, dropout_keys, self.dropout.rate))
        return logits

    def __call__(
        self, features: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`features [B, F] -> logits [B, K], taps, embedding [B, F]`; `train` changes nothing."""
        del train
        x = features.astype(jnp.float32)
        return TaskOutput(self.head(x, dropout_keys), (x / math.sqrt(x.shape[-1]),), x, x)


def params(kernel: jax.Array, bias: jax.Array) -> dict[str, Any]:
    """Parameters of a `Linear` from its weights `[F, K]` and bias `[K]`."""
    return {_LAYER: {"kernel": kernel, "bias": bias}}
