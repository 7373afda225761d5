"""Share of a machine that a trial on a Ray cluster has, and its settings of JAX."""

import os
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from tavaal_jax.engine import device_shares, memory


def resources(text: str) -> dict[str, float]:
    """Amounts by name of a text such as "GPU=1,CPU=4"; ValueError for another text."""
    parts = [part.partition("=") for part in text.split(",") if text]
    return {name.strip(): float(amount) for name, _, amount in parts}


def devices_of(config: ConfigDict) -> int:
    """Number of devices that a trial will have."""
    try:
        share = resources(config.ray.share)
    except ValueError:  # It is checked later.
        return 1
    return max(1, int(share.get("GPU", 1)), int(share.get("TPU", 1)))


def share_of(config: ConfigDict, nodes: Sequence[dict[str, float]]) -> dict[str, float]:
    """Share of a trial by Ray's names of resources; `nodes` are those of the machines."""
    given = resources(config.ray.share)
    if given:
        return given
    accelerators = ("GPU", "TPU") if jax.config.values["jax_platforms"] != "cpu" else ()
    return {next((n for n in accelerators if any(n in node for node in nodes)), "CPU"): 1.0}


def environment_of(share: dict[str, float], nodes: Sequence[dict[str, float]]) -> dict[str, str]:
    """Environment variables of a trial with that share."""
    found = device_shares.settings()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        found.pop("JAX_COMPILATION_CACHE_DIR", None)  # It is each user's, on each machine.
    if share.keys() & {"GPU", "TPU"}:
        fraction = share.get("GPU", 1)
        return found if fraction >= 1 else {
            **found, "XLA_PYTHON_CLIENT_MEM_FRACTION": str(0.9 * fraction)
        }  # fmt: skip
    cores = share.get("CPU", 1)
    most = max((node.get("CPU", 1) for node in nodes), default=1)
    # By NPROC XLA knows how many threads to have: a task is bound to no cores.
    found["JAX_PLATFORMS"] = "cpu"  # Ray may show such a task all devices of its machine.
    return {**found, "NPROC": str(max(1, int(cores))), memory.SHARED_BY: str(int(most // cores))}
