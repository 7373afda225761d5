"""Convolution and its transpose, exact and differentiable, in the form each platform runs well.

On GPU and TPU these are ``lax`` convolutions. On a CPU :mod:`winograd` makes products of matrices
of them where window, stride and channels allow it, else :mod:`patches`.

Layouts: images ``[B, H, W, C]``, kernels ``[k, k, C, F]`` for C channels in and F out. The platform
is read once, at trace time.
"""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import patches, winograd

_LEAST_CHANNELS = 16  # with fewer, transforming the tiles costs more than it saves


def conv(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Cross-correlates `images [B, H, W, C]` with `kernel [k, k, C, F]`, zero padding on all sides.

    Returns `[B, H', W', F]` with `H' = (H + 2 padding - k) // stride + 1`.
    """
    chex.assert_rank([images, kernel], 4)
    if not _on_cpu():
        return _lax_conv(images, kernel, stride, padding)
    room = winograd if _by_winograd(kernel, stride) else patches
    return room.conv(images, kernel, stride, padding)


def conv_transpose(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """The transpose of :func:`conv`, from C channels to F: `kernel [k, k, C, F]`.

    Returns `[B, H', W', F]` with `H' = (H - 1) stride + k - 2 padding`, as PyTorch's
    ``ConvTranspose2d`` does; ``nn.ConvTranspose`` places its padding differently.
    """
    chex.assert_rank([images, kernel], 4)
    if not _on_cpu():
        return _lax_conv_transpose(images, kernel, stride, padding)
    room = winograd if _by_winograd(kernel, stride) else patches
    return room.conv_transpose(images, kernel, stride, padding)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _by_winograd(kernel, stride):
    window, _, channels, features = kernel.shape
    return winograd.covers(window, stride) and min(channels, features) >= _LEAST_CHANNELS


def _lax_conv(images, kernel, stride, padding):
    pads = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _lax_conv_transpose(images, kernel, stride, padding):
    pads = ((kernel.shape[0] - 1 - padding,) * 2,) * 2
    return lax.conv_general_dilated(
        images, jnp.flip(kernel, (0, 1)), (1, 1), pads, lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
