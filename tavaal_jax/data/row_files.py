"""The two files of a growing cache of rows: values, and an index in lines of JSON.

The index begins with a line on what the rows are. A line follows for each row, with a checksum,
only after its values are on the disk. Both files only grow: nothing that another process may have
mapped is ever overwritten.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, NotRequired, TypedDict, TypeGuard

import filelock
import numpy as np

from tavaal_jax.data.pictures.reading import records
from tavaal_jax.data.pictures.values import Overflow
from tavaal_jax.errors import UserError

_POLL = 0.5  # seconds between two looks at what another process has added meanwhile
_PATIENCE = 60.0  # seconds without a new row after which a lock may be of a process that is gone
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Header(TypedDict):
    """First line of the index, what the rows are; files with another one are not used."""

    made_by: str
    """Digest of what makes the rows."""
    shape: list[int]
    dtype: str


class Line(TypedDict):
    """A line of the index: an id's row, or why it has none; a later line replaces it."""

    id: str
    row: NotRequired[int]
    crc: NotRequired[int]
    """CRC-32 of the row's bytes."""
    overflow: NotRequired[Overflow]
    fault: NotRequired[str]
    version: NotRequired[int]


class _Descriptors(NamedTuple):
    """Open files, which stay those of these rows whatever has their names."""

    values: int
    lines: int


Append = Callable[[int, bytes, Iterable[Line]], None]
"""Writes rows from the first one on and, once they are on the disk, their lines of the index."""


class RowFiles:
    """The files of one folder; who adds to them holds `locked`."""

    def __init__(self, folder: pathlib.Path, values: str, header: Header, row_bytes: int):
        """`values` is the name of the file of values, whose rows have `row_bytes` each."""
        self.folder, self._row_bytes, self._header = folder, row_bytes, header
        self._values, self._index = folder / values, folder / "index.jsonl"
        self._end = 0  # bytes of the index up to its last whole line
        self._opened: _Descriptors | None = None

    @property
    def count(self) -> int:
        """Number of whole rows of values."""
        return os.fstat(self._opened.values).st_size // self._row_bytes if self._opened else 0

    def read(self) -> list[Line]:
        """The lines that were added to the index, without those damaged or cut short.

        Raises UserError where the files are no longer those that were read before.
        """
        with self.errors("read"):
            if self._opened is None:
                self._open()
            if self._opened is None:
                return []
            self._check_in_place()
            text = _read_from(self._opened.lines, self._end)
            count = self.count  # Rows are on the disk before their lines are.
        text = text[: text.rfind(b"\n") + 1]
        self._end += len(text)
        return [line for line in records(text) if _is_line(line, count)]

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The first rows, mapped read-only, also where the folder has been deleted: `[n, ...]`."""
        if self._opened is None or not shape[0]:
            return np.zeros(shape, dtype)  # An empty file cannot be mapped.
        with self.errors("read"), open(self._opened.values, "rb", closefd=False) as file:
            return np.memmap(file, dtype, "r", shape=shape)

    def added_meanwhile(self, known: int) -> int:
        """Number of rows that were added since `known` were."""
        with self.errors("read"):
            size = self._values.stat().st_size if self._values.exists() else 0
        return max(0, size // self._row_bytes - known)

    def _open(self) -> None:
        """Opens the files, if they are there and the index begins with this header."""
        with contextlib.ExitStack() as closing:
            try:
                index = os.open(self._index, os.O_RDONLY)
                closing.callback(os.close, index)
                values = os.open(self._values, os.O_RDONLY)
                closing.callback(os.close, values)
            except (FileNotFoundError, NotADirectoryError):
                return
            line, is_whole, _ = os.pread(index, 2**16, 0).partition(b"\n")
            if not is_whole or list(records(line)) != [self._header]:
                return  # Of an earlier version, or damaged: `adding` puts new files in their place.
            self._end, self._opened = len(line) + 1, _Descriptors(values, index)
            weakref.finalize(self, closing.pop_all().close)

    def _check_in_place(self) -> None:
        """Raises UserError where the files that are open are no longer those of the folder."""
        assert self._opened is not None
        for file, path in zip(self._opened, (self._values, self._index), strict=True):
            try:
                is_same = os.path.samestat(os.fstat(file), path.stat())
            except FileNotFoundError:
                is_same = False
            if not is_same:
                raise UserError(
                    f"{self.folder} was deleted or replaced while it was used: run the same command"
                    " again, which makes what is missing"
                )

    # Adding

    @contextlib.contextmanager
    def locked(self, on_wait: Callable[[], int]) -> Iterator[None]:
        """Context that has the folder's lock; while it waits, `on_wait` counts the rows added."""
        with self.errors("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
        path, held, added, last = self.folder / ".lock", None, -1, time.monotonic()
        while held is None:
            try:
                with self.errors("write"), warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always", UserWarning)
                    held = filelock.FileLock(path).acquire(timeout=_POLL)
            except filelock.Timeout:
                before, added = added, on_wait()
                last = time.monotonic() if added != before else last
                # Without locks of the disk, the file itself is one, and outlives its process.
                if warned and time.monotonic() - last > _PATIENCE:
                    raise UserError(
                        f"another command has locked {self.folder} and adds nothing to it: wait for"
                        f" it, or, if it or its machine is gone, delete {path}"
                    ) from None
        with held:
            yield

    @contextlib.contextmanager
    def adding(self) -> Iterator[Append]:
        """Context with what appends rows; it begins the files anew where `read` found none."""
        with contextlib.ExitStack() as stack:
            with self.errors("write"):
                if self._opened is None:
                    self._begin()
                values = stack.enter_context(self._values.open("r+b", buffering=0))
                index = stack.enter_context(self._index.open("r+b", buffering=0))
            yield functools.partial(self._append, values, index)

    def _begin(self) -> None:
        """Puts new files in the place of none, or of those with another header."""
        for path in (self._index, self._values):
            path.unlink(missing_ok=True)  # Who has mapped them keeps them.
        self._values.touch()
        with self._index.open("xb", buffering=0) as index:
            _write(index, 0, json.dumps(self._header).encode() + b"\n")
        self._open()

    def first_free(self, known: int) -> int:
        """The row behind `known` rows, what a killed process has left, and all that is there."""
        with self.errors("write"):
            self._check_in_place()
            assert self._opened is not None
            size = os.fstat(self._opened.values).st_size
            return max(known, -(-size // self._row_bytes))

    def _append(
        self, values: BinaryIO, index: BinaryIO, first: int, rows: bytes, lines: Iterable[Line]
    ) -> None:
        """Writes rows from `first` on and, once they are on the disk, lines of the index."""
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self.errors("write"):
            _write(values, first * self._row_bytes, rows)
            end = index.seek(-1, os.SEEK_END) + 1
            if index.read(1) != b"\n":  # A killed process has not finished a line.
                text = b"\n" + text
            _write(index, end, text)
        self._end = end + len(text)

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turns a failure to read or write the folder into a UserError that names it."""
        try:
            yield
        except (filelock.Timeout, UserError):
            raise
        except (OSError, ValueError) as error:  # The latter of files that are shorter than known.
            reason = getattr(error, "strerror", None) or error
            mend = "free some space" if getattr(error, "errno", 0) in _FULL else "see to it"
            raise UserError(
                f"cannot {what} {self.folder} ({reason}): {mend}, or set --config.data_dir"
            ) from error


def _read_from(file: int, place: int) -> bytes:
    """All that a file has from the byte `place` on."""
    found = []
    while some := os.pread(file, 2**24, place):
        found.append(some)
        place += len(some)
    return b"".join(found)


def _write(file: BinaryIO, place: int, content: bytes) -> None:
    """Writes `content` at the byte `place` of a file and waits until it is on the disk."""
    file.seek(place)
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    if content:
        os.fsync(file.fileno())


def _is_line(record: object, count: int) -> TypeGuard[Line]:
    """Whether a record is a line of an index whose values are `count` rows."""
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return False
    if "fault" in record:
        return isinstance(record["fault"], str)
    row, crc, overflow = record.get("row"), record.get("crc"), record.get("overflow", [0, 0, 0])
    if not isinstance(row, int) or not isinstance(crc, int) or not isinstance(overflow, list):
        return False
    return 0 <= row < count and 0 <= crc < 2**32 and len(overflow) == len(Overflow._fields)
