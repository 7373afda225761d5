"""A growing cache of decoded photos by content id, see `data.row_cache`."""

import pathlib
from collections.abc import Generator, Sequence
from typing import BinaryIO

import numpy as np

from tavaal_jax.data import row_cache
from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.decode import Pixels
from tavaal_jax.data.pictures.reading import Fault, Path, decode_ahead
from tavaal_jax.data.row_cache import RowCache
from tavaal_jax.environment import user_path

_VERSION = 1  # of how photos are decoded; part of the folder's name
FAULTS = 2
"""Version of what cannot be decoded; with another it is tried again."""
_AHEAD = 4
_BATCH = 64  # photos that a killed process may have decoded in vain

Progress = row_cache.Progress


def decoding(size: int, channels: int, resize: str, low_high: Sequence[float]) -> str:
    """Options of `decode.decode`, as a part of a folder's name."""
    # Two settings that differ at all have two folders.
    exact = [f"{int(x)}" if float(x).is_integer() else repr(float(x)) for x in low_high]
    how = [f"{size}x{size}x{channels}", resize, *exact]
    return f"photos-{'-'.join(how)}-v{_VERSION}"


def folder(
    data_dir: str, shape: tuple[int, int, int], resize: str, low_high: Sequence[float]
) -> pathlib.Path:
    """Folder of the photos decoded to `shape` `[S, S, C]` with these options of `decode.decode`."""
    name = decoding(shape[0], shape[2], resize, low_high)
    return user_path(data_dir, "data_dir") / "decoded" / name


class Decoded(RowCache[Path]):
    """Decoded photos of one shape, by content id; several processes may read and add at once."""

    def __init__(
        self,
        folder: pathlib.Path,
        shape: tuple[int, int, int],
        resize: str = "stretch",
        low_high: Sequence[float] = (),
    ):
        """`shape` is `[S, S, C]`; one folder is for one shape, `resize` and `low_high`."""
        self._resize, self._low_high = resize, tuple(low_high)
        super().__init__(folder, shape, np.uint8, "pixels.u8", FAULTS)

    @property
    def _most(self) -> int:
        return _BATCH

    def _made(self, todo: Sequence[tuple[str, Path]]) -> Generator[Pixels | Fault]:
        return decode_ahead(todo, self._decode_file, _AHEAD)

    def _decode_file(self, file: BinaryIO) -> Pixels:
        size, _, channels = self.shape
        return decode.decode_checked(file, size, channels, self._resize, self._low_high)
