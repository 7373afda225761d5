"""Settings of JAX from outside: held to, handed on, refused."""

import os
import subprocess
import sys

import jax
import pytest
from conftest import ROOT

from tavaal_jax import config as configs
from tavaal_jax import jax_settings, run_study
from tavaal_jax.engine import devices
from tavaal_jax.errors import UserError
from tavaal_jax.report import files

CHANGES = {
    "jax_enable_x64": lambda: jax.enable_x64(True),
    "jax_default_prng_impl": lambda: jax.default_prng_impl("rbg"),
    "jax_threefry_partitionable": lambda: jax.threefry_partitionable(False),
    "jax_default_matmul_precision": lambda: jax.default_matmul_precision("bfloat16"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_study_is_not_continued_with_other_numbers(name, tmp_path):
    config = configs.default()
    files.write_config(tmp_path, config)
    files.check_config(tmp_path, config)
    with CHANGES[name](), pytest.raises(UserError, match=rf"{name} \(.* -> .*\); give the old val"):
        files.check_config(tmp_path, config)
    files.check_config(tmp_path, config)


def test_flags_of_xla_that_change_numbers_count(tmp_path, monkeypatch):
    files.write_config(tmp_path, configs.default())
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1 --xla_gpu_deterministic_ops=true")
    with pytest.raises(UserError, match=r"xla_flags \(\[\] -> \['--xla_gpu_deterministic_ops=tr"):
        files.check_config(tmp_path, configs.default())


def test_a_workdir_of_an_older_version_goes_on():
    record = files.running(configs.default())
    del record["jax"]
    with jax.enable_x64(True):
        assert files.changed_keys(record, configs.default()) == []


def test_workers_get_all_of_them():
    with jax.default_prng_impl("rbg"), jax.enable_x64(True):
        environment = jax_settings.environment()
    assert environment["JAX_DEFAULT_PRNG_IMPL"] == "rbg"
    assert environment["JAX_ENABLE_X64"] == "True"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (jax.disable_jit, "jax_disable_jit is set .JAX_DISABLE_JIT., and all that"),
        (lambda: jax.transfer_guard("disallow"), "jax_transfer_guard is disallow .JAX_TR"),
        (lambda: jax.transfer_guard_device_to_host("disallow"), "guard_device_to_host is disallow"),
    ],
)
def test_settings_to_debug_by_are_refused_in_one_line(change, says, tmp_path):
    with change():
        for call in (devices.device_count, lambda: run_study(configs.default(), tmp_path)):
            with pytest.raises(UserError, match=says) as error:
                call()
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line(platform, tmp_path):
    argv = [sys.executable, "-m", "tavaal_jax.main", "--config=smoke", f"--workdir={tmp_path}/w"]
    environment = {**os.environ, "JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        argv, env=environment, cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: JAX_PLATFORMS is {platform}, and JAX finds no such dev")
    assert len(done.stderr.splitlines()) == 1
