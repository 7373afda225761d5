"""Photos read from files that may change meanwhile, decoded by threads some files ahead."""

import os
import pathlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import numpy as np

from tavaal_jax.data.pictures import decode

_THREADS = 2


class Stamp(NamedTuple):
    """Size and times of a file: while they are the same it counts as unchanged."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """Time of the inode's last change, by which files that have swapped their names differ."""

    @classmethod
    def from_stat(cls, found: os.stat_result) -> "Stamp":
        """The stamp in a result of `os.stat`."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @classmethod
    def from_file(cls, file: BinaryIO) -> "Stamp":
        """The stamp of an open file."""
        return cls.from_stat(os.fstat(file.fileno()))


class Fault(NamedTuple):
    """Why a photo has no pixels."""

    reason: str
    lasting: bool
    """Whether its bytes are at fault, so that another attempt would fail, too."""


def decode_ahead(
    photos: Iterable[tuple[str, pathlib.Path]],
    decode_file: Callable[[BinaryIO], np.ndarray],
    ahead: int,
) -> Generator[np.ndarray | Fault]:
    """Pixels or fault of each photo, given by content id and path, in order.

    At most `ahead` photos are decoded, or wait to be taken. `decode_file` may raise
    `decode.Corrupt`; a file whose content is another by now gives the fault `decode.CHANGED`.
    """
    waiting: deque[Future[np.ndarray | Fault]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for name, path in photos:
                waiting.append(pool.submit(_decoded, name, path, decode_file))
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(
    name: str, path: pathlib.Path, decode_file: Callable[[BinaryIO], np.ndarray]
) -> np.ndarray | Fault:
    """The pixels of the content with the id `name`, never of what has taken its place."""
    changed = Fault(decode.CHANGED, False)
    try:
        with path.open("rb") as file:
            before = Stamp.from_file(file)
            if decode.content_id(file) != name:
                return changed
            try:
                pixels = decode_file(file)
            except decode.Corrupt as error:
                is_same = Stamp.from_file(file) == before
                return Fault(str(error), error.lasting) if is_same else changed
            return pixels if Stamp.from_file(file) == before else changed
    except (FileNotFoundError, NotADirectoryError):
        return Fault(decode.GONE, False)
    except OSError as error:
        return Fault(error.strerror or str(error), False)
