"""A growing cache of array rows by id: values in one file, an index in another.

A line of the index is written only after its values are on the disk, and whatever a killed process
left after the last whole line is overwritten: the cache is valid at any moment.
"""

import abc
import contextlib
import io
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Generic, NotRequired, Protocol, TypedDict, TypeVar, cast

import filelock
import numpy as np
import numpy.typing as npt

from tavaal_jax.data.pictures.reading import Fault
from tavaal_jax.data.pictures.values import Overflow
from tavaal_jax.errors import UserError

_BATCH_BYTES = 2**23
_POLL = 0.5  # seconds between two looks at what another process has added meanwhile

Source = TypeVar("Source")
"""What a row is made of: the path of a file, for example."""
Progress = Callable[[int, int], None]
"""Called with how many of how many are done."""


class Row(Protocol):
    """What is cached of an id."""

    @property
    def values(self) -> np.ndarray: ...  # noqa: D102
    @property
    def overflow(self) -> Overflow | None: ...  # noqa: D102


class _Line(TypedDict):
    """A line of the index: an id's row, or why it has none."""

    id: str
    row: NotRequired[int]
    overflow: NotRequired[Overflow]
    fault: NotRequired[str]
    version: NotRequired[int]


class RowCache(abc.ABC, Generic[Source]):
    """Rows of one shape by id; several processes may read and add at once."""

    def __init__(
        self,
        folder: pathlib.Path,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        values: str,
        faults: int,
    ):
        """`shape` is that of a row; `values` names the file, `faults` the version of faults.

        Faults of another version are tried again.
        """
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype)
        self._values, self._index = folder / values, folder / "index.jsonl"
        self._version = faults
        self._rows: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._overflows: dict[str, Overflow] = {}
        self._end = 0  # bytes of the index up to its last good line
        self._array = np.zeros((0, *shape), dtype)
        self._read()

    @abc.abstractmethod
    def _made(self, todo: Sequence[tuple[str, Source]]) -> Generator[Row | Fault]:
        """Makes the row of each of `todo`, ids and sources, or its fault, in order."""

    @property
    @abc.abstractmethod
    def _most(self) -> int:
        """Rows that are stored at once: those that a killed process may have made in vain."""

    _seconds = math.inf
    """They are stored at the latest after so many seconds."""

    def add(
        self, todo: Sequence[tuple[str, Source]], progress: Progress | None = None
    ) -> dict[str, str]:
        """Makes the rows of `todo` (ids and sources) not yet cached; returns faults by id.

        Damaged contents are remembered; a file that is gone, changed or unreadable is tried again
        the next time. An exception from `progress` stops it, and what was made stays cached. While
        another process adds, this one waits, and `progress` counts what that one has added.
        """
        sources: dict[str, Source] = {}
        for name, source in todo:
            sources.setdefault(name, source)
        is_new = lambda name: name not in self._rows and name not in self._faults
        found: dict[str, str] = {}
        self._read()
        if any(map(is_new, sources)):

            def on_wait() -> None:
                if progress is not None:
                    progress(min(self._added_meanwhile(), len(sources) - 1), len(sources))

            with self._locked(on_wait):
                self._read()  # Another process may have added them meanwhile.
                found = self._add([item for item in sources.items() if is_new(item[0])], progress)
        known = {name: self._faults[name] for name in sources if name in self._faults}
        return known | found

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of `array` with these ids, int64 `[n]`; -1 where one is not cached."""
        return np.array([self._rows.get(name, -1) for name in ids], np.int64)

    def overflows(self, ids: Iterable[str]) -> list[Overflow]:
        """The values of those of these photos that come out mostly white or black."""
        return [self._overflows[name] for name in ids if name in self._overflows]

    @property
    def array(self) -> np.ndarray:
        """All cached rows, mapped read-only: `[n, ...]`."""
        shape = (len(self._rows), *self.shape)
        if self._array.shape != shape and not self._rows:
            self._array = np.zeros(shape, self.dtype)  # An empty file cannot be mapped.
        elif self._array.shape != shape:
            with self._errors("read"):
                self._array = np.memmap(self._values, self.dtype, "r", shape=shape)
        return self._array

    # The files

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def _read(self) -> None:
        """Reads the index, as far as its lines are whole and their values there."""
        with self._errors("read"):
            size = self._values.stat().st_size if self._values.exists() else 0
            is_there = self._index.exists()
            is_read = is_there and 0 < self._end == self._index.stat().st_size
            if is_read and size >= len(self._rows) * self._row_bytes:
                return  # It only grows.
            text = self._index.read_bytes() if is_there else b""
        self._rows, self._faults, self._overflows, self._end = {}, {}, {}, 0
        each = self._row_bytes
        for length, record in _records(text):
            name, row = record["id"], len(self._rows)
            if "fault" in record:
                if record.get("version") == self._version:
                    self._faults[name] = record["fault"]
            elif record["row"] == row and size >= (row + 1) * each:
                self._rows[name] = row
                if "overflow" in record:
                    self._overflows[name] = Overflow(*record["overflow"])
            else:
                break
            self._end += length

    def _added_meanwhile(self) -> int:
        """Number of rows that other processes have added since the index was read."""
        with self._errors("read"):
            size = self._values.stat().st_size if self._values.exists() else 0
        return max(0, size // self._row_bytes - len(self._rows))

    @contextlib.contextmanager
    def _locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        with self._errors("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
        held = None
        while held is None:
            try:
                with self._errors("write"):
                    held = filelock.FileLock(self.folder / ".lock").acquire(timeout=_POLL)
            except filelock.Timeout:
                on_wait()
        with held:
            yield

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns a failure to read or write the folder into a UserError that names it."""
        try:
            yield
        except filelock.Timeout:
            raise
        except OSError as error:
            raise UserError(
                f"cannot {what} {self.folder} ({error.strerror or error}): free some space, or set"
                " --config.data_dir"
            ) from error

    # Adding

    def _add(self, todo: Sequence[tuple[str, Source]], progress: Progress | None) -> dict[str, str]:
        """Makes and stores all of `todo`, in order; returns the faults that are not lasting."""
        passing: dict[str, str] = {}
        batch: list[tuple[str, Row | Fault]] = []
        most = max(1, min(self._most, _BATCH_BYTES // self._row_bytes))
        with contextlib.ExitStack() as stack:
            with self._errors("write"):
                for path in (self._values, self._index):
                    path.touch()
                values = stack.enter_context(self._values.open("r+b", buffering=0))
                index = stack.enter_context(self._index.open("r+b", buffering=0))
                index.truncate(self._end)
            outcomes = stack.enter_context(contextlib.closing(self._made(todo)))
            last = time.monotonic()
            for number, ((name, _), outcome) in enumerate(zip(todo, outcomes, strict=True), 1):
                if isinstance(outcome, Fault) and not outcome.lasting:
                    passing[name] = outcome.reason
                else:
                    batch.append((name, outcome))
                is_late = time.monotonic() - last > self._seconds
                if len(batch) >= most or number == len(todo) or is_late:
                    self._store(batch, values, index)
                    batch, last = [], time.monotonic()
                if progress is not None:
                    progress(number, len(todo))
        return passing

    def _store(
        self, batch: Sequence[tuple[str, Row | Fault]], values: io.FileIO, index: io.FileIO
    ) -> None:
        """Writes values and, once they are on the disk, their lines of the index."""
        rows: dict[str, int] = {}
        faults: dict[str, str] = {}
        overflows: dict[str, Overflow] = {}
        lines: list[_Line] = []
        arrays = []
        for name, outcome in batch:
            if isinstance(outcome, Fault):
                faults[name] = outcome.reason
                lines.append({"id": name, "fault": outcome.reason, "version": self._version})
            else:
                rows[name] = len(self._rows) + len(rows)
                lines.append({"id": name, "row": rows[name]})
                arrays.append(np.asarray(outcome.values, self.dtype))
                if outcome.overflow is not None:
                    overflows[name] = lines[-1]["overflow"] = outcome.overflow
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self._errors("write"):
            _write(values, len(self._rows) * self._row_bytes, b"".join(a.tobytes() for a in arrays))
            _write(index, self._end, text)
        self._rows |= rows
        self._faults |= faults
        self._overflows |= overflows
        self._end += len(text)


def _write(file: io.FileIO, place: int, content: bytes) -> None:
    """Writes `content` at the byte `place` of a file and waits until it is on the disk."""
    file.seek(place)
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    if content:
        os.fsync(file.fileno())


def _records(text: bytes) -> Iterator[tuple[int, _Line]]:
    """Length and content of each line of the index, up to one that is damaged or was cut short."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")  # Many times as fast.
    except ValueError:
        records = []
    if len(records) != len(lines):
        records = map(_parsed, lines)
    for line, record in zip(lines, records, strict=True):
        if not _is_line(record):
            return
        yield len(line), cast(_Line, record)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_line(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return False
    overflow = record.get("overflow", [0, 0, 0])
    is_whole = isinstance(overflow, list) and len(overflow) == len(Overflow._fields)
    return is_whole and ("fault" in record or "row" in record)
