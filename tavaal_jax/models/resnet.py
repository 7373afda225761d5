"""ResNet with basic or bottleneck blocks: "Deep residual learning" (He et al., CVPR 2016)."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput

EXPANSION = 4
"""Channels that a bottleneck block returns, per feature."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[B, H, W, C] -> [B, H/stride, W/stride, features]`."""

    features: int
    stride: int
    axis_name: str | None
    dtype: DTypeLike
    dilation: int = 1
    kernel_init: Initializer = layers.pytorch_uniform

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """See the class."""

        def norm(x: jax.Array) -> jax.Array:
            return layers.batch_norm(train, self.axis_name, self.dtype)(x)

        def conv(window: int, stride: int, padding: int, dilation: int = 1) -> layers.Conv:
            return layers.Conv(
                self.features, window, stride, padding, dilation,
                kernel_init=self.kernel_init, dtype=self.dtype,
            )  # fmt: skip

        out = conv(3, self.stride, self.dilation, self.dilation)(images)
        out = nn.relu(norm(out))
        out = norm(conv(3, 1, self.dilation, self.dilation)(out))
        if images.shape != out.shape:
            images = norm(conv(1, self.stride, 0)(images))
        return nn.relu(out + images)


class BottleneckBlock(nn.Module):
    """A 3x3 convolution between two 1x1: `[B, H, W, C] -> [B, H/stride, W/stride, 4 features]`.

    The stride is that of the 3x3 convolution, as in torchvision.
    """

    features: int
    stride: int
    axis_name: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """See the class."""

        def norm(x: jax.Array) -> jax.Array:
            return layers.batch_norm(train, self.axis_name, self.dtype)(x)

        conv = functools.partial(layers.Conv, dtype=self.dtype)
        out = nn.relu(norm(conv(self.features, 1)(images)))
        out = nn.relu(norm(conv(self.features, 3, self.stride, 1)(out)))
        out = norm(conv(EXPANSION * self.features, 1)(out))
        if images.shape != out.shape:
            images = norm(conv(EXPANSION * self.features, 1, self.stride)(images))
        return nn.relu(out + images)


class ResNet(nn.Module):
    """ResNet-18 with widths (64, 128, 256, 512) and two blocks per stage.

    With `bottleneck` and blocks (3, 4, 6, 3) it is ResNet-50. Its stem is "cifar", a 3x3
    convolution, or "imagenet", a 7x7 one and a max-pool, both of stride 2. Kernels and biases start
    as PyTorch's defaults (uniform in +-1/sqrt(fan_in)), as in the released code. Taps are the
    outputs of the stages, the embedding is the pooled last one.
    """

    classes: int
    widths: Sequence[int]
    blocks: Sequence[int]
    axis_name: str | None = None
    dropout: Dropout = Dropout()
    dtype: DTypeLike = jnp.float32
    stem: str = "cifar"
    bottleneck: bool = False

    def setup(self) -> None:
        """The last layer, which `head` calls."""
        self.last = layers.dense_from(self._embedding(), self.classes, name="Dense_0")

    def _embedding(self) -> int:
        return self.widths[-1] * (EXPANSION if self.bottleneck else 1)

    def head(
        self, features: jax.Array, dropout_keys: jax.Array | None, size: tuple[int, ...] = ()
    ) -> jax.Array:
        """Logits from the features of a `TaskOutput`: `[B, E] -> [B, K]`."""
        del size
        features = self.dropout.before_head(features, dropout_keys, len(self.widths))
        return self.last(features)

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`images [B, H, W, C] -> logits [B, K], taps, embedding [B, E]`."""
        window, stride, padding = (7, 2, 3) if self.stem == "imagenet" else (3, 1, 1)
        x = layers.Conv(self.widths[0], window, stride, padding, dtype=self.dtype)(images)
        x = nn.relu(layers.batch_norm(train, self.axis_name, self.dtype)(x))
        if self.stem == "imagenet":
            x = layers.max_pool(x)
        block_of: Callable[..., nn.Module] = BottleneckBlock if self.bottleneck else BasicBlock
        taps = []
        for stage, (features, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = block_of(features, stride, self.axis_name, self.dtype)(x, train)
            if self.dropout.place == "stages":
                x = layers.dropout(x, dropout_keys, self.dropout.rate, stage)
            taps.append(x)
        embedding = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return TaskOutput(self.head(embedding, dropout_keys), tuple(taps), embedding, embedding)
