"""Matrix products on a CPU, with float32 sums whatever the type of the factors."""

import functools
import pathlib

import jax
import jax.numpy as jnp


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Product `[..., n, k], [k, m] -> [..., n, m]` in float32."""
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def factor_type(dtype: jnp.dtype) -> jnp.dtype:
    """Type in which this CPU multiplies `dtype` fastest.

    float32 for bfloat16 where there are no instructions for it: XLA's products of bfloat16 take
    twice as long there. Factors are then not rounded to bfloat16, so no accuracy is lost.
    """
    return jnp.dtype(jnp.float32) if not _multiplies_bfloat16() else dtype


@functools.cache
def _multiplies_bfloat16() -> bool:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text("utf-8", "replace")
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
