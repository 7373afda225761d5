"""What the networks share: convolutions on `ops`, initialisers, BatchNorm, a learner's output."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from tavaal_jax.ops import convolution, depthwise


class Dropout(NamedTuple):
    """Where a learner drops units, for calls that come with dropout keys; others drop none."""

    place: str = "head"
    """"head": before the last layer; "stages": after each stage (ResNet), residual level (DRN) or
    hidden layer (MLP)."""
    rate: float = 0.5

    def before_head(self, features: jax.Array, keys: jax.Array | None, layer: int) -> jax.Array:
        """What the last layer is given: `features [B, ...]`, dropped where the place is "head"."""
        return dropout(features, keys, self.rate, layer) if self.place == "head" else features


class TaskOutput(NamedTuple):
    """Output of a task learner T."""

    logits: jax.Array
    """`[B, K]`, or of pixels `[B, H, W, K]`"""
    taps: tuple[jax.Array, ...]
    """Input of the Ranker: feature maps `[B, H', W', C']` or features `[B, C']`."""
    embedding: jax.Array
    """Penultimate features `[B, E]`."""
    features: jax.Array | None = None
    """What the network's `head` makes the logits of: `[B, E]`, or a map `[B, H', W', E]`."""


# PyTorch's default for convolutions and linear layers: uniform in +-1/sqrt(fan_in).
pytorch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# PyTorch's default for transposed convolutions, which takes the output's channels for the input's.
pytorch_uniform_transposed = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2
)
# The released code's choice for encoder and discriminator: normal with variance 2/fan_in.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# DRN's: normal with variance 2/fan_out.
he_normal_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def pytorch_bias(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default bias: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def dense_from(
    fan_in: int, features: int, dtype: DTypeLike = jnp.float32, name: str | None = None
) -> nn.Dense:
    """A dense layer initialised as PyTorch's, for inputs `[B, fan_in]`."""
    bias = pytorch_bias(fan_in)
    return nn.Dense(features, dtype=dtype, kernel_init=pytorch_uniform, bias_init=bias, name=name)


def pytorch_dense(x: jax.Array, features: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """A dense layer of the calling module, initialised as PyTorch's: `[B, F] -> [B, features]`."""
    return dense_from(x.shape[-1], features, dtype)(x)


class Conv(nn.Module):
    """Convolution `[B, H, W, C] -> [B, H', W', features]` with a square window."""

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    use_bias: bool = False
    kernel_init: Initializer = pytorch_uniform
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """See the class."""
        shape = (self.window, self.window, images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        out = convolution.conv(
            images.astype(self.dtype), kernel.astype(self.dtype),
            self.stride, self.padding, self.dilation,
        )  # fmt: skip
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            out = out + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return out


class DepthwiseConv(nn.Module):
    """A window of its own for each channel: `[B, H, W, C] -> [B, ceil(H / stride), ..., C]`."""

    window: int
    stride: int = 1
    kernel_init: Initializer = he_normal
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """See the class."""
        shape = (self.window, self.window, 1, images.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        return depthwise.conv(images.astype(self.dtype), kernel.astype(self.dtype), self.stride)


class ConvTranspose(nn.Module):
    """Transposed convolution `[B, H, W, C] -> [B, 2 H, 2 W, features]`: window 4, stride 2."""

    features: int
    kernel_init: Initializer = pytorch_uniform_transposed
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """See the class."""
        shape = (4, 4, images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        return convolution.conv_transpose(
            images.astype(self.dtype), kernel.astype(self.dtype), stride=2, padding=1
        )


def max_pool(images: jax.Array) -> jax.Array:
    """Largest of windows of 3x3 at stride 2, nothing beyond the edge: `[B, H, W, C] -> half`.

    As maxima of slices: gradients of a `lax` window are slow on a CPU.
    """

    def along(x: jax.Array, axis: int) -> jax.Array:
        outputs = (x.shape[axis] + 1) // 2
        pads = [(1, 1, 0) if a == axis else (0, 0, 0) for a in range(4)]
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), pads)
        first, *others = (lax.slice_in_dim(x, i, i + 2 * outputs - 1, 2, axis) for i in range(3))
        return functools.reduce(jnp.maximum, others, first)

    return along(along(images, 1), 2)


def dropout(x: jax.Array, keys: jax.Array | None, rate: float, layer: int = 0) -> jax.Array:
    """Sets entries of `x [B, ...]` to zero with probability `rate` and scales the others.

    Each example has its own key in `keys [B]`, so that neither its neighbours nor the number of
    devices matter; `layer` tells a network's dropout layers apart. None: `x` as it is.
    """
    if keys is None:
        return x

    def one(example: jax.Array, key: jax.Array) -> jax.Array:
        share = jnp.float32(1 - rate)
        keep = jax.random.bernoulli(jax.random.fold_in(key, layer), share, example.shape)
        return jnp.where(keep, example / (1 - rate), jnp.zeros_like(example))

    return jax.vmap(one)(x, keys)


def batch_norm(
    train: bool,
    axis_name: str | None,
    dtype: DTypeLike,
    name: str | None = None,
    epsilon: float = 1e-5,
) -> nn.BatchNorm:
    """BatchNorm with PyTorch's constants; in training it spans all devices of `axis_name`."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name,
        name=name,
    )
