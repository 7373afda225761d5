"""Pictures of a data set in files: one at a time, or as an array decoded row by row on demand."""

import concurrent.futures
import contextlib
import hashlib
import pathlib
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tavaal_jax.data.cache import New
from tavaal_jax.data.pool import StoredArray
from tavaal_jax.errors import UserError

File = pathlib.Path | BinaryIO

Rows = int | np.integer | slice | Sequence[int] | np.ndarray

_COLOUR = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")  # 8 bits: RGB shows them as they look.
_MAP = ("L", "P")
_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_AGAIN = "unpack or prepare it anew"


@contextlib.contextmanager
def _opened(file: File, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as picture:
            yield picture
    except _ERRORS as error:
        is_none = isinstance(error, UnidentifiedImageError)
        reason = "no picture" if is_none else getattr(error, "strerror", None) or error
        raise UserError(f"{name} cannot be decoded ({reason}): {_AGAIN}") from error


def size(file: File, name: str) -> tuple[int, int]:
    """Height and width of a picture, without decoding it; errors call the file `name`."""
    with _opened(file, name) as picture:
        return picture.height, picture.width


def pixels(file: File, shape: tuple[int, ...], name: str, resize: bool = False) -> np.ndarray:
    """Pixels of a picture, uint8: colours `[H, W, 3]`, also of a grey one, or values `[H, W]`.

    Values are grey ones or numbers in a palette. Raises UserError for another mode and, without
    `resize`, for another size than `shape`'s. Resized colours are bilinear, antialiased and uncut,
    values the nearest.
    """
    sides, is_map = (shape[1], shape[0]), len(shape) == 2
    with _opened(file, name) as picture:
        if picture.size != sides and not resize:
            raise UserError(
                f"{name} has {picture.width}x{picture.height} pixels where {sides[0]}x{sides[1]}"
                " are expected, the size of the first image: all must have the same"
            )
        if is_map and picture.mode not in _MAP:
            raise UserError(
                f"{name} is a picture of mode {picture.mode} where 8-bit grey (L) or a palette (P)"
                f" is expected: {_AGAIN}"
            )
        whole = picture if is_map else _colours(picture, name)
        if whole.size != sides:
            # Pillow's filters grow with the scale, so that shrinking averages.
            filters = Image.Resampling
            whole = whole.resize(sides, filters.NEAREST if is_map else filters.BILINEAR)
        return np.asarray(whole)


def _colours(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode not in _COLOUR:
        raise UserError(
            f"{name} is a picture of mode {picture.mode} where 8-bit colours (RGB) or grey (L) are"
            f" expected: {_AGAIN}"
        )
    return picture.convert("RGB")


class LazyPictures:
    """Pictures of one size in files, like a read-only array uint8 `[N, H, W, 3]` or `[N, H, W]`.

    `pictures[rows, y:y+h, x:x+w]` decodes and crops these rows; rows are a number, a slice or an
    array. `np.asarray`, and so any function of NumPy, decodes them all. Nothing is cached. Threads
    may share it: Pillow decodes outside of Python's lock.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        files: Sequence[File],
        names: Sequence[str],
        shape: tuple[int, ...],
        table: np.ndarray | None = None,
        resize: bool = False,
    ):
        """`shape` is that of one picture; `table`, uint8 `[256]`, maps values to classes.

        With `resize` the files may be of any size.
        """
        self._files, self._names, self._table = files, names, table
        self._resize = resize
        self.shape = (len(files), *shape)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def ndim(self) -> int:
        """Number of axes, as of an array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures when decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Rows | tuple[Rows, *tuple[slice, ...]]) -> np.ndarray:
        rows, *crop = key if isinstance(key, tuple) else (key,)
        cuts = tuple(part for part in crop if isinstance(part, slice))
        if len(crop) >= self.ndim or len(cuts) < len(crop):
            raise IndexError(f"pictures are cut by slices after the first axis, not by {key!r}")
        numbers = np.asarray(np.arange(len(self))[rows])
        sides = [len(range(side)[part]) for side, part in zip(self.shape[1:], cuts, strict=False)]
        taken = np.empty((*numbers.shape, *sides, *self.shape[1 + len(sides) :]), np.uint8)
        for place, number in np.ndenumerate(numbers):
            taken[place] = self._decode(int(number), cuts)
        return taken

    def digest(self) -> str:
        """Digest of the files' names, sizes and times, and of what is made of them; reads none."""
        table = None if self._table is None else self._table.tolist()
        digest = hashlib.sha256(f"{self.shape} {table}\n".encode())
        for file, name in zip(self._files, self._names, strict=True):
            known = file.stat() if isinstance(file, pathlib.Path) else None
            digest.update(f"{name} {known and (known.st_size, known.st_mtime_ns)}\n".encode())
        return digest.hexdigest()[:16]

    def fingerprint(self) -> str:
        """Digest of the files' names and sizes: the same in any folder and at any time."""
        digest = hashlib.sha256()
        for file, name in zip(self._files, self._names, strict=True):
            size = file.stat().st_size if isinstance(file, pathlib.Path) else None
            digest.update(f"{pathlib.PurePath(name).name} {size}\n".encode())
        return digest.hexdigest()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("pictures are in files: no array of them exists without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _decode(self, number: int, cuts: tuple[slice, ...]) -> np.ndarray:
        file, name = self._files[number], self._names[number]
        found = pixels(file, self.shape[1:], name, self._resize)[cuts]
        return found if self._table is None else self._table[found]


def decode_all(what: str, arrays: Mapping[str, StoredArray], new: New) -> None:
    """Fills arrays with `arrays`, whose `LazyPictures` are decoded by all cores; logs `what`."""
    pictures = {name: a for name, a in arrays.items() if isinstance(a, LazyPictures)}
    size = sum(array.nbytes for array in pictures.values()) / 1e9
    print(f"Decoding {what}, once: {size:.1f} GB, some minutes.", file=sys.stderr)
    for name, array in arrays.items():
        target = new(name, array.shape, array.dtype)
        if name in pictures:
            _decode_into(target, pictures[name])
        else:
            target[...] = array[:]


def _decode_into(target: np.ndarray, pictures: LazyPictures) -> None:
    def decode(row: int) -> None:
        target[row] = pictures[row]

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(decode, range(len(pictures))))
