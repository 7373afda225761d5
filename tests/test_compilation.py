"""Counting compilations, and initial weights that compile quickly to the same bits."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ON_CPU, ROOT

from tavaal_jax import compilation

# In a process of its own: the tests' own flags change what is compared here.
SAME_WEIGHTS = """
import jax, numpy as np
from configs import digits
from tavaal_jax import compilation, parallel, programs
from tavaal_jax.data import load
from tavaal_jax.methods import METHODS
dataset = load(digits.get_config())
data = parallel.place(dataset.on_device())
run = programs.prepare(digits.get_config(), METHODS["tavaal"], dataset, data)
init = programs._bind(programs._init_networks, run)
draw = lambda options: jax.jit(init, compiler_options=options)(run.train, jax.random.key(0), 0)
assert compilation.quickly()
jax.tree.map(np.testing.assert_array_equal, draw(compilation.quickly()), draw({}))
"""


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


@pytest.mark.skipif(not ON_CPU, reason="LLVM's levels are the CPU's")
def test_quickly_compiled_initial_weights_are_the_same():
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-c", SAME_WEIGHTS]
    assert subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode == 0
