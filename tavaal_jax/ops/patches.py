"""Convolutions as patches times matrix, for windows and channel counts that Winograd does not help.

XLA's CPU backend rewrites convolutions into its fast layout only outside of loops, and every
training step is in one: the kernel gradient of a ``lax`` convolution runs at 2 GFLOP/s there. So
each of the three products (output, input gradient, kernel gradient) is either a ``lax``
convolution that is in that layout from the start, or a product of matrices.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import matrix, parts

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
        kernel_gradient(images, gradient, kernel.shape[0], stride, padding),
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
    of_conv = kernel_gradient(gradient, images, kernel.shape[0], stride, padding)
    return _output(gradient, kernel.swapaxes(2, 3), stride, padding), of_conv.swapaxes(2, 3)


conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _output(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`."""
    window, _, _, features = kernel.shape
    if window > 2 * stride:  # Patches hold a pixel (window / stride)^2 times.
        return _lax_conv(images, kernel, padding, stride)
    columns = kernel.reshape(-1, features)
    if not matrix.is_bfloat16(images.dtype):
        return _dot(_patches(images, window, stride, padding), columns)

    def part(images: jax.Array) -> jax.Array:
        return _dot(_bfloat16_patches(images, window, stride, padding), columns)

    places = math.prod((n + 2 * padding - window) // stride + 1 for n in images.shape[1:3])
    return parts.mapped(part, _part_size(images, places * columns.shape[0]), images)


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

    def part(gradient: jax.Array) -> jax.Array:
        patches = matrix.product(gradient.astype(wide), columns.astype(wide))
        images = jax.ShapeDtypeStruct((gradient.shape[0], *size, channels), jnp.float32)
        fold = jax.linear_transpose(lambda x: _patches(x, window, stride, padding), images)
        folded: jax.Array = fold(patches)[0].astype(gradient.dtype)
        return folded

    if not matrix.is_bfloat16(gradient.dtype):
        return part(gradient)
    numbers = 2 * math.prod(gradient.shape[1:3]) * columns.shape[1]  # of float32
    return parts.mapped(part, _part_size(gradient, numbers), gradient)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def kernel_gradient(
    images: jax.Array, gradient: jax.Array, window: int, stride: int, padding: int
) -> jax.Array:
    """Gradient of a convolution by its kernel: `-> [k, k, C, F]`, by chunks of the batch."""
    channels, features = images.shape[3], gradient.shape[3]
    chunk = _part_size(images, math.prod(gradient.shape[1:3]) * window**2 * channels)

    def product(images: jax.Array, gradient: jax.Array) -> jax.Array:
        patches = _bfloat16_patches(images, window, stride, padding)
        factors = patches.reshape(-1, patches.shape[-1]), gradient.reshape(-1, features)
        return matrix.contracted(*(x.astype(matrix.factor_type(x.dtype)) for x in factors))

    total = parts.summed(product, chunk, images, gradient)
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


def _part_size(images: jax.Array, numbers: int) -> int:
    """Largest divisor of the batch whose patches, `numbers` of one image, stay in the cache."""
    return parts.largest_divisor(
        images.shape[0], _CACHED_BYTES // (numbers * images.dtype.itemsize)
    )


def _bfloat16_patches(images: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """:func:`_patches`, joined as integers where the images are bfloat16."""
    return parts.values(_patches(parts.bits(images), window, stride, padding), images.dtype)


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
