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
matrices' entries.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import matrix

# Of transformed tiles at a time: the batch is cut where it takes more. Under `vmap`, in scoring,
# the batch is one example and is not cut; `score_batch_size` bounds it there.
_MOST_BYTES = 512 * 2**20


class _Transform(NamedTuple):
    """The three matrices of F(2, r)."""

    kernel: tuple
    """G `[r + 1, r]`"""
    image: tuple
    """B^T `[r + 1, r + 1]`"""
    output: tuple
    """A^T `[2, r + 1]`"""


_TRANSFORMS = {
    2: _Transform(
        kernel=((1, 0), (1, 1), (0, 1)),
        image=((1, -1, 0), (0, 1, 0), (0, 1, -1)),
        output=((1, 1, 0), (0, 1, -1)),
    ),
    3: _Transform(
        kernel=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
        image=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        output=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
}


def covers(window: int, stride: int) -> bool:
    """Whether a window and stride can be written as 2x2 or 3x3 blocks."""
    return window in (2 * stride, 3 * stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`, see `convolution.conv`."""
    return _gather(images, _conv_places(kernel, stride), kernel.shape[0], stride, padding)


def _conv_forward(images, kernel, stride, padding):
    return conv(images, kernel, stride, padding), (images, kernel)


def _conv_backward(stride, padding, saved, gradient):
    images, kernel = saved
    window = kernel.shape[0]
    places = _transposed(_conv_places(kernel, stride))
    products = _products(images, gradient, window, stride, padding, images_first=True)
    return (
        _scatter(gradient, places, window, stride, padding, images.shape[1:3]),
        _untransformed(lambda k: _conv_places(k, stride), kernel, products),
    )


conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_transpose(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`, see `convolution.conv_transpose`."""
    window = kernel.shape[0]
    size = tuple((n - 1) * stride + window - 2 * padding for n in images.shape[1:3])
    return _scatter(images, _transpose_places(kernel, stride), window, stride, padding, size)


def _conv_transpose_forward(images, kernel, stride, padding):
    return conv_transpose(images, kernel, stride, padding), (images, kernel)


def _conv_transpose_backward(stride, padding, saved, gradient):
    images, kernel = saved
    window = kernel.shape[0]
    places = _transposed(_transpose_places(kernel, stride))
    products = _products(gradient, images, window, stride, padding, images_first=False)
    return (
        _gather(gradient, places, window, stride, padding),
        _untransformed(lambda k: _transpose_places(k, stride), kernel, products),
    )


conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


# The three products. Jitted, so that layers of one shape are traced once.


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _gather(images, places, window, stride, padding):
    """Output of a convolution with the kernel's places `[s s C, F]`.

    `[B, H, W, C] -> [B, H', W', F]`
    """
    taps = window // stride
    height, width = _output_size(images.shape[1:3], window, stride, padding)

    def part(blocks):
        tiles = _image_tiles(blocks, taps)
        products = [matrix.product(x, m) for x, m in zip(tiles, places, strict=True)]
        return _join_outputs(products, taps).astype(images.dtype)

    blocks = _blocks(images, window, stride, padding)
    return _in_parts(part, taps, blocks)[:, :height, :width]


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _scatter(gradient, places, window, stride, padding, size):
    """Input gradient of a convolution: places `[F, s s C]`, `[B, H', W', F] -> [B, H, W, C]`."""
    taps = window // stride

    def part(gradient):
        tiles = _gradient_tiles(gradient, taps)
        products = [matrix.product(x, m) for x, m in zip(tiles, places, strict=True)]
        return _join_blocks(products, taps).astype(gradient.dtype)

    blocks = _in_parts(part, taps, _even(gradient))
    channels = places[0].shape[1] // stride**2
    images = jax.ShapeDtypeStruct((gradient.shape[0], *size, channels), gradient.dtype)
    fold = jax.linear_transpose(lambda x: _blocks(x, window, stride, padding), images)
    return fold(blocks)[0]


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _products(images, gradient, window, stride, padding, images_first):
    """Kernel gradient: its places `[s s C, F]`, or `[F, s s C]`."""
    taps = window // stride

    def part(blocks, gradient):
        tiles = _image_tiles(blocks, taps), _gradient_tiles(gradient, taps)
        rows = lambda x: x.reshape(-1, x.shape[-1])
        first, second = tiles if images_first else tiles[::-1]
        return [matrix.product(rows(x).T, rows(y)) for x, y in zip(first, second, strict=True)]

    blocks = _blocks(images, window, stride, padding)
    return _summed_over_parts(part, taps, blocks, _even(gradient))


def _transposed(places):
    return [place.T for place in places]


# Transforms between images or kernels and the places of their tiles


def _combine(factors, values):
    """`factors` times the list `values`, of arrays or of lists, leaving out zeros."""
    if isinstance(values[0], list):
        columns = [_combine(factors, list(column)) for column in zip(*values, strict=True)]
        return [list(row) for row in zip(*columns, strict=True)]

    def weighted(row):
        terms = [(f, v) for f, v in zip(row, values, strict=True) if f]
        first, value = terms[0]
        total = value if first == 1 else first * value
        for factor, value in terms[1:]:
            term = value if abs(factor) == 1 else abs(factor) * value
            total = total + term if factor > 0 else total - term
        return total

    return [weighted(row) for row in factors]


def _both_axes(factors, rows):
    """`factors` times a square list of lists times its transpose, as one flat list."""
    return [x for row in _combine(factors, rows) for x in _combine(factors, row)]


def _as_factors(places, dtype):
    return [place.astype(matrix.factor_type(dtype)) for place in places]


def _square(places):
    side = math.isqrt(len(places))
    return [places[side * i : side * (i + 1)] for i in range(side)]


@functools.partial(jax.jit, static_argnums=1)
def _conv_places(kernel, stride):
    """G k G^T: `[k, k, C, F]` to `(r + 1)^2` matrices `[s s C, F]`."""
    window, _, channels, features = kernel.shape
    taps = window // stride
    blocks = kernel.reshape(taps, stride, taps, stride, channels, features).swapaxes(1, 2)
    return _kernel_places(blocks.reshape(taps, taps, -1, features))


@functools.partial(jax.jit, static_argnums=1)
def _transpose_places(kernel, stride):
    """G k G^T of a transposed convolution: `[k, k, C, F]` to matrices `[C, s s F]`."""
    window, _, channels, features = kernel.shape
    taps = window // stride
    blocks = kernel.reshape(taps, stride, taps, stride, channels, features)
    return _kernel_places(blocks.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, channels, -1))


def _kernel_places(kernel):
    taps = kernel.shape[0]
    rows = [[kernel[i, j].astype(jnp.float32) for j in range(taps)] for i in range(taps)]
    return _as_factors(_both_axes(_TRANSFORMS[taps].kernel, rows), kernel.dtype)


def _untransformed(places_of, kernel, products):
    """G^T m G: gradient of the kernel from that of its places."""
    as_float32 = jax.ShapeDtypeStruct(kernel.shape, jnp.float32)
    return jax.linear_transpose(places_of, as_float32)(products)[0].astype(kernel.dtype)


def _image_tiles(blocks, taps):
    """B^T x B: `[B, H', W', C]` to `(r + 1)^2` arrays `[B, H''/2, W''/2, C]`."""

    def along(x, axis):
        last = x.shape[axis] - taps
        return [lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(taps + 1)]

    rows = [along(row, 2) for row in along(blocks.astype(jnp.float32), 1)]
    return _as_factors(_both_axes(_TRANSFORMS[taps].image, rows), blocks.dtype)


def _gradient_tiles(gradient, taps):
    """A y' A^T: `[B, H', W', F]` to `(r + 1)^2` arrays `[B, H'/2, W'/2, F]`."""
    factors = tuple(zip(*_TRANSFORMS[taps].output, strict=True))
    y = gradient.astype(jnp.float32)
    rows = [[y[:, i::2, j::2] for j in range(2)] for i in range(2)]
    return _as_factors(_both_axes(factors, rows), gradient.dtype)


def _join_outputs(places, taps):
    """A^T m A: `(r + 1)^2` arrays `[B, H'/2, W'/2, F]` to `[B, H', W', F]`."""
    tiles = _both_axes(_TRANSFORMS[taps].output, _square(places))
    batch, height, width, features = tiles[0].shape
    rows = [jnp.stack(row, axis=3) for row in _square(tiles)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)


def _join_blocks(places, taps):
    """B m B^T, overlapping tiles added up: `(r + 1)^2` arrays to `[B, H, W, C]`."""
    factors = tuple(zip(*_TRANSFORMS[taps].image, strict=True))

    def along(places, axis):
        """Block 2 t + i of the result is part i of tile t plus part i + 2 of tile t - 1."""
        pad = lambda x, low, high: jnp.pad(
            x, [(low, high) if a == axis else (0, 0) for a in range(4)]
        )
        places = _combine(factors, places)
        parts = [pad(x, 0, 1) for x in places[:2]]
        for i, x in enumerate(places[2:]):
            parts[i] = parts[i] + pad(x, 1, 0)
        shape = list(parts[0].shape)
        shape[axis] *= 2
        joined = jnp.stack(parts, axis + 1).reshape(shape)
        return lax.slice_in_dim(joined, 0, shape[axis] - len(places) % 2, 1, axis)

    return along([along(row, 2) for row in _square(places)], 1)


# Blocks of pixels


def _output_size(size, window, stride, padding):
    return tuple((n + 2 * padding - window) // stride + 1 for n in size)


def _even(images):
    """Zeros added below and right to an even height and width."""
    return jnp.pad(images, ((0, 0), (0, images.shape[1] % 2), (0, images.shape[2] % 2), (0, 0)))


def _blocks(images, window, stride, padding):
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


def _part_size(taps, arrays):
    """Largest divisor of the batch whose tiles take at most `_MOST_BYTES`."""
    batch = arrays[0].shape[0]
    bytes_of_one = sum(
        math.prod(x.shape[1:]) * matrix.factor_type(x.dtype).itemsize for x in arrays
    )
    limit = max(1, int(_MOST_BYTES / (bytes_of_one * (taps + 1) ** 2 / 4)))
    return next(n for n in range(min(batch, limit), 0, -1) if batch % n == 0)


def _in_parts(function, taps, images):
    size = _part_size(taps, (images,))
    if size == images.shape[0]:
        return function(images)
    out = lax.map(function, images.reshape(-1, size, *images.shape[1:]))
    return out.reshape(-1, *out.shape[2:])


def _summed_over_parts(function, taps, *arrays):
    size = _part_size(taps, arrays)
    if size == arrays[0].shape[0]:
        return function(*arrays)
    parts = tuple(x.reshape(-1, size, *x.shape[1:]) for x in arrays)
    first = function(*(x[0] for x in parts))
    add = lambda total, part: (jax.tree.map(jnp.add, total, function(*part)), None)
    return lax.scan(add, first, tuple(x[1:] for x in parts))[0]
