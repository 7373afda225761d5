"""Memory of a device: how much there is, and what is said where it does not suffice."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax

from tavaal_jax.errors import OutOfMemory

SHARED_BY = "TAVAAL_JAX_SHARED_BY"
"""Variable of the environment: how many processes of a study share this machine's memory."""


def of_device() -> int:
    """Bytes of a device of this process; a CPU device has its share of the machine's memory."""
    local = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in local]
    if all(limits):
        return min(limits)
    shares = len(local) * int(os.environ.get(SHARED_BY, "1"))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // shares


@contextlib.contextmanager
def named(what: str, config: Any) -> Iterator[None]:
    """Within its context a device whose memory is full raises OutOfMemory, which says the mend.

    `what` was being done; `config` has the keys that decide how much it needs.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("\n")[0]
        if not said.startswith("RESOURCE_EXHAUSTED"):
            raise
        size, scored = config.batch_size, config.score_batch_size
        feed = "" if config.feed == "streamed" else ", or give --config.feed=streamed"
        raise OutOfMemory(
            f"{what}: a device's memory, {of_device() / 2**30:.1f} GiB, is full ({said[:200]})",
            f"lower batch_size ({size}), score_batch_size ({scored}) or the networks' widths{feed}",
        ) from error
