"""Compilation: its cache in the user's folder, its options, and how many programs it took."""

import os
import pathlib

import chex
import jax

from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LEAST, _USUAL_LEAST = "jax_persistent_cache_min_compile_time_secs", 1.0
_FROM_CACHE = "/jax/compilation_cache/cache_hits"
_PREPARED = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)


def keep_in_cache(folder: str = "~/.cache/tavaal_jax/compiled") -> str | None:
    """Keeps compiled programs in a folder, unless JAX's own configuration names another one.

    Returns why they are not kept where there is no home directory, else None.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        try:
            path = user_path(folder, "the cache of compiled programs")
        except UserError:
            return (
                "compiled programs are not kept, as there is no home directory: name a folder in"
                " JAX_COMPILATION_CACHE_DIR"
            )
        jax.config.update("jax_compilation_cache_dir", str(path))
    if jax.config.values[_LEAST] == _USUAL_LEAST:
        jax.config.update(_LEAST, 0.0)  # Reading a small program takes a tenth of compiling it.
    return None


def quick_options() -> dict[str, str]:
    """`compiler_options` for a program that takes longer to compile than to run, once.

    LLVM's first level compiles the random numbers of all weights in a third of the time, to the
    same bits. A level that XLA_FLAGS names stays.
    """
    level = "xla_backend_optimization_level"
    stays = jax.default_backend() != "cpu" or level in os.environ.get("XLA_FLAGS", "")
    return {} if stays else {level: "1"}


def make_room(most: float = 0.4) -> bool:
    """Drops all compiled programs where they fill too many of the process's memory maps.

    Linux allows a process 65,530 maps; each of XLA's programs for the CPU takes hundreds, and one
    too many ends the process without a message. `most` is the share that may be in use. A dropped
    program is read from the cache, or compiled, when it is next called. Returns whether any was.
    """
    in_use, allowed = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/sys/vm/max_map_count")
    try:
        is_full = in_use.read_bytes().count(b"\n") > most * int(allowed.read_text("utf-8"))
    except OSError:  # Another system.
        return False
    if is_full:
        jax.clear_caches()
        chex.clear_trace_counter()  # Programs are traced again, which `devices` would not allow.
    return is_full


class Count:
    """Counter and timer of this process's compilations within a `with` statement."""

    def __init__(self) -> None:
        self.programs, self.from_cache = 0, 0
        self.seconds = 0.0
        """Time of tracing, lowering and compiling."""

    def __enter__(self) -> "Count":
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    def _on_duration(self, event: str, duration_secs: float, **_: str | int) -> None:
        self.programs += event == _COMPILED
        if event == _COMPILED or event in _PREPARED:
            self.seconds += duration_secs

    def _on_event(self, event: str, **_: str | int) -> None:
        self.from_cache += event == _FROM_CACHE

    def __str__(self) -> str:
        return (
            f"{self.programs} programs traced and compiled in {self.seconds:.1f} s,"
            f" {self.from_cache} of them from the cache"
        )
