"""Decoded data sets as `.npy` files, written whole or not at all, some images at a time."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import filelock
import numpy as np
import numpy.typing as npt

from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_VERSION = 1  # of what is stored; part of the folder's name


def folder(data_dir: str, name: str) -> pathlib.Path:
    """Where the decoded arrays of a data set lie."""
    return user_path(data_dir, "data_dir") / "decoded" / f"{name}-v{_VERSION}"


New = Callable[[str, tuple[int, ...], npt.DTypeLike], np.ndarray]
"""`(name, shape, dtype) -> array`: makes an array to be filled."""


def load_or_make(path: pathlib.Path, make: Callable[[New], None]) -> dict[str, np.ndarray]:
    """The arrays stored at `path`; made and stored first if there are none.

    Images and label maps stay on the disk and are mapped. `make(new)` fills arrays that it has
    asked for, which lie on the disk, too: no data set need fit into memory.

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
            _store(path, make)
    try:
        return {file.stem: _load(file) for file in sorted(path.glob("*.npy"))}
    except (OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete that folder, and it is made anew"
        ) from error


def _load(file: pathlib.Path) -> np.ndarray:
    array = np.load(file, "r")
    return array if array.ndim > 1 or "images" in file.stem else np.array(array)


def _store(path: pathlib.Path, make: Callable[[New], None]) -> None:
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))
    arrays: list[np.memmap] = []

    def new(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        file = temporary / f"{name}.npy"
        shape = tuple(map(int, shape))  # A file's header takes NumPy's integers and cannot be read.
        with _named(path):
            array = np.lib.format.open_memmap(file, "w+", dtype, shape)
            if hasattr(os, "posix_fallocate"):  # A disk that is full later would kill this process.
                with file.open("r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        arrays.append(array)
        return array

    try:
        make(new)
        with _named(path):
            for array in arrays:
                array.flush()  # A power loss must not leave it whole by its size alone.
            os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): free some space, or set"
            " --config.data_dir"
        ) from error


def in_memory(make: Callable[[New], None]) -> dict[str, np.ndarray]:
    """The arrays that `make` fills, nowhere stored."""
    arrays: dict[str, np.ndarray] = {}

    def new(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        return arrays.setdefault(name, np.empty(shape, dtype))

    make(new)
    return arrays


def fill(new: New, arrays: dict[str, np.ndarray]) -> None:
    """Copies arrays that are in memory into new ones."""
    for name, array in arrays.items():
        new(name, array.shape, array.dtype)[...] = array
