"""Matrix products on a CPU, with float32 sums whatever the type of the factors."""

import functools
import pathlib

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Product `[..., n, k], [k, m] -> [..., n, m]` in float32."""
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def contracted(x: jax.Array, y: jax.Array) -> jax.Array:
    """Product `x^T y` of `[n, k], [n, m] -> [k, m]` in float32.

    XLA multiplies bfloat16 only where both factors lie in rows, and converts them to float32 where
    one is a transpose. So the smaller factor is transposed in memory first, and the barrier keeps
    XLA from making the product one of transposes again.
    """
    if x.dtype != jnp.bfloat16:
        return product(x.T, y)
    if x.shape[1] > y.shape[1]:
        return contracted(y, x).T
    in_rows = with_layout_constraint(x.T, Layout(major_to_minor=(0, 1)))
    out: jax.Array = lax.optimization_barrier(product(in_rows, y))
    return out


def factor_type(dtype: jnp.dtype) -> jnp.dtype:
    """Type in which this CPU multiplies `dtype` fastest.

    float32 for bfloat16 where there are no instructions for it: XLA's products of bfloat16 take
    twice as long there. Factors are then not rounded to bfloat16, so no accuracy is lost.
    """
    return jnp.dtype(jnp.float32) if not _multiplies_bfloat16() else dtype


def is_bfloat16(dtype: jnp.dtype) -> bool:
    """Whether factors of `dtype` are multiplied in bfloat16 here."""
    return factor_type(dtype) == jnp.bfloat16


@functools.cache
def _multiplies_bfloat16() -> bool:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text("utf-8", "replace")
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
