"""Pictures in files: one at a time, or as an array whose rows are decoded when asked for."""

import contextlib
import hashlib
import pathlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from tavaal_jax.errors import UserError

File = pathlib.Path | BinaryIO

_COLOUR = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")  # 8 bits: what turns into RGB as it looks
_FAULTS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_AGAIN = "unpack or prepare it anew"


@contextlib.contextmanager
def _opened(file: File, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as picture:
            yield picture
    except _FAULTS as error:
        is_none = isinstance(error, UnidentifiedImageError)
        reason = "no picture" if is_none else getattr(error, "strerror", None) or error
        raise UserError(f"{name} cannot be decoded ({reason}): {_AGAIN}") from error


def size(file: File, name: str) -> tuple[int, int]:
    """Height and width, without decoding. `name` is what an error calls the file."""
    with _opened(file, name) as picture:
        return picture.height, picture.width


def pixels(file: File, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The picture of `shape`, colours `[H, W, 3]` or grey `[H, W]`, uint8; grey is also a colour.

    Raises UserError where it is another one.
    """
    with _opened(file, name) as picture:
        height, width = shape[:2]
        if picture.size != (width, height):
            raise UserError(
                f"{name} has {picture.width}x{picture.height} pixels where {width}x{height} are"
                " expected, the size of the first image: all must have the same"
            )
        if len(shape) == 3:
            return np.asarray(_colours(picture, name))
        if picture.mode != "L":
            raise UserError(
                f"{name} is a picture of mode {picture.mode} where 8-bit grey (L) is expected:"
                f" {_AGAIN}"
            )
        return np.asarray(picture)


def resized(file: File, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The picture as colours of `shape`, `[H, W, 3]` uint8: bilinear, antialiased, not cut."""
    with _opened(file, name) as picture:
        # Pillow's filters grow with the scale, so that shrinking averages.
        small = _colours(picture, name).resize(shape[1::-1], Image.Resampling.BILINEAR)
        return np.asarray(small)


def _colours(picture, name):
    if picture.mode not in _COLOUR:
        raise UserError(
            f"{name} is a picture of mode {picture.mode} where 8-bit colours (RGB) or grey (L) are"
            f" expected: {_AGAIN}"
        )
    return picture.convert("RGB")


class LazyPictures:
    """Equal pictures, uint8 `[N, H, W, 3]` or `[N, H, W]`, like a read-only array of numpy.

    `pictures[rows, y:y+h, x:x+w]` decodes these rows and cuts; rows are a number, a slice or an
    array. All of them are decoded by `np.asarray`, and so by what numpy's functions do with them.
    No row is kept. Threads may share it: Pillow decodes outside of Python's lock.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        files: Sequence[File],
        names: Sequence[str],
        shape: tuple[int, ...],
        table: np.ndarray | None = None,
    ):
        """`shape` is that of each. Grey values are looked up in `table`, uint8 `[256]`."""
        self._files, self._names, self._table = files, names, table
        self.shape = (len(files), *shape)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def ndim(self) -> int:
        """As of an array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Of all of them, decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *cut = key if isinstance(key, tuple) else (key,)
        if len(cut) >= self.ndim or not all(isinstance(part, slice) for part in cut):
            raise IndexError(f"pictures are cut by slices after the first axis, not by {key!r}")
        numbers = np.arange(len(self))[rows]
        sides = [len(range(side)[part]) for side, part in zip(self.shape[1:], cut, strict=False)]
        taken = np.empty((*np.shape(numbers), *sides, *self.shape[1 + len(sides) :]), np.uint8)
        for place, number in np.ndenumerate(numbers):
            taken[place] = self._decode(number, tuple(cut))
        return taken

    def digest(self) -> str:
        """Stands for the files as they are: their names, sizes and times."""
        digest = hashlib.sha256()
        for file, name in zip(self._files, self._names, strict=True):
            known = file.stat() if isinstance(file, pathlib.Path) else None
            digest.update(f"{name} {known and (known.st_size, known.st_mtime_ns)}\n".encode())
        return digest.hexdigest()[:16]

    def fingerprint(self) -> str:
        """The same wherever the files lie and whenever they came: their names and sizes."""
        digest = hashlib.sha256()
        for file, name in zip(self._files, self._names, strict=True):
            size = file.stat().st_size if isinstance(file, pathlib.Path) else None
            digest.update(f"{pathlib.PurePath(name).name} {size}\n".encode())
        return digest.hexdigest()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("pictures are in files: no array of them is without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _decode(self, number, cut):
        found = pixels(self._files[number], self.shape[1:], self._names[number])[cut]
        return found if self._table is None else self._table[found]
