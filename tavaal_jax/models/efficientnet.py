"""EfficientNet-Lite: "EfficientNet" (Tan and Le, ICML 2019) without squeeze-and-excitation.

As in Google's released Lite checkpoints: ReLU6, TensorFlow's SAME padding, and stem and last
convolution of one width in all sizes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput
from tavaal_jax.ops import depthwise

_EPSILON = 1e-3  # of BatchNorm, TensorFlow's default
_STEM = 32


class Stage(NamedTuple):
    """Inverted residual blocks, of which the first may halve the image."""

    repeats: int
    window: int
    stride: int
    expansion: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
"""Lite0's."""


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Lite0's stages with `width` times the channels, in eights, and `depth` times the blocks.

    The first and the last stage are not repeated more often.
    """
    fixed = (0, len(STAGES) - 1)
    return tuple(
        stage._replace(
            repeats=stage.repeats if number in fixed else math.ceil(depth * stage.repeats),
            features=_in_eights(width * stage.features),
        )
        for number, stage in enumerate(STAGES)
    )


def _in_eights(channels: float) -> int:
    """The nearest multiple of 8, not more than 10 % below."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection: `[B, H, W, C] -> [B, H', W', features]`."""

    window: int
    stride: int
    expansion: int
    features: int
    axis_name: str | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """See the class."""
        channels = images.shape[-1]
        x = images
        if self.expansion > 1:
            x = _conv(self.expansion * channels, self.dtype)(x)
            x = nn.relu6(_norm(train, self.axis_name, self.dtype)(x))
        x = layers.DepthwiseConv(
            self.window, self.stride, kernel_init=layers.he_normal, dtype=self.dtype
        )(x)
        x = nn.relu6(_norm(train, self.axis_name, self.dtype)(x))
        x = _norm(train, self.axis_name, self.dtype)(_conv(self.features, self.dtype)(x))
        return images + x if self.stride == 1 and channels == self.features else x


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 by default; the embedding is the pooled last convolution, 1280 wide.

    Taps are the outputs of the stages that are the last of their resolution.
    """

    classes: int
    stages: Sequence[Stage] = STAGES
    features: int = 1280
    axis_name: str | None = None
    dropout: Dropout = Dropout()
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The last layer, which `head` calls."""
        self.last = layers.dense_from(self.features, self.classes, name="Dense_0")

    def head(
        self, features: jax.Array, dropout_keys: jax.Array | None, size: tuple[int, ...] = ()
    ) -> jax.Array:
        """Logits from the features of a `TaskOutput`: `[B, E] -> [B, K]`."""
        del size
        features = self.dropout.before_head(features, dropout_keys, len(self.stages))
        return self.last(features)

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`images [B, H, W, C] -> logits [B, K], taps, embedding [B, E]`."""
        pads = [depthwise.same_padding(n, 3, 2) for n in images.shape[1:3]]
        x = jnp.pad(images, ((0, 0), *pads, (0, 0)))
        x = layers.Conv(_STEM, 3, 2, kernel_init=layers.he_normal_out, dtype=self.dtype)(x)
        x = nn.relu6(_norm(train, self.axis_name, self.dtype)(x))
        taps = []
        for number, stage in enumerate(self.stages):
            for block in range(stage.repeats):
                x = InvertedResidual(
                    stage.window, stage.stride if block == 0 else 1, stage.expansion,
                    stage.features, self.axis_name, self.dtype,
                )(x, train)  # fmt: skip
            following = self.stages[number + 1 :]
            if not following or following[0].stride > 1:
                if self.dropout.place == "stages":
                    x = layers.dropout(x, dropout_keys, self.dropout.rate, number)
                taps.append(x)
        x = _norm(train, self.axis_name, self.dtype)(_conv(self.features, self.dtype)(x))
        embedding = jnp.mean(nn.relu6(x), axis=(1, 2), dtype=jnp.float32)
        return TaskOutput(self.head(embedding, dropout_keys), tuple(taps), embedding, embedding)


def _conv(features: int, dtype: DTypeLike) -> layers.Conv:
    """A 1x1 convolution."""
    return layers.Conv(features, 1, kernel_init=layers.he_normal_out, dtype=dtype)


def _norm(train: bool, axis_name: str | None, dtype: DTypeLike) -> nn.BatchNorm:
    return layers.batch_norm(train, axis_name, dtype, epsilon=_EPSILON)
