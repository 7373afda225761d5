"""A growing cache of array rows by id, in the files of `data.row_files`.

Each row has a checksum, which is compared when the row is first used: what is damaged is made
again, at the end of the files.
"""

import abc
import array
import contextlib
import math
import pathlib
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tavaal_jax.data.pictures.reading import Fault
from tavaal_jax.data.pictures.values import Overflow
from tavaal_jax.data.row_files import Append, Header, Line, RowFiles
from tavaal_jax.errors import UserError

_BATCH_BYTES = 2**23

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


class RowCache(abc.ABC, Generic[Source]):
    """Rows of one shape by id; several processes may read and add at once.

    Rows stay where they are, and right, while an object lives, also if the folder is deleted
    meanwhile; `add` then raises UserError.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        values: str,
        faults: int,
        made_by: str = "",
    ):
        """`shape` is that of a row; `values` names the file, `faults` the version of faults.

        Faults of another version are tried again. `made_by` is a digest of what makes the rows: a
        folder with rows of another, or of another shape, is begun anew.
        """
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype)
        header: Header = {"made_by": made_by, "shape": list(shape), "dtype": self.dtype.str}
        self._files = RowFiles(folder, values, header, self._row_bytes)
        self._version = faults
        self._rows: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._overflows: dict[str, Overflow] = {}
        self._names: list[str] = []  # id of each row; "": of none
        self._sums = array.array("Q")  # CRC-32 of each row
        self._is_checked = bytearray()  # whether a row was found to have its sum
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

            def on_wait() -> int:
                added = self._files.added_meanwhile(len(self._names))
                if progress is not None:
                    progress(min(added, len(sources) - 1), len(sources))
                return added

            with self._files.locked(on_wait):
                self._read()  # Another process may have added them meanwhile.
                found = self._add([item for item in sources.items() if is_new(item[0])], progress)
        known = {name: self._faults[name] for name in sources if name in self._faults}
        return known | found

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of `array` with these ids, int64 `[n]`; -1 where one is not cached, or damaged."""
        found = [self._rows.get(name, -1) for name in ids]
        unchecked = sorted({row for row in found if row >= 0 and not self._is_checked[row]})
        if unchecked and self._forget_damaged(unchecked):
            found = [self._rows.get(name, -1) for name in ids]
        return np.array(found, np.int64)

    def made_rows(
        self, todo: Sequence[tuple[str, Source]], progress: Progress | None = None
    ) -> tuple[np.ndarray, dict[str, str]]:
        """Rows of all of `todo`, int64 `[n]`, -1 where one has a fault, and the faults by id.

        What is not cached, or damaged in the cache, is made.
        """
        ids = [name for name, _ in todo]
        for _ in range(2):
            faults = self.add(todo, progress)
            rows = self.rows(ids)
            if all(row >= 0 or name in faults for name, row in zip(ids, rows, strict=True)):
                return rows, faults
        raise UserError(
            f"{self.folder} does not hold what was written to it: see to its disk, or set"
            " --config.data_dir"
        )

    def overflows(self, ids: Iterable[str]) -> list[Overflow]:
        """The values of those of these photos that come out mostly white or black."""
        return [self._overflows[name] for name in ids if name in self._overflows]

    @property
    def array(self) -> np.ndarray:
        """All cached rows, mapped read-only: `[n, ...]`; a row may be of no id."""
        shape = (len(self._names), *self.shape)
        if self._array.shape != shape:
            self._array = self._files.array(shape, self.dtype)
        return self._array

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    # What is known of rows

    def _read(self) -> None:
        """Reads what was added to the index."""
        self._note(self._files.read())

    def _note(self, lines: Sequence[Line]) -> None:
        """Remembers what lines of the index tell."""
        lacking = max((line.get("row", -1) for line in lines), default=-1) + 1 - len(self._names)
        if lacking > 0:
            self._names += [""] * lacking
            self._sums.frombytes(bytes(lacking * self._sums.itemsize))
            self._is_checked += bytes(lacking)
        rows, names = self._rows, self._names
        for line in lines:
            name = line["id"]
            if "fault" in line:
                if line.get("version") == self._version:
                    self._faults[name] = line["fault"]
                continue
            row = line["row"]
            if names[row] and rows.get(names[row]) == row:  # Of values that the file lost since.
                del rows[names[row]]
            rows[name], names[row], self._sums[row] = row, name, line["crc"]
            self._is_checked[row] = False
            if "overflow" in line:
                self._overflows[name] = Overflow(*line["overflow"])

    def _forget_damaged(self, unchecked: Sequence[int]) -> bool:
        """Compares rows with their sums; whether some are damaged, whose ids are forgotten."""
        count = self._files.count
        damaged = dict(enumerate(self._names[count:], count))  # The file was cut.
        for known in (self._names, self._sums, self._is_checked):
            del known[count:]
        values = (
            np.asarray(self.array).reshape(len(self._names), math.prod(self.shape)).view(np.uint8)
        )
        for row in unchecked:
            if row < count:
                self._is_checked[row] = zlib.crc32(values[row]) == self._sums[row]
                damaged |= {} if self._is_checked[row] else {row: self._names[row]}
        for row, name in damaged.items():
            if self._rows.get(name) == row:
                del self._rows[name]
        return bool(damaged)

    # Adding

    def _add(self, todo: Sequence[tuple[str, Source]], progress: Progress | None) -> dict[str, str]:
        """Makes and stores all of `todo`, in order; returns the faults that are not lasting."""
        passing: dict[str, str] = {}
        batch: list[tuple[str, Row | Fault]] = []
        most = max(1, min(self._most, _BATCH_BYTES // self._row_bytes))
        with self._files.adding() as append, contextlib.closing(self._made(todo)) as outcomes:
            last = time.monotonic()
            for number, ((name, _), outcome) in enumerate(zip(todo, outcomes, strict=True), 1):
                if isinstance(outcome, Fault) and not outcome.lasting:
                    passing[name] = outcome.reason
                else:
                    batch.append((name, outcome))
                is_late = time.monotonic() - last > self._seconds
                if len(batch) >= most or number == len(todo) or is_late:
                    self._store(batch, append)
                    batch, last = [], time.monotonic()
                if progress is not None:
                    try:
                        progress(number, len(todo))
                    except BaseException:
                        self._store(batch, append)
                        raise
        return passing

    def _store(self, batch: Sequence[tuple[str, Row | Fault]], append: Append) -> None:
        """Appends rows and faults to the files."""
        lines: list[Line] = []
        parts: list[bytes] = []
        first = self._files.first_free(len(self._names))
        for name, outcome in batch:
            if isinstance(outcome, Fault):
                lines.append({"id": name, "fault": outcome.reason, "version": self._version})
                continue
            values = np.asarray(outcome.values, self.dtype)
            assert values.shape == self.shape
            parts.append(values.tobytes())
            row = first + len(parts) - 1
            lines.append({"id": name, "row": row, "crc": zlib.crc32(parts[-1])})
            if outcome.overflow is not None:
                lines[-1]["overflow"] = outcome.overflow
        append(first, b"".join(parts), lines)
        self._note(lines)
