"""Memory of a device: how much there is, and what is said where it does not suffice."""

import contextlib
import os
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from tavaal_jax.errors import OutOfMemory

SHARED_BY = "TAVAAL_JAX_SHARED_BY"
"""Variable of the environment: how many processes of a study share this machine's memory."""
STREAMED = "--config.data_placement=streamed"
"""What keeps images off the devices."""


def of_device() -> int:
    """Bytes of a device of this process; a CPU device has its share of the machine's memory."""
    local = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in local]
    if all(limits):
        return min(limits)
    shares = len(local) * int(os.environ.get(SHARED_BY, "1"))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // shares


def smaller(config: ConfigDict, where: str = "") -> str:
    """What to change where a training does not fit; `where` that changes the results."""
    size, scored = config.batch_size, config.score_batch_size
    text = f"lower batch_size ({size}), score_batch_size ({scored}) or the networks' widths{where}"
    return text if config.data_placement == "streamed" else f"{text}, or give {STREAMED}"


@contextlib.contextmanager
def named(what: str, mend: str) -> Iterator[None]:
    """Within its context a device whose memory is full raises OutOfMemory, which says the mend.

    `what` was being done. What was computed must be waited for within it. Of several processes one
    alone may meet it, which the others then lose: there it stays a fault with its traceback.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("\n")[0]
        # What uses an array that could not be made says "INTERNAL: ... Out of memory".
        is_full = said.startswith("RESOURCE_EXHAUSTED") or "Out of memory" in said
        if not is_full or jax.process_count() > 1:
            raise
        size = f"{of_device() / 2**30:.1f} GiB"
        text = f"{what}: a device's memory, {size}, is full ({said[:200]})"
        raise OutOfMemory(text, mend) from error
