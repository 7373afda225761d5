"""Photos read from files that may change meanwhile, decoded by threads some files ahead."""

import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, TypeVar

from tavaal_jax.data.pictures import decode

_THREADS = max(2, os.cpu_count() or 2)
_T = TypeVar("_T")
Path = str | os.PathLike[str]


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
    photos: Iterable[tuple[str, Path]], decode_file: Callable[[BinaryIO], _T], ahead: int
) -> Generator[_T | Fault]:
    """What `decode_file` makes of each photo, given by content id and path, or its fault, in order.

    At most `ahead` photos are decoded, or wait to be taken. `decode_file` may raise
    `decode.Corrupt`; a file whose content is another by now gives the fault `decode.CHANGED`.
    """
    waiting: deque[Future[_T | Fault]] = deque()
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


def _decoded(name: str, path: Path, decode_file: Callable[[BinaryIO], _T]) -> _T | Fault:
    """What is made of the content with the id `name`, never of what has taken its place."""
    changed = Fault(decode.CHANGED, False)
    try:
        with open(path, "rb") as file:
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


def records(text: bytes) -> Iterator[object]:
    """The values in lines of JSON; a line that was cut short, or is none, is left out."""
    lines = text.splitlines()
    try:
        yield from json.loads(b"[" + b",".join(lines) + b"]")  # Many times as fast.
        return
    except ValueError:
        pass
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
