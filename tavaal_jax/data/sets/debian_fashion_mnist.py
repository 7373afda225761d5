"""Fashion-MNIST from Debian's package: puts the official files where TFDS looks for them.

    apt-get install dataset-fashion-mnist
    python -m tavaal_jax.data.sets.debian_fashion_mnist

Debian takes the name out of the files' gzip headers and changes the time; with both put back, they
are the official files byte for byte, which their checksums confirm.
"""

import argparse
import hashlib
import pathlib
import struct
import sys

from tavaal_jax.environment import forgive_output, user_path
from tavaal_jax.errors import UserError

# Time in the official gzip header and SHA-256 of the official file.
_OFFICIAL = {
    "train-images-idx3-ubyte": (
        1504176606,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    "train-labels-idx1-ubyte": (
        1504176606,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "t10k-images-idx3-ubyte": (
        1504176627,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    "t10k-labels-idx1-ubyte": (
        1504176627,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
_HAS_NAME = 8  # flag of the gzip header (RFC 1952)


def with_header(stripped: bytes, name: str, seconds: int) -> bytes:
    """A gzip file with the original name and modification time (Unix) in its header."""
    magic_and_method, rest = stripped[:3], stripped[8:10]
    header = magic_and_method + struct.pack("<BL", _HAS_NAME, seconds) + rest
    return header + name.encode() + b"\0" + stripped[10:]


def restore(source: str, data_dir: str) -> pathlib.Path:
    """Writes the four official files below `data_dir` and returns their folder."""
    manual = user_path(data_dir, "data_dir") / "downloads" / "manual"
    manual.mkdir(parents=True, exist_ok=True)
    for name, (seconds, checksum) in _OFFICIAL.items():
        file = pathlib.Path(source) / f"{name}.gz"
        if not file.exists():
            raise UserError(f"{file} is missing: apt-get install dataset-fashion-mnist")
        official = with_header(file.read_bytes(), name, seconds)
        if hashlib.sha256(official).hexdigest() != checksum:
            raise UserError(
                f"{file} does not give the official {name}.gz: not the Debian package's"
            )
        (manual / f"{name}.gz").write_bytes(official)
    return manual


def main() -> int:
    """Command line; returns the exit code."""
    forgive_output()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    source = "/usr/share/datasets/fashion-mnist"
    parser.add_argument("--source", default=source, help="folder with the package's four gz files")
    data_dir = "~/.cache/tavaal_jax/data"
    parser.add_argument(
        "--data_dir", default=data_dir, help="data_dir of the config that uses them"
    )
    arguments = parser.parse_args()
    try:
        folder = restore(arguments.source, arguments.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Fashion-MNIST's four files are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
