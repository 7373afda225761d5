"""Division of a machine among independent processes: a device each, or some of its cores."""

import os
import subprocess
import sys
from typing import NamedTuple

import jax

from tavaal_jax.engine import memory
from tavaal_jax.errors import UserError

_PROBE = """
import jax
devices = jax.local_devices()
chips = {getattr(device, "coords", None) or device.id for device in devices}
print(devices[0].platform, len(devices), len({str(chip) for chip in chips}))
"""
_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "gpu": "CUDA_VISIBLE_DEVICES",
            "rocm": "ROCR_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}  # fmt: skip
_ONE_CHIP = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
_KEPT = (
    "jax_platforms", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
    "jax_default_matmul_precision", "jax_enable_x64", "jax_default_prng_impl",
    "jax_threefry_partitionable",
)  # fmt: skip


class Share(NamedTuple):
    """A process's share of the machine."""

    environment: dict[str, str]
    """All environment variables of the process."""
    cores: frozenset[int]
    """CPU cores that it may run on; empty: any."""


def divide_machine(count: int = 0) -> list[Share]:
    """Shares of one device each, or of a CPU's cores; `count` 0: as many as there are of those.

    A process of its own finds the devices, so that this one takes no memory of theirs. Raises
    UserError for more shares than there are accelerators.
    """
    environment = {**os.environ, **_settings()}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    usual = environment.get("XLA_FLAGS", "").split()
    count_of_cpu = "--xla_force_host_platform_device_count"
    environment["XLA_FLAGS"] = " ".join(f for f in usual if not f.startswith(count_of_cpu))
    platform, found, chips = _probe(environment)
    if platform == "cpu":
        cores = _cores(count)
        environment[memory.SHARED_BY] = str(len(cores))
        return [Share(environment, of_one) for of_one in cores]
    if platform not in _VISIBLE or chips < found:
        raise UserError(
            f"parallel is 'trials', and a process cannot be given one of {found} {platform}"
            f" devices on {chips} chips: give 'devices'"
        )
    if count > found:
        raise UserError(f"workers is {count}, and there are {found} devices: give at most those")
    name = _VISIBLE[platform]
    visible = [number for number in environment.get(name, "").split(",") if number]
    visible = visible or list(map(str, range(found)))
    alone = _ONE_CHIP if platform == "tpu" else {}
    return [
        Share({**environment, **alone, name: number}, frozenset())
        for number in visible[: count or found]
    ]


def _probe(environment: dict[str, str]) -> tuple[str, int, int]:
    """Platform, devices and chips of this machine."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1, 1
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"JAX finds no device for worker processes ({reason}): see to its install")
    platform, found, chips = done.stdout.split()[-3:]
    return platform, int(found), int(chips)


def _settings() -> dict[str, str]:
    """JAX's settings in this process as environment variables for another one."""
    values = {name: jax.config.values.get(name) for name in _KEPT}
    return {name.upper(): str(value) for name, value in values.items() if value is not None}


def _cores(count: int) -> list[frozenset[int]]:
    """CPU cores in `count` parts, 0: one each; with fewer cores than parts they are shared."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * (count or os.cpu_count() or 1)
    cores = sorted(os.sched_getaffinity(0))
    count = count or len(cores)
    if count >= len(cores):
        return [frozenset({cores[i % len(cores)]}) for i in range(count)]
    return [frozenset(cores[i::count]) for i in range(count)]
