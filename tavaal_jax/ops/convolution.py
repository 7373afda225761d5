"""Convolution and transposed convolution, exact and differentiable, in the form each platform runs
well.

On GPU and TPU these are ``lax`` convolutions. XLA's CPU backend is different: gradients of a
``lax`` convolution inside a loop (every training step here is one) miss its fast path by a factor
of 50, so there the three products a convolution consists of (output, input gradient, kernel
gradient) are written as matrix products over patches, or as a ``lax`` convolution in the one layout
that is fast. A transposed convolution is the same three products with their roles exchanged.

Layouts: images ``[B, H, W, C]``, kernels ``[k, k, C, F]``. The platform is read once, at trace
time.
"""

import functools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_CACHED_BYTES = 4 * 2**20  # patches of about this size stay in a CPU core's share of the cache


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def conv(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Cross-correlates `images [B, H, W, C]` with `kernel [k, k, C, F]`, zero padding on all sides.

    Returns `[B, H', W', F]` with `H' = (H + 2 padding - k) // stride + 1`.
    """
    chex.assert_rank([images, kernel], 4)
    if not _on_cpu():
        return _lax_conv(images, kernel, stride, padding)
    return _cpu_conv(images, kernel, stride, padding)


def conv_transpose(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """The transpose of :func:`conv`: `images [B, H, W, C]`, `kernel [k, k, F, C]` (PyTorch's
    order).

    Returns `[B, H', W', F]` with `H' = (H - 1) stride + k - 2 padding`, as PyTorch's
    ``ConvTranspose2d`` does; ``nn.ConvTranspose`` places its padding differently.
    """
    chex.assert_rank([images, kernel], 4)
    if not _on_cpu():
        return _lax_conv_transpose(images, kernel, stride, padding)
    return _cpu_conv_transpose(images, kernel, stride, padding)


def _lax_conv(images, kernel, stride, padding):
    pads = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT
    )


def _lax_conv_transpose(images, kernel, stride, padding):
    pads = ((kernel.shape[0] - 1 - padding,) * 2,) * 2
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return lax.conv_general_dilated(
        images, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )


# CPU: a convolution and its transpose from the same three products.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cpu_conv(images, kernel, stride, padding):
    return _output(images, kernel, stride, padding)


def _cpu_conv_forward(images, kernel, stride, padding):
    return _output(images, kernel, stride, padding), (images, kernel)


def _cpu_conv_backward(stride, padding, saved, gradient):
    images, kernel = saved
    return (
        _input_gradient(gradient, kernel, stride, padding, images.shape[1:3]),
        _kernel_gradient(images, gradient, kernel.shape[0], stride, padding),
    )


_cpu_conv.defvjp(_cpu_conv_forward, _cpu_conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cpu_conv_transpose(images, kernel, stride, padding):
    size = tuple((n - 1) * stride + kernel.shape[0] - 2 * padding for n in images.shape[1:3])
    return _input_gradient(images, kernel, stride, padding, size)


def _cpu_conv_transpose_forward(images, kernel, stride, padding):
    return _cpu_conv_transpose(images, kernel, stride, padding), (images, kernel)


def _cpu_conv_transpose_backward(stride, padding, saved, gradient):
    images, kernel = saved
    return (
        _output(gradient, kernel, stride, padding),
        _kernel_gradient(gradient, images, kernel.shape[0], stride, padding),
    )


_cpu_conv_transpose.defvjp(_cpu_conv_transpose_forward, _cpu_conv_transpose_backward)


def _output(images, kernel, stride, padding):
    """Convolution `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`."""
    size, _, _, features = kernel.shape
    if stride == 1 and size > 1:
        return _lax_conv(images, kernel, stride, padding)
    matrix = kernel.reshape(-1, features)
    return _patches(images, size, stride, padding) @ matrix


def _input_gradient(gradient, kernel, stride, padding, size):
    """Gradient of :func:`_output` by its images: `[B, H', W', F] -> [B, H, W, C]`."""
    window, _, channels, features = kernel.shape
    if stride == 1 and window > 1:
        flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        return _lax_conv(gradient, flipped, 1, window - 1 - padding)
    patches = gradient @ kernel.reshape(-1, features).T
    shape = (gradient.shape[0], *size, channels)
    fold = jax.linear_transpose(
        lambda x: _patches(x, window, stride, padding), jax.ShapeDtypeStruct(shape, gradient.dtype)
    )
    return fold(patches)[0]


def _kernel_gradient(images, gradient, window, stride, padding):
    """Gradient of :func:`_output` by its kernel: `-> [k, k, C, F]`, a chunk of the batch at a
    time."""
    batch, channels, features = images.shape[0], images.shape[3], gradient.shape[3]
    patch_bytes = math.prod(gradient.shape[1:3]) * window**2 * channels * images.dtype.itemsize
    chunk = _largest_divisor(batch, max(1, _CACHED_BYTES // patch_bytes))

    def product(images, gradient):
        patches = _patches(images, window, stride, padding)
        return patches.reshape(-1, patches.shape[-1]).T @ gradient.reshape(-1, features)

    return _sum_over_chunks(product, images, gradient, chunk).reshape(
        window, window, channels, features
    )


def _sum_over_chunks(product: Callable, images, gradient, chunk):
    if chunk == images.shape[0]:
        return product(images, gradient)
    images, gradient = (x.reshape(-1, chunk, *x.shape[1:]) for x in (images, gradient))
    total = product(images[0], gradient[0])
    rest = (images[1:], gradient[1:])
    return lax.scan(lambda total, pair: (total + product(*pair), None), total, rest)[0]


def _patches(images, window, stride, padding):
    """`[B, H, W, C] -> [B, H', W', k k C]`: what each output pixel of a convolution sees."""
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
