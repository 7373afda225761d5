"""Decoded data sets as `.npy` files, written whole or not at all."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import filelock
import numpy as np

from tavaal_jax.errors import UserError

_VERSION = 1  # of what is stored; part of the folder's name


def folder(data_dir: str, name: str) -> pathlib.Path:
    """Where the decoded arrays of a data set lie."""
    return pathlib.Path(data_dir).expanduser() / "decoded" / f"{name}-v{_VERSION}"


def load_or_make(
    path: pathlib.Path, make: Callable[[], dict], in_memory: bool = True
) -> dict[str, np.ndarray]:
    """The arrays stored at `path`; made and stored first if there are none.

    Unless they are to be `in_memory`, images stay on the disk and are mapped.

    A lock lets one of several processes make them while the others wait; the folder appears under
    its name only when it is complete.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock").acquire()
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent} ({error.strerror or error}): set --config.data_dir"
        ) from error
    with lock:
        if not path.exists():
            for leftover in path.parent.glob(f"{path.name}-*"):
                shutil.rmtree(leftover)  # of a process that was killed while it held the lock
            _store(path, make())
    try:
        return {
            file.stem: np.load(file, "r" if "images" in file.stem and not in_memory else None)
            for file in sorted(path.glob("*.npy"))
        }
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete that folder, and it is made anew"
        ) from error


def _store(path, arrays):
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        os.rename(temporary, path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): free some space, or set"
            " --config.data_dir"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
