"""Memory: how much there is, the error where it does not suffice, and arrays larger than it."""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.engine import container
from tavaal_jax.errors import OutOfMemory

SHARED_BY = "TAVAAL_JAX_SHARED_BY"
"""Environment variable: how many processes of a study share this machine's memory."""
STREAMED = "--config.data_placement=streamed"
"""Flag that keeps images off the devices."""


_MORE_ROOM = "give a folder with more room in TMPDIR, or score some of the images (--config.subset)"


class _NoRoom(MemoryError):
    """Neither memory nor a disk holds an array."""


def device_bytes() -> int:
    """Bytes of a local device; a CPU device has its share of the machine's memory."""
    local = jax.local_devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in local]
    if all(limits):
        return min(limits)
    return _host_bytes() // len(local)


def _host_bytes() -> int:
    """This process's share of the machine's memory, or of what its container may use."""
    shares = int(os.environ.get(SHARED_BY, "1"))
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(there, container.memory() or there) // shares


def host_array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to be filled, in host memory; in a temporary file where it takes a quarter of that.

    The file lies in Python's temporary folder and is gone with the array. Where that cannot hold it
    memory is tried; `explain_full` says where that is not enough either.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _host_bytes() // 4:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # Else a full disk is a SIGBUS later on.
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        if size < _host_bytes() // 4 * 3:
            return np.empty(shape, dtype)
        raise _NoRoom(
            f"what is computed of the pool takes {size / 2**30:.1f} GiB, for which there is neither"
            f" memory nor a temporary file ({error.strerror or error})"
        ) from None


def advice(config: ConfigDict, where: str = "") -> str:
    """The mend where a training does not fit; `where` is added to what changes the results."""
    size, scored = config.batch_size, config.score_batch_size
    text = f"lower batch_size ({size}), score_batch_size ({scored}) or the networks' widths{where}"
    return text if config.data_placement == "streamed" else f"{text}, or give {STREAMED}"


def is_full(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether an error is that a device's memory does not suffice."""
    message = str(error).partition("\n")[0]
    # What uses an array that could not be made says "INTERNAL: ... Out of memory".
    return message.startswith("RESOURCE_EXHAUSTED") or "Out of memory" in message


@contextlib.contextmanager
def explain_full(what: str, mend: str) -> Iterator[None]:
    """Context in which a full device raises OutOfMemory with `mend`, while doing `what`.

    So does a `host_array` that nothing holds, with a mend of its own.

    Computations must be waited for within it. With several processes, one alone may run out, which
    the others then lose: there the error stays as JAX raises it.
    """
    try:
        yield
    except _NoRoom as error:
        raise OutOfMemory(f"{what}: {error}", _MORE_ROOM) from None
    except jax.errors.JaxRuntimeError as error:
        if not is_full(error) or jax.process_count() > 1:
            raise
        message = str(error).partition("\n")[0]
        size = f"{device_bytes() / 2**30:.1f} GiB"
        text = f"{what}: a device's memory, {size}, is full ({message[:200]})"
        raise OutOfMemory(text, mend) from error
