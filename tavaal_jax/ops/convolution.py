"""Convolution and its transpose, exact and differentiable, in the form each platform runs well.

On GPU and TPU these are ``lax`` convolutions. On a CPU :mod:`winograd` makes products of matrices
of them where window, stride and channels allow it, else :mod:`patches`.

Layouts: images ``[B, H, W, C]``, kernels ``[k, k, C, F]`` for C channels in and F out. The platform
is read once, at trace time. A program that is to run elsewhere is traced within `portable(True)`.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import patches, winograd

portable = jax.make_user_context(default_value=False)
"""Context `with portable(True):`: programs traced in it use ``lax``, for any platform and batch.

It is part of the key of JAX's trace cache, so that no other trace is taken instead.
"""
_LEAST_CHANNELS = 16  # with fewer, transforming the tiles costs more than it saves


def conv(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int = 1
) -> jax.Array:
    """Cross-correlates `images [B, H, W, C]` with `kernel [k, k, C, F]`, zero padding on all sides.

    Returns `[B, H', W', F]` with `H' = (H + 2 padding - dilation (k - 1) - 1) // stride + 1`.
    """
    chex.assert_rank([images, kernel], 4)
    if dilation > 1 and (stride > 1 or padding % dilation):
        raise ValueError(
            f"dilation is {dilation} with stride {stride} and padding {padding}:"
            " give stride 1 and a padding that is a multiple of the dilation"
        )
    if not on_cpu():
        return _lax_conv(images, kernel, stride, padding, dilation)
    room = winograd if _by_winograd(kernel, stride) else patches
    if dilation > 1:
        plain = lambda x: room.conv(x, kernel, 1, padding // dilation)
        return _by_phases(plain, images, dilation)
    return room.conv(images, kernel, stride, padding)


def conv_transpose(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """The transpose of :func:`conv`, from C channels to F: `kernel [k, k, C, F]`.

    Returns `[B, H', W', F]` with `H' = (H - 1) stride + k - 2 padding`, as PyTorch's
    ``ConvTranspose2d`` does; ``nn.ConvTranspose`` places its padding differently.
    """
    chex.assert_rank([images, kernel], 4)
    if not on_cpu():
        return _lax_conv_transpose(images, kernel, stride, padding)
    room = winograd if _by_winograd(kernel, stride) else patches
    return room.conv_transpose(images, kernel, stride, padding)


def on_cpu() -> bool:
    """Whether what is traced now runs on a CPU and need not run elsewhere."""
    return not portable.value and jax.default_backend() == "cpu"


def _by_winograd(kernel: jax.Array, stride: int) -> bool:
    window, _, channels, features = kernel.shape
    return winograd.covers(window, stride) and min(channels, features) >= _LEAST_CHANNELS


def _by_phases(
    plain: Callable[[jax.Array], jax.Array], images: jax.Array, dilation: int
) -> jax.Array:
    """Dilated convolution as the plain one of every phase of rows and columns.

    An output pixel depends only on pixels at distances that are multiples of the dilation.
    """
    batch, height, width, channels = images.shape
    images = jnp.pad(images, ((0, 0), (0, -height % dilation), (0, -width % dilation), (0, 0)))
    rows, columns = (n // dilation for n in images.shape[1:3])
    phases = images.reshape(batch, rows, dilation, columns, dilation, channels)
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(-1, rows, columns, channels)
    out = plain(phases)
    _, out_rows, out_columns, features = out.shape
    out = out.reshape(batch, dilation, dilation, out_rows, out_columns, features)
    out = out.transpose(0, 3, 1, 4, 2, 5)
    out = out.reshape(batch, out_rows * dilation, out_columns * dilation, features)
    height, width = (
        height + dilation * (out_rows - rows),
        width + dilation * (out_columns - columns),
    )
    return out[:, :height, :width]


def _lax_conv(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int = 1
) -> jax.Array:
    pads = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), pads, rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _lax_conv_transpose(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
    pads = ((kernel.shape[0] - 1 - padding,) * 2,) * 2
    return lax.conv_general_dilated(
        images, jnp.flip(kernel, (0, 1)), (1, 1), pads, lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
