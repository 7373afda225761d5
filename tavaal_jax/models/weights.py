"""Weights that others have trained, read from a file without executing anything in it.

    python -m tavaal_jax.models.weights drn_d_22.pth drn_d_22.npz

turns a PyTorch file, which may hold any program, into one that cannot; it needs torch, once,
and takes tensors only (`weights_only=True`).
"""

import argparse
import pathlib
import sys

import numpy as np

from tavaal_jax.environment import forgive_output, user_path
from tavaal_jax.errors import UserError

_KINDS = (".npz", ".safetensors")


def check(path: str) -> pathlib.Path:
    """The file that a config names; UserError where there is none that `read` could read."""
    file = user_path(path, "task.pretrained")
    if file.suffix not in _KINDS:
        raise UserError(
            f"task.pretrained is {path}: give {' or '.join(_KINDS)}; a .pth becomes one by"
            " python -m tavaal_jax.models.weights FILE.pth FILE.npz"
        )
    if not file.is_file():
        raise UserError(f"task.pretrained is {path}, and there is no such file: name one")
    return file


def read(path: str) -> dict[str, np.ndarray]:
    """Read tensors by name; UserError where they cannot be read."""
    file = check(path)
    try:
        arrays = _npz(file) if file.suffix == ".npz" else _safetensors(file)
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise ValueError(f"{name} is {array.dtype}, no number of numpy's")
        return arrays
    except UserError:
        raise
    except Exception as error:  # A damaged file can raise anything.
        raise UserError(
            f"task.pretrained is {path}, which cannot be read ({' '.join(str(error).split())}):"
            " get or convert it anew"
        ) from error


def _npz(file: pathlib.Path) -> dict[str, np.ndarray]:
    with file.open("rb") as opened:
        arrays = np.load(opened)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it holds one array without a name, as .npy does")
        with arrays:
            return dict(arrays)


def _safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import numpy
    except ImportError as error:
        raise UserError(
            f"task.pretrained is {file}, and safetensors is not installed: run"
            " pip install 'tavaal_jax[pretrained]', or convert it to .npz"
        ) from error
    try:
        return numpy.load_file(file)
    except KeyError as error:
        raise ValueError(f"a tensor is {error.args[0]}, no number of numpy's") from error


def convert(source: pathlib.Path, target: pathlib.Path) -> int:
    """Write the tensors of a PyTorch file as .npz; returns how many there are."""
    try:
        import torch
    except ImportError as error:
        raise UserError("converting needs torch, once: pip install torch") from error
    if target.suffix != ".npz":
        raise UserError(f"{target} is to be written: give a name that ends in .npz")
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file can raise anything.
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{source} cannot be read as tensors alone ({text})") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    named = found.items() if isinstance(found, dict) else ()
    tensors = {str(name): x for name, x in named if isinstance(x, torch.Tensor)}
    try:
        # Files of 2017 hold parameters, which have a gradient; numpy has no bfloat16.
        arrays = {n: x.detach().float().numpy() for n, x in tensors.items()}
    except (RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{source} holds tensors that make no arrays ({text})") from error
    if not arrays:
        raise UserError(f"{source} holds no tensors by name: give a state_dict")
    try:
        with target.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except (OSError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {target} ({reason})") from error
    return len(arrays)


def main() -> int:
    """Run the command; returns its exit code."""
    forgive_output()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
