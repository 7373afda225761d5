"""Counting compilations, and a program that compiles quickly to the same bits."""

import jax
import jax.numpy as jnp
import numpy as np

from tavaal_jax import compilation


def test_counts_programs_only_inside_the_with_statement():
    function = lambda x: jnp.sin(x) + 3
    with compilation.Count() as count:
        jax.jit(function)(np.float32(1)).block_until_ready()
    assert count.programs == 1
    assert count.from_cache == 0
    assert 0 < count.seconds < 60
    assert str(count).startswith("1 programs traced and compiled in ")
    jax.jit(lambda x: jnp.cos(x) + 4)(np.float32(1)).block_until_ready()
    assert count.programs == 1


def test_quickly_compiled_random_numbers_are_the_same():
    draw = lambda key: jax.random.normal(key, (1000,))
    key = jax.random.key(0)
    quick = jax.jit(draw, compiler_options=compilation.quickly())(key)
    default = jax.jit(draw, compiler_options={"xla_backend_optimization_level": "3"})(key)
    np.testing.assert_array_equal(quick, default)
