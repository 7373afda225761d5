"""Weights that others have trained, read from a file without executing anything in it."""

import pathlib

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


def read(path: str, key: str = "task.pretrained") -> dict[str, np.ndarray]:
    """Read tensors by name; UserError where they cannot be read."""
    file = check(path, key)
    try:
        if file.suffix in _TORCH:
            arrays = torch_files.read(file)
        else:
            arrays = _npz(file) if file.suffix == ".npz" else _safetensors(file, key)
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


def _npz(file: pathlib.Path) -> dict[str, np.ndarray]:
    with file.open("rb") as opened:
        arrays = np.load(opened)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it holds one array without a name, as .npy does")
        with arrays:
            return dict(arrays)


def _safetensors(file: pathlib.Path, key: str) -> dict[str, np.ndarray]:
    try:
        from safetensors import numpy
    except ImportError as error:
        raise UserError(
            f"{key} is {file}, and safetensors is not installed: run"
            " pip install 'tavaal_jax[pretrained]', or convert it to .npz"
        ) from error
    try:
        return numpy.load_file(file)
    except KeyError as error:
        raise ValueError(f"a tensor is {error.args[0]}, no number of numpy's") from error
