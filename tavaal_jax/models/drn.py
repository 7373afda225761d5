"""Dilated residual network: "Dilated residual networks" (Yu, Koltun, Funkhouser, CVPR 2017).

Architecture D of the released code (fyu/drn), with which a map of logits at the output stride is
scaled up to the images' size by a fixed transposed convolution.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput
from tavaal_jax.models.resnet import BasicBlock

RESIDUAL = range(3, 7)
"""Levels made of basic blocks, whose outputs are the taps; the others are plain convolutions."""
_DILATIONS = {5: 2, 6: 4, 7: 2}


class PlainBlock(nn.Module):
    """Convolution, BatchNorm, ReLU: `[B, H, W, C] -> [B, H/stride, W/stride, features]`."""

    features: int
    window: int
    stride: int
    dilation: int
    axis_name: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """See the class."""
        padding = self.dilation * (self.window // 2)
        x = layers.Conv(
            self.features, self.window, self.stride, padding, self.dilation,
            kernel_init=layers.he_normal_out, dtype=self.dtype,
        )(images)  # fmt: skip
        return nn.relu(layers.batch_norm(train, self.axis_name, self.dtype)(x))


class DRN(nn.Module):
    """DRN-D-22 by default; logits for every pixel.

    Level 0 is a 7x7 convolution. Levels 1 and 2 are plain, 3 to 6 of basic blocks, of which 5 and 6
    are dilated; 7 and 8, plain again, take away the grid that dilation leaves. The embedding is the
    pooled last level.
    """

    classes: int
    widths: Sequence[int] = (16, 32, 64, 128, 256, 512, 512, 512)
    """Channels of levels 1 to 8; level 0 has the first."""
    blocks: Sequence[int] = (1, 1, 2, 2, 2, 2, 1, 1)
    """Number of blocks in levels 1 to 8, residual or plain."""
    strides: Sequence[int] = (1, 2, 2, 2)
    """1 or 2, of levels 1 to 4; their product is the output stride."""
    axis_name: str | None = None
    dropout: Dropout = Dropout()
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Levels 0 to 8 and the last layer."""
        strides = (*self.strides, 1, 1, 1, 1)
        self.levels: list[list[PlainBlock | BasicBlock]] = [
            [PlainBlock(self.widths[0], 7, 1, 1, self.axis_name, self.dtype)],
            *(
                [self._block(level, self.widths[level - 1], 1 if i else stride) for i in range(n)]
                for level, (n, stride) in enumerate(zip(self.blocks, strides, strict=True), 1)
            ),
        ]
        self.last = layers.Conv(
            self.classes, 1, use_bias=True,
            kernel_init=nn.initializers.normal(math.sqrt(2 / self.classes)),
        )  # fmt: skip

    def _block(self, level: int, features: int, stride: int) -> PlainBlock | BasicBlock:
        dilation = _DILATIONS.get(level, 1)
        if level in RESIDUAL:
            init = layers.he_normal_out
            return BasicBlock(features, stride, self.axis_name, self.dtype, dilation, init)
        return PlainBlock(features, 3, stride, dilation, self.axis_name, self.dtype)

    def head(
        self, features: jax.Array, dropout_keys: jax.Array | None, size: tuple[int, ...]
    ) -> jax.Array:
        """Logits from the features of a `TaskOutput`: `[B, h, w, E] -> [B, *size, K]`.

        `size` is the images' `(H, W)`.
        """
        features = self.dropout.before_head(features, dropout_keys, len(self.levels))
        return upsample(self.last(features), math.prod(self.strides), size)

    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`images [B, H, W, C] -> logits [B, H, W, K], taps, embedding [B, E]`."""
        x, taps = images, []
        for level, blocks in enumerate(self.levels):
            for block in blocks:
                x = block(x, train)
            if level in RESIDUAL:
                if self.dropout.place == "stages":
                    x = layers.dropout(x, dropout_keys, self.dropout.rate, level)
                taps.append(x)
        logits = self.head(x, dropout_keys, images.shape[1:3])
        embedding = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return TaskOutput(logits, tuple(taps), embedding, x)


def upsample(logits: jax.Array, stride: int, size: tuple[int, ...]) -> jax.Array:
    """`[B, h, w, K] -> [B, *size, K]`, bilinear but for the frame, whose logits are smaller.

    The released code's transposed convolution of window 2 `stride`, padding `stride / 2`. What
    exceeds `size`, where `stride` does not divide it, is cut off.
    """
    if stride == 1:
        return logits
    rows, columns = (
        jnp.asarray(_weights(n, stride)[:m]) for n, m in zip(logits.shape[1:3], size, strict=True)
    )
    highest = lax.Precision.HIGHEST
    logits = jnp.einsum("yh,bhwk->bywk", rows, logits, precision=highest)
    return jnp.einsum("xw,bywk->byxk", columns, logits, precision=highest)


def _weights(count: int, stride: int) -> np.ndarray:
    """Weight of each of `count` inputs in each output: `[count stride, count]`."""
    taps = np.arange(2 * stride)
    window = 1 - np.abs(taps / stride - (2 * stride - 1) / (2 * stride))
    weights = np.zeros(((count + 1) * stride, count), np.float32)
    for i in range(count):
        weights[i * stride + taps, i] = window
    return weights[stride // 2 :][: count * stride]
