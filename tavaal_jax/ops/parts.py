"""A batch worked on in parts, in a loop on the device.

XLA's CPU backend widens bfloat16 arrays that a loop is given, or that are joined, to float32, twice
the memory traffic; so they enter and leave the loop as integers of the same bits.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

_Sums = TypeVar("_Sums", jax.Array, list[jax.Array])


def largest_divisor(batch: int, limit: int) -> int:
    """The largest part of at most `limit` examples (at least one) that divides the batch."""
    return next(n for n in range(max(1, min(batch, limit)), 0, -1) if batch % n == 0)


def mapped(function: Callable[[jax.Array], jax.Array], size: int, images: jax.Array) -> jax.Array:
    """Results `[B, ...]` of parts of `size` examples each, joined."""
    if size == images.shape[0]:
        return function(images)
    out: jax.Array = lax.map(
        lambda part: bits(function(values(part, images.dtype))), _split(images, size)
    )
    return values(out.reshape(-1, *out.shape[2:]), images.dtype)


def summed(function: Callable[..., _Sums], size: int, *arrays: jax.Array) -> _Sums:
    """Sum of the float32 results of parts of `size` examples each."""
    if size == arrays[0].shape[0]:
        return function(*arrays)
    parts = [_split(x, size) for x in arrays]

    def of(parts: list[jax.Array]) -> _Sums:
        return function(*(values(p, x.dtype) for p, x in zip(parts, arrays, strict=True)))

    first = of([x[0] for x in parts])
    add = lambda total, part: (jax.tree.map(jnp.add, total, of(part)), None)
    return lax.scan(add, first, [x[1:] for x in parts])[0]


def _split(x: jax.Array, size: int) -> jax.Array:
    return bits(x).reshape(-1, size, *x.shape[1:])


def bits(x: jax.Array) -> jax.Array:
    """bfloat16 as integers, for XLA to move without widening; other types as they are."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def values(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Numbers of `dtype` again from :func:`bits`."""
    return lax.bitcast_convert_type(x, dtype) if x.dtype != dtype else x
