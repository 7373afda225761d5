"""Weights that others have trained, read from a file without executing anything in it."""

import hashlib
import os
import pathlib
from collections.abc import Callable
from io import BufferedReader
from typing import NamedTuple

import numpy as np

from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.models import torch_files

_TORCH = (".pth", ".pt", ".bin")
_KINDS = (".npz", ".safetensors", *_TORCH)


def check(path: str, key: str = "task.pretrained") -> pathlib.Path:
    """The file that a config's `key` names; UserError where there is none that `read` could read.

    A checkpoint of PyTorch's is one of its `state_dict`.
    """
    file = user_path(path, key)
    if file.suffix not in _KINDS:
        raise UserError(f"{key} is {path}: give {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
    if not file.is_file():
        raise UserError(f"{key} is {path}, and there is no such file: name one")
    return file


class Content(NamedTuple):
    """What a file holds: both are of the same bytes."""

    tensors: dict[str, np.ndarray]
    """By name."""
    sha256: str


def read(path: str, key: str = "task.pretrained") -> dict[str, np.ndarray]:
    """Read tensors by name; UserError where they cannot be read."""
    with _opened(check(path, key), key) as file:
        return _tensors(file, path, key)


def read_content(
    path: str, key: str, check_digest: Callable[[str], None] = lambda sha256: None
) -> Content:
    """Read tensors and digest of a file, which is opened once.

    `check_digest` may raise, before the tensors are read. Raises UserError where they cannot be
    read, or the file is written to meanwhile.
    """
    with _opened(check(path, key), key) as file:
        before = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        check_digest(sha256)
        file.seek(0)
        tensors = _tensors(file, path, key)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(
            f"{key} is {path}, which was written to while it was read: wait for its end"
        )
    return Content(tensors, sha256)


def _opened(file: pathlib.Path, key: str) -> BufferedReader:
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"{key} is {file}, which cannot be read ({error.strerror})") from error


def _tensors(opened: BufferedReader, path: str, key: str) -> dict[str, np.ndarray]:
    kind = pathlib.PurePath(path).suffix
    try:
        if kind in _TORCH:
            arrays = torch_files.read(opened)
        else:
            arrays = _npz(opened) if kind == ".npz" else _safetensors(opened, path, key)
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise ValueError(f"{name} is {array.dtype}, no number of numpy's")
        return arrays
    except UserError:
        raise
    except Exception as error:  # A damaged file can raise anything.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{key} is {path}, which cannot be read ({reason}): get or convert it anew"
        ) from error


def _npz(opened: BufferedReader) -> dict[str, np.ndarray]:
    arrays = np.load(opened)
    if isinstance(arrays, np.ndarray):
        raise ValueError("it holds one array without a name, as .npy does")
    with arrays:
        return dict(arrays)


def _safetensors(opened: BufferedReader, path: str, key: str) -> dict[str, np.ndarray]:
    try:
        from safetensors import numpy
    except ImportError as error:
        raise UserError(
            f"{key} is {path}, and safetensors is not installed: run"
            " pip install 'tavaal_jax[pretrained]', or convert it to .npz"
        ) from error
    try:
        return numpy.load(opened.read())
    except KeyError as error:
        raise ValueError(f"a tensor is {error.args[0]}, no number of numpy's") from error
