"""ResNet with basic blocks and the CIFAR stem: "Deep residual learning" (He et al., CVPR 2016)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[B, H, W, C] -> [B, H/stride, W/stride, features]`."""

    features: int
    stride: int
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """See the class."""

        def norm(x):
            return layers.batch_norm(train, self.axis_name, self.dtype)(x)

        out = layers.Conv(self.features, 3, self.stride, 1, dtype=self.dtype)(images)
        out = nn.relu(norm(out))
        out = norm(layers.Conv(self.features, 3, 1, 1, dtype=self.dtype)(out))
        if images.shape != out.shape:
            shortcut = layers.Conv(self.features, 1, self.stride, dtype=self.dtype)(images)
            images = norm(shortcut)
        return nn.relu(out + images)


class ResNet(nn.Module):
    """ResNet-18 with widths (64, 128, 256, 512) and two blocks per stage, 3x3 stem, no max-pool.

    Kernels and biases start as PyTorch's defaults (uniform in +-1/sqrt(fan_in)), as in the released
    code. Taps are the outputs of the stages, the embedding is the pooled last one.
    """

    classes: int
    widths: Sequence[int]
    blocks: Sequence[int]
    axis_name: str | None = None
    dropout: Dropout = Dropout()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`images [B, H, W, C] -> logits [B, K], taps, embedding [B, E]`."""
        x = layers.Conv(self.widths[0], 3, 1, 1, dtype=self.dtype)(images)
        x = nn.relu(layers.batch_norm(train, self.axis_name, self.dtype)(x))
        taps = []
        for stage, (features, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(features, stride, self.axis_name, self.dtype)(x, train)
            if self.dropout.place == "stages":
                x = layers.dropout(x, dropout_keys, self.dropout.rate, stage)
            taps.append(x)
        embedding = out = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        if self.dropout.place == "head":
            out = layers.dropout(out, dropout_keys, self.dropout.rate, len(self.widths))
        logits = layers.pytorch_dense(out, self.classes)
        return TaskOutput(logits, tuple(taps), embedding)
