"""Convolutions with fewer multiplications: Winograd's minimal filtering F(2x2, r x r), r = 2 or 3.

"Fast algorithms for convolutional neural networks" (Lavin and Gray, arXiv:1509.09308). Two outputs
of a filter with r taps need r + 1 products instead of 2 r; in two dimensions that is 9 instead of
16 for r = 2 and 16 instead of 36 for r = 3. With two outputs to a tile all constants are 0, 1, -1
and 1/2, so the result is that of a direct convolution to rounding. A window of r s pixels with
stride s is a window of r blocks of s x s pixels, whose pixels count as channels.

A convolution is three products of matrices, one matrix for each of the (r + 1)^2 places of a tile:

    output           y = A^T [(G k G^T) * (B^T x B)] A       over tiles x of (r + 1)^2 blocks
    input gradient   x' = B [(G k G^T) * (A y' A^T)] B^T     where tiles overlap, they add up
    kernel gradient  k' = G^T [(B^T x B) * (A y' A^T)] G     summed over tiles

where * multiplies the channels of a place as matrices. A transposed convolution is the same three
with their roles exchanged. Tiles are transformed and summed in float32, whatever the type of the
matrices' entries. At stride 1, where bfloat16 is multiplied as such, `patches` computes the kernel
gradient: transposing the places for its products would take longer than they do.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import matrix, parts, patches
from tavaal_jax.ops.tiles import (
    Places,
    conv_places,
    gradient_tiles,
    image_tiles,
    join_blocks,
    join_outputs,
    transpose_places,
    untransformed,
)

# Transformed tiles at a time: a batch that takes more is cut. Under `vmap`, in scoring, the batch
# is one example and is not cut; `score_batch_size` bounds it there.
_MOST_BYTES = 512 * 2**20
# The same of bfloat16 factors: about what a core's cache holds.
_CACHED_BYTES = 2 * 2**20


_Saved = tuple[jax.Array, jax.Array]
"""Images and kernel, kept for the gradients."""


def covers(window: int, stride: int) -> bool:
    """Whether a window and stride can be written as 2x2 or 3x3 blocks."""
    return window in (2 * stride, 3 * stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`, see `convolution.conv`."""
    return _gather(images, conv_places(kernel, stride), kernel.shape[0], stride, padding)


def _conv_forward(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, _Saved]:
    return conv(images, kernel, stride, padding), (images, kernel)


def _conv_backward(
    stride: int, padding: int, saved: _Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    window = kernel.shape[0]
    if stride == 1 and matrix.is_bfloat16(images.dtype):
        flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)  # a convolution: no tiles to add up
        places = conv_places(flipped, 1)
        return (
            _gather(gradient, places, window, 1, window - 1 - padding),
            patches.kernel_gradient(images, gradient, window, stride, padding),
        )
    places = _transposed(conv_places(kernel, stride))
    products = _products(images, gradient, window, stride, padding, images_first=True)
    return (
        _scatter(gradient, places, window, stride, padding, images.shape[1:3]),
        untransformed(lambda k: conv_places(k, stride), kernel, products),
    )


conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_transpose(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Transpose `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]` of `conv`, see `convolution`."""
    window = kernel.shape[0]
    size = tuple((n - 1) * stride + window - 2 * padding for n in images.shape[1:3])
    return _scatter(images, transpose_places(kernel, stride), window, stride, padding, size)


def _conv_transpose_forward(
    images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, _Saved]:
    return conv_transpose(images, kernel, stride, padding), (images, kernel)


def _conv_transpose_backward(
    stride: int, padding: int, saved: _Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    window = kernel.shape[0]
    places = _transposed(transpose_places(kernel, stride))
    products = _products(gradient, images, window, stride, padding, images_first=False)
    return (
        _gather(gradient, places, window, stride, padding),
        untransformed(lambda k: transpose_places(k, stride), kernel, products),
    )


conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


# The three products. Jitted, so that layers of one shape are traced once.


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _gather(images: jax.Array, places: Places, window: int, stride: int, padding: int) -> jax.Array:
    """Output of a convolution with the kernel's places `[s s C, F]`.

    `[B, H, W, C] -> [B, H', W', F]`
    """
    taps = window // stride
    height, width = _output_size(images.shape[1:3], window, stride, padding)

    def part(images: jax.Array) -> jax.Array:
        tiles = image_tiles(_blocks(images, window, stride, padding), taps)
        products = [matrix.product(x, m) for x, m in zip(tiles, places, strict=True)]
        return join_outputs(products, taps).astype(images.dtype)[:, :height, :width]

    return parts.mapped(part, _part_size(taps, stride, [images]), images)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _scatter(
    gradient: jax.Array,
    places: Places,
    window: int,
    stride: int,
    padding: int,
    size: tuple[int, ...],
) -> jax.Array:
    """Input gradient of a convolution: places `[F, s s C]`, `[B, H', W', F] -> [B, H, W, C]`."""
    taps = window // stride
    channels = places[0].shape[1] // stride**2

    def part(gradient: jax.Array) -> jax.Array:
        tiles = gradient_tiles(_even(gradient), taps)
        products = [matrix.product(x, m) for x, m in zip(tiles, places, strict=True)]
        blocks = join_blocks(products, taps).astype(gradient.dtype)
        images = jax.ShapeDtypeStruct((gradient.shape[0], *size, channels), gradient.dtype)
        fold = jax.linear_transpose(lambda x: _blocks(x, window, stride, padding), images)
        folded: jax.Array = fold(blocks)[0]
        return folded

    return parts.mapped(part, _part_size(taps, stride, [gradient]), gradient)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _products(
    images: jax.Array,
    gradient: jax.Array,
    window: int,
    stride: int,
    padding: int,
    images_first: bool,
) -> Places:
    """Kernel gradient: its places `[s s C, F]`, or `[F, s s C]`."""
    taps = window // stride

    def part(images: jax.Array, gradient: jax.Array) -> Places:
        blocks = _blocks(images, window, stride, padding)
        tiles = image_tiles(blocks, taps), gradient_tiles(_even(gradient), taps)
        rows = lambda x: x.reshape(-1, x.shape[-1])
        first, second = tiles if images_first else tiles[::-1]
        return [matrix.product(rows(x).T, rows(y)) for x, y in zip(first, second, strict=True)]

    return parts.summed(part, _part_size(taps, stride, [images, gradient]), images, gradient)


def _transposed(places: Places) -> Places:
    return [place.T for place in places]


# Blocks of pixels


def _output_size(size: tuple[int, ...], window: int, stride: int, padding: int) -> tuple[int, ...]:
    return tuple((n + 2 * padding - window) // stride + 1 for n in size)


def _even(images: jax.Array) -> jax.Array:
    """Zeros added below and right to an even height and width."""
    return jnp.pad(images, ((0, 0), (0, images.shape[1] % 2), (0, images.shape[2] % 2), (0, 0)))


def _blocks(images: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Padded images as blocks of stride x stride pixels, enough for an even number of outputs.

    `[B, H, W, C] -> [B, H'', W'', stride stride C]`
    """
    size = images.shape[1:3]
    counts = [
        outputs + outputs % 2 + window // stride - 1
        for outputs in _output_size(size, window, stride, padding)
    ]
    pads = [(padding, c * stride - n - padding, 0) for n, c in zip(size, counts, strict=True)]
    # A negative pad cuts off what the last window does not reach.
    images = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    if stride == 1:
        return images
    batch, _, _, channels = images.shape
    height, width = counts
    blocks = images.reshape(batch, height, stride, width, stride, channels)
    return blocks.swapaxes(2, 3).reshape(batch, height, width, stride**2 * channels)


# Parts of the batch


def _part_size(taps: int, stride: int, arrays: Sequence[jax.Array]) -> int:
    """Largest divisor of the batch whose tiles take at most as many bytes as may be."""
    batch = arrays[0].shape[0]
    bytes_of_one = sum(
        math.prod(x.shape[1:]) * matrix.factor_type(x.dtype).itemsize for x in arrays
    )
    cached = stride == 1 and matrix.is_bfloat16(arrays[0].dtype)
    most = _CACHED_BYTES if cached else _MOST_BYTES
    return parts.largest_divisor(batch, int(most / (bytes_of_one * (taps + 1) ** 2 / 4)))
