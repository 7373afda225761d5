"""Depthwise convolution with TensorFlow's SAME padding, in the form each platform runs well.

On GPU and TPU it is a ``lax`` convolution of as many groups as channels. On a CPU, where XLA has no
fast form of that, it is a sum of k * k products of the shifted images with one weight per channel.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import convolution


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Padding before and after, so that `size` pixels give `ceil(size / stride)`.

    An odd one out comes after, unlike PyTorch's.
    """
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def conv(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Cross-correlates each channel of `images [B, H, W, C]` with its `kernel [k, k, 1, C]`.

    Returns `[B, H', W', C]` with `H' = ceil(H / stride)`.
    """
    window = kernel.shape[0]
    pads = [same_padding(n, window, stride) for n in images.shape[1:3]]
    if not convolution.on_cpu():
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), pads, feature_group_count=images.shape[-1],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    rows, columns = (-(-n // stride) for n in images.shape[1:3])
    total = jnp.zeros((), jnp.float32)
    for i in range(window):
        for j in range(window):
            shifted = padded[
                :,
                i : i + stride * (rows - 1) + 1 : stride,
                j : j + stride * (columns - 1) + 1 : stride,
            ]
            product = shifted * kernel[i, j].astype(jnp.float32).reshape(1, 1, 1, -1)
            total = product if i == j == 0 else total + product
    return total.astype(images.dtype)
