"""Four CPU devices, strict JAX, and what several test files need."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).parent.parent
# A study of seconds: two stages of everything, few compilations.
TINY = (
    "--config.epochs=2",
    "--config.cycles=2",
    "--config.task.widths=(4,)",
    "--config.task.blocks=(1,)",
    "--config.vae.widths=(4,)",
    "--config.discriminator.hidden=(4,)",
)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A cache of compiled programs that the session's processes share."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def command(compiled):
    """`(config, workdir, *flags, devices) -> argv, environment` of the real command line."""

    def build(config, workdir, *flags, devices=1):
        argv = [sys.executable, "-m", "tavaal_jax.main", f"--config=configs/{config}.py"]
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return [*argv, f"--workdir={workdir}", *flags], environment

    return build


@pytest.fixture(scope="session")
def run_main(command):
    """Runs the command line in a process of its own to its end."""

    def run(config, workdir, *flags, devices=1):
        argv, environment = command(config, workdir, *flags, devices=devices)
        return subprocess.run(
            argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def rng():
    return np.random.default_rng(0)
