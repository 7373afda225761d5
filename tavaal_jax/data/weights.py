"""Weights that others have trained, read from a file without executing anything in it.

    python -m tavaal_jax.data.weights drn_d_22.pth drn_d_22.npz

turns a file of PyTorch's, which may hold any program, into one that cannot; it needs torch, once,
and takes tensors only (`weights_only=True`).
"""

import argparse
import pathlib
import pickle
import sys
import zipfile

import numpy as np

from tavaal_jax.errors import UserError

_KINDS = (".npz", ".safetensors")


def check(path: str) -> pathlib.Path:
    """The file that a config names; UserError where there is none that `read` could read."""
    file = pathlib.Path(path).expanduser()
    if file.suffix not in _KINDS:
        raise UserError(
            f"task.pretrained is {path}: give {' or '.join(_KINDS)}; a .pth becomes one by"
            " python -m tavaal_jax.data.weights FILE.pth FILE.npz"
        )
    if not file.is_file():
        raise UserError(f"task.pretrained is {path}, and there is no such file: name one")
    return file


def read(path: str) -> dict[str, np.ndarray]:
    """Tensors by name; UserError where they cannot be read."""
    file = check(path)
    try:
        if file.suffix == ".npz":
            with file.open("rb") as opened, np.load(opened) as arrays:
                return dict(arrays)
        return _safetensors(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"task.pretrained is {path}, which cannot be read ({' '.join(str(error).split())}):"
            " get or convert it anew"
        ) from error


def _safetensors(file):
    try:
        import safetensors
        from safetensors import numpy
    except ImportError as error:
        raise UserError(
            f"task.pretrained is {file}, and safetensors is not installed: run"
            " pip install 'tavaal_jax[pretrained]', or convert it to .npz"
        ) from error
    try:
        return numpy.load_file(file)
    except safetensors.SafetensorError as error:
        raise ValueError(error) from error


def convert(source: pathlib.Path, target: pathlib.Path) -> int:
    """Writes the tensors of a file of PyTorch's as .npz; how many there are."""
    try:
        import torch
    except ImportError as error:
        raise UserError("converting needs torch, once: pip install torch") from error
    if target.suffix != ".npz":
        raise UserError(f"{target} is to be written: give a name that ends in .npz")
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{source} cannot be read as tensors alone ({text})") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    arrays = {name: x.numpy() for name, x in found.items() if isinstance(x, torch.Tensor)}
    if not arrays:
        raise UserError(f"{source} holds no tensors by name: give a state_dict")
    try:
        with target.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror or error})") from error
    return len(arrays)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path, help="a .pth file")
    parser.add_argument("target", type=pathlib.Path, help="an .npz file to be written")
    arguments = parser.parse_args()
    try:
        count = convert(arguments.source, arguments.target)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target} has {count} tensors: set --config.task.pretrained to it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
