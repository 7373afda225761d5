"""Winograd's transforms between images or kernels and the places of their tiles.

See `winograd` for the letters. A transformed tile is a list of (r + 1)^2 places, an array each.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.ops import matrix

Places = list[jax.Array]
"""One array for each of the (r + 1)^2 places of a tile."""
_Factors = tuple[tuple[float, ...], ...]


class _Transform(NamedTuple):
    """The three matrices of F(2, r)."""

    kernel: _Factors
    """G `[r + 1, r]`"""
    image: _Factors
    """B^T `[r + 1, r + 1]`"""
    output: _Factors
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


def _combine(factors: _Factors, values: Places) -> Places:
    """Products of a matrix `factors` and the column `values`, leaving out zeros."""

    def weighted(row: tuple[float, ...]) -> jax.Array:
        terms = [(f, v) for f, v in zip(row, values, strict=True) if f]
        first, value = terms[0]
        total = value if first == 1 else first * value
        for factor, value in terms[1:]:
            term = value if abs(factor) == 1 else abs(factor) * value
            total = total + term if factor > 0 else total - term
        return total

    return [weighted(row) for row in factors]


def _both_axes(factors: _Factors, rows: list[Places]) -> Places:
    """Product of `factors`, a square list of lists and the transpose of `factors`, flattened."""
    return [x for row in _combine_rows(factors, rows) for x in _combine(factors, row)]


def _combine_rows(factors: _Factors, rows: list[Places]) -> list[Places]:
    """Product of `factors` and a list of rows."""
    columns = [_combine(factors, list(column)) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _as_factors(places: Places, dtype: jnp.dtype) -> Places:
    return [place.astype(matrix.factor_type(dtype)) for place in places]


def _square(places: Places) -> list[Places]:
    side = math.isqrt(len(places))
    return [places[side * i : side * (i + 1)] for i in range(side)]


@functools.partial(jax.jit, static_argnums=1)
def conv_places(kernel: jax.Array, stride: int) -> Places:
    """Transform G k G^T of a kernel: `[k, k, C, F]` to `(r + 1)^2` matrices `[s s C, F]`."""
    window, _, channels, features = kernel.shape
    taps = window // stride
    blocks = kernel.reshape(taps, stride, taps, stride, channels, features).swapaxes(1, 2)
    return _kernel_places(blocks.reshape(taps, taps, -1, features))


@functools.partial(jax.jit, static_argnums=1)
def transpose_places(kernel: jax.Array, stride: int) -> Places:
    """Transform G k G^T of a transposed convolution: `[k, k, C, F]` to matrices `[C, s s F]`."""
    window, _, channels, features = kernel.shape
    taps = window // stride
    blocks = kernel.reshape(taps, stride, taps, stride, channels, features)
    return _kernel_places(blocks.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, channels, -1))


def _kernel_places(kernel: jax.Array) -> Places:
    taps = kernel.shape[0]
    rows = [[kernel[i, j].astype(jnp.float32) for j in range(taps)] for i in range(taps)]
    return _as_factors(_both_axes(_TRANSFORMS[taps].kernel, rows), kernel.dtype)


def untransformed(
    places_of: Callable[[jax.Array], Places], kernel: jax.Array, products: Places
) -> jax.Array:
    """Gradient G^T m G of the kernel from that of its places."""
    as_float32 = jax.ShapeDtypeStruct(kernel.shape, jnp.float32)
    gradient: jax.Array = jax.linear_transpose(places_of, as_float32)(products)[0]
    return gradient.astype(kernel.dtype)


def image_tiles(blocks: jax.Array, taps: int) -> Places:
    """Tiles B^T x B of images: `[B, H', W', C]` to (r + 1)^2 arrays `[B, H''/2, W''/2, C]`."""

    def along(x: jax.Array, axis: int) -> Places:
        last = x.shape[axis] - taps
        return [lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(taps + 1)]

    rows = [along(row, 2) for row in along(blocks.astype(jnp.float32), 1)]
    return _as_factors(_both_axes(_TRANSFORMS[taps].image, rows), blocks.dtype)


def gradient_tiles(gradient: jax.Array, taps: int) -> Places:
    """Tiles A y' A^T of gradients: `[B, H', W', F]` to (r + 1)^2 arrays `[B, H'/2, W'/2, F]`."""
    factors = tuple(zip(*_TRANSFORMS[taps].output, strict=True))
    y = gradient.astype(jnp.float32)
    rows = [[y[:, i::2, j::2] for j in range(2)] for i in range(2)]
    return _as_factors(_both_axes(factors, rows), gradient.dtype)


def join_outputs(places: Places, taps: int) -> jax.Array:
    """Outputs A^T m A: `(r + 1)^2` arrays `[B, H'/2, W'/2, F]` to `[B, H', W', F]`."""
    tiles = _both_axes(_TRANSFORMS[taps].output, _square(places))
    batch, height, width, features = tiles[0].shape
    rows = [jnp.stack(row, axis=3) for row in _square(tiles)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)


def join_blocks(places: Places, taps: int) -> jax.Array:
    """Blocks B m B^T, overlapping tiles added up: `(r + 1)^2` arrays to `[B, H, W, C]`."""
    factors = tuple(zip(*_TRANSFORMS[taps].image, strict=True))

    def along(places: Places, axis: int) -> jax.Array:
        """Adds part i of tile t and part i + 2 of tile t - 1 to block 2 t + i."""
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
