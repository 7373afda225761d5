"""Counting compilations, and initial weights that compile quickly to the same bits."""

import os
import pathlib
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ON_CPU, ROOT

from tavaal_jax.engine import compilation

# In a process of its own: the tests' own flags change what is compared here.
SAME_WEIGHTS = """
import functools, jax, numpy as np
from configs import digits
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.engine import compilation, components, programs
shape, problem = (8, 8, 1), Classification(10)
made = components.build(digits.get_config(), METHODS["tavaal"], shape, problem)
init = functools.partial(programs._init, made, shape)
draw = lambda options: jax.jit(init, compiler_options=options)(jax.random.key(0), 0)
assert compilation.quick_options()
quick, usual = draw(compilation.quick_options()), draw({})
jax.tree.map(np.testing.assert_array_equal, quick, usual)
built = programs.build(digits.get_config(), METHODS["tavaal"], shape, problem)
jax.tree.map(np.testing.assert_array_equal, built.init(jax.random.key(0), 0), usual)
assert quick[1] is not None
"""


@pytest.mark.skipif(not ON_CPU, reason="it is the CPU's programs that compile quickly")
def test_a_level_that_a_user_names_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert not compilation.quick_options()
    monkeypatch.delenv("XLA_FLAGS")
    assert compilation.quick_options() == {"xla_backend_optimization_level": "1"}


def test_counts_programs_only_inside_the_with_statement():
    salt = time.time_ns() % 10**6  # In no cache of an earlier run.
    function = lambda x: jnp.sin(x) + salt
    with compilation.Count() as count:
        jax.jit(function)(np.float32(1)).block_until_ready()
    assert count.programs == 1
    assert count.from_cache == 0
    assert 0 < count.seconds < 60
    assert str(count).startswith("1 programs traced and compiled in ")
    jax.jit(lambda x: jnp.cos(x) + 4)(np.float32(1)).block_until_ready()
    assert count.programs == 1


@pytest.fixture
def cache_folder():
    """Puts back JAX's settings of its cache."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    yield names[0]
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_folder(cache_folder, tmp_path):
    jax.config.update(cache_folder, None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)  # JAX's own.
    compilation.keep_in_cache(str(tmp_path / "ours"))
    assert jax.config.values[cache_folder] == str(tmp_path / "ours")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0


def test_another_place_that_jax_was_told_of_stays(cache_folder, tmp_path):
    jax.config.update(cache_folder, str(tmp_path / "theirs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 3)
    compilation.keep_in_cache(str(tmp_path / "ours"))
    assert jax.config.values[cache_folder] == str(tmp_path / "theirs")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 3


@pytest.mark.slow
@pytest.mark.skipif(not ON_CPU, reason="LLVM's levels are the CPU's")
def test_quickly_compiled_initial_weights_are_the_same():
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-c", SAME_WEIGHTS]
    assert subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_programs_make_room_where_they_fill_the_memory_maps():
    if not pathlib.Path("/proc/self/maps").exists():
        pytest.skip("only Linux tells")
    traced = []

    @jax.jit
    @chex.assert_max_traces(n=1)
    def function(x):
        traced.append(x)
        return x + 1

    assert function(1) == function(1) == 2
    assert not compilation.make_room(most=1.0)
    assert function(1) == 2
    assert len(traced) == 1
    assert compilation.make_room(most=0.0)
    assert function(1) == 2
    assert len(traced) == 2
