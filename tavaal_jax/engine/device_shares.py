"""Division of a machine among independent processes: a device each, or some of its cores."""

import os
import subprocess
import sys
from typing import NamedTuple

from tavaal_jax import jax_settings
from tavaal_jax.engine import container, memory
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
    environment = {**os.environ, **settings()}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
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


def settings() -> dict[str, str]:
    """Environment variables by which a process with one device gets this one's settings of JAX."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    count_of_cpu = "--xla_force_host_platform_device_count"
    kept = " ".join(flag for flag in flags if not flag.startswith(count_of_cpu))
    return {**jax_settings.environment(), "XLA_FLAGS": kept}


def _probe(environment: dict[str, str]) -> tuple[str, int, int]:
    """Platform, devices and chips of this machine."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1, 1
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, encoding="utf-8",
        errors="replace", check=False, env=environment,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"JAX finds no device for worker processes ({reason}): see to its install")
    platform, found, chips = done.stdout.split()[-3:]
    return platform, int(found), int(chips)


def _cores(count: int) -> list[frozenset[int]]:
    """CPU cores in `count` parts, 0: one each; with fewer cores than parts they are shared."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * (count or os.cpu_count() or 1)
    cores = sorted(os.sched_getaffinity(0))
    count = count or min(len(cores), container.cpus() or len(cores))
    if count >= len(cores):
        return [frozenset({cores[i % len(cores)]}) for i in range(count)]
    return [frozenset(cores[i::count]) for i in range(count)]
