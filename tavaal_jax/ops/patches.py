"""Convolutions as patches times matrix, for windows and channel counts that Winograd does not help.

XLA's CPU backend rewrites convolutions into its fast layout only outside of loops, and every
training step is in one: the kernel gradient of a ``lax`` convolution runs at 2 GFLOP/s there. So
each of the three products (output, input gradient, kernel gradient) is either a ``lax``
convolution that is in that layout from the start, or a product of matrices.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import matrix

_Saved = tuple[jax.Array, jax.Array]
"""Images and kernel, kept for the gradients."""
_CACHED_BYTES = 4 * 2**20  # patches of about this size stay in a CPU core's share of the cache


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`, see `convolution.conv`."""
    return _output(images, kernel, stride, padding)


def _conv_forward(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, _Saved]:
    return conv(images, kernel, stride, padding), (images, kernel)


def _conv_backward(
    stride: int, padding: int, saved: _Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    return (
        _input_gradient(gradient, kernel, stride, padding, images.shape[1:3]),
        _kernel_gradient(images, gradient, kernel.shape[0], stride, padding),
    )


conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_transpose(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Transpose `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]` of `conv`, see `convolution`."""
    size = tuple((n - 1) * stride + kernel.shape[0] - 2 * padding for n in images.shape[1:3])
    return _input_gradient(images, kernel.swapaxes(2, 3), stride, padding, size)


def _conv_transpose_forward(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, _Saved]:
    return conv_transpose(images, kernel, stride, padding), (images, kernel)


def _conv_transpose_backward(
    stride: int, padding: int, saved: _Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    kernel_gradient = _kernel_gradient(gradient, images, kernel.shape[0], stride, padding)
    return (
        _output(gradient, kernel.swapaxes(2, 3), stride, padding),
        kernel_gradient.swapaxes(2, 3),
    )


conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _output(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`."""
    window, _, _, features = kernel.shape
    if window > 2 * stride:  # Patches hold a pixel (window / stride)^2 times.
        return _lax_conv(images, kernel, padding, stride)
    return _dot(_patches(images, window, stride, padding), kernel.reshape(-1, features))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _input_gradient(
    gradient: jax.Array, kernel: jax.Array, stride: int, padding: int, size: tuple[int, ...]
) -> jax.Array:
    """Gradient of :func:`_output` by its images: `[B, H', W', F] -> [B, H, W, C]`."""
    window, _, channels, features = kernel.shape
    if stride == 1 and window > 1:
        flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        return _lax_conv(gradient, flipped, window - 1 - padding)
    wide = matrix.factor_type(gradient.dtype)
    columns = kernel.reshape(-1, features).T
    patches = matrix.product(gradient.astype(wide), columns.astype(wide))
    images = jax.ShapeDtypeStruct((gradient.shape[0], *size, channels), jnp.float32)
    fold = jax.linear_transpose(lambda x: _patches(x, window, stride, padding), images)
    return fold(patches)[0].astype(gradient.dtype)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _kernel_gradient(
    images: jax.Array, gradient: jax.Array, window: int, stride: int, padding: int
) -> jax.Array:
    """Gradient of :func:`_output` by its kernel: `-> [k, k, C, F]`, by chunks of the batch."""
    batch, channels, features = images.shape[0], images.shape[3], gradient.shape[3]
    patch_bytes = math.prod(gradient.shape[1:3]) * window**2 * channels * images.dtype.itemsize
    chunk = _largest_divisor(batch, max(1, _CACHED_BYTES // patch_bytes))

    def product(images: jax.Array, gradient: jax.Array) -> jax.Array:
        patches = _patches(images, window, stride, padding)
        factors = patches.reshape(-1, patches.shape[-1]).T, gradient.reshape(-1, features)
        return matrix.product(*(x.astype(matrix.factor_type(x.dtype)) for x in factors))

    total = _sum_over_chunks(product, images, gradient, chunk)
    return total.reshape(window, window, channels, features).astype(images.dtype)


def _lax_conv(images: jax.Array, kernel: jax.Array, padding: int, stride: int = 1) -> jax.Array:
    wide = matrix.factor_type(images.dtype)
    out = lax.conv_general_dilated(
        images.astype(wide), kernel.astype(wide), (stride, stride), ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=jnp.float32,
    )  # fmt: skip
    return out.astype(images.dtype)


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Matrix product with float32 sums, in the type of its arguments."""
    wide = matrix.factor_type(x.dtype)
    return matrix.product(x.astype(wide), y.astype(wide)).astype(x.dtype)


def _sum_over_chunks(
    product: Callable[[jax.Array, jax.Array], jax.Array],
    images: jax.Array,
    gradient: jax.Array,
    chunk: int,
) -> jax.Array:
    if chunk == images.shape[0]:
        return product(images, gradient)
    images, gradient = (x.reshape(-1, chunk, *x.shape[1:]) for x in (images, gradient))
    total = product(images[0], gradient[0])
    rest = (images[1:], gradient[1:])
    return lax.scan(lambda total, pair: (total + product(*pair), None), total, rest)[0]


def _patches(images: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Window of each output pixel of a convolution: `[B, H, W, C] -> [B, H', W', k k C]`."""
    height, width = (1 + (n + 2 * padding - window) // stride for n in images.shape[1:3])
    if padding:
        images = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return jnp.concatenate(
        [
            images[
                :,
                i : i + stride * (height - 1) + 1 : stride,
                j : j + stride * (width - 1) + 1 : stride,
            ]
            for i in range(window)
            for j in range(window)
        ],
        axis=-1,
    )


def _largest_divisor(number: int, limit: int) -> int:
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
