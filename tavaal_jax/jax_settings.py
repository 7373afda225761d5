"""JAX's settings from outside, by environment or `jax.config`: held to, handed on, refused."""

import os

import jax

from tavaal_jax.errors import UserError

_NUMBERS = (
    "jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable",
    "jax_default_matmul_precision", "jax_random_seed_offset",
)  # fmt: skip
_OTHERS = (
    "jax_platforms", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
)  # fmt: skip
_FLAGS = ("deterministic", "fast_m")
"""Parts of the names of XLA's flags by which numbers change."""
_GUARDS = ("host_to_device", "device_to_device", "device_to_host")


def _setting(name: str) -> object:
    """A setting's value now, also within one of JAX's contexts; None where this JAX has none."""
    return getattr(jax.config, name, None)


def of_numbers() -> dict[str, object]:
    """The settings by which numbers change, for config.json."""
    found: dict[str, object] = {name: _setting(name) for name in _NUMBERS}
    flags = os.environ.get("XLA_FLAGS", "").split()
    found["xla_flags"] = sorted(flag for flag in flags if any(part in flag for part in _FLAGS))
    return found


def differences(before: dict[str, object]) -> list[str]:
    """Settings by which numbers change and that were others `before`, as text."""
    now = of_numbers()
    return [
        f"{name} ({before[name]} -> {now[name]})"
        for name in now
        if name in before and before[name] != now[name]
    ]


def environment() -> dict[str, str]:
    """All settings that another process needs, as its environment variables."""
    values = {name: _setting(name) for name in (*_NUMBERS, *_OTHERS)}
    return {name.upper(): str(value) for name, value in values.items() if value is not None}


def check() -> None:
    """Raises UserError for settings to debug by, with which no study runs."""
    if _setting("jax_disable_jit"):
        raise UserError(
            "jax_disable_jit is set (JAX_DISABLE_JIT), and all that trains here is compiled: unset"
            " it"
        )
    for name in ("jax_transfer_guard", *(f"jax_transfer_guard_{one}" for one in _GUARDS)):
        value = _setting(name)
        if value in ("disallow", "disallow_explicit"):
            raise UserError(
                f"{name} is {value} ({name.upper()}), and examples and numbers are moved to and"
                " from the devices here: unset it, or give log"
            )


def check_devices() -> None:
    """Finds the devices; raises UserError where JAX has none of the asked kind."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        asked = _setting("jax_platforms")
        if not asked:
            raise UserError(f"JAX finds no device ({reason}): see to its install") from error
        raise UserError(
            f"JAX_PLATFORMS is {asked}, and JAX finds no such device ({reason}): install JAX for"
            " it, such as jax[cuda12], or unset it"
        ) from error
