"""A growing cache of decoded photos by content id: pixels in one file, an index in another.

A line of the index is written only after its pixels are on the disk, and whatever a killed process
left after the last whole line is overwritten: the cache is valid at any moment.
"""

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NotRequired, TypedDict, cast

import filelock
import numpy as np

from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.decode import Overflow, Pixels
from tavaal_jax.data.pictures.reading import Fault, Path, decode_ahead
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_VERSION = 1  # of how photos are decoded; part of the folder's name
_FAULTS = 2  # version of what cannot be decoded; with another it is tried again
_AHEAD = 4
_BATCH = 64  # photos that a killed process may have decoded in vain
_BATCH_BYTES = 2**23

Progress = Callable[[int, int], None]
"""Called with how many of how many are done."""


class _Line(TypedDict):
    """A line of the index: a photo's row, or why it has none."""

    id: str
    row: NotRequired[int]
    overflow: NotRequired[Overflow]
    fault: NotRequired[str]
    version: NotRequired[int]


def folder(
    data_dir: str, shape: tuple[int, int, int], resize: str, low_high: Sequence[float]
) -> pathlib.Path:
    """Folder of the photos decoded to `shape` `[S, S, C]` with these options of `decode.decode`."""
    how = ["x".join(map(str, shape)), resize, *(f"{value:g}" for value in low_high)]
    name = f"photos-{'-'.join(how)}-v{_VERSION}"
    return user_path(data_dir, "data_dir") / "decoded" / name


class Decoded:
    """Decoded photos of one shape, by content id; several processes may read and add at once."""

    def __init__(
        self,
        folder: pathlib.Path,
        shape: tuple[int, int, int],
        resize: str = "stretch",
        low_high: Sequence[float] = (),
    ):
        """`shape` is `[S, S, C]`; one folder is for one shape, `resize` and `low_high`."""
        self.folder, self.shape = folder, shape
        self._resize, self._low_high = resize, tuple(low_high)
        self._pixels, self._index = folder / "pixels.u8", folder / "index.jsonl"
        self._rows: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._overflows: dict[str, Overflow] = {}
        self._end = 0  # bytes of the index up to its last good line
        self._array = np.zeros((0, *shape), np.uint8)
        self._read()

    def add(
        self, todo: Sequence[tuple[str, Path]], progress: Progress | None = None
    ) -> dict[str, str]:
        """Decodes the photos of `todo` (ids and paths) not yet cached; returns faults by id.

        Damaged contents are remembered; a file that is gone, changed or unreadable is tried again
        the next time. An exception from `progress` stops it, and what was decoded stays cached.
        """
        paths: dict[str, Path] = {}
        for name, path in todo:
            paths.setdefault(name, path)
        is_new = lambda name: name not in self._rows and name not in self._faults
        found: dict[str, str] = {}
        self._read()
        if any(map(is_new, paths)):
            with self._locked():
                self._read()  # Another process may have added them meanwhile.
                found = self._decode([item for item in paths.items() if is_new(item[0])], progress)
        known = {name: self._faults[name] for name in paths if name in self._faults}
        return known | found

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of `array` with these photos, int64 `[n]`; -1 where one is not cached."""
        return np.array([self._rows.get(name, -1) for name in ids], np.int64)

    def overflows(self, ids: Iterable[str]) -> list[Overflow]:
        """The values of those of these photos that come out mostly white or black."""
        return [self._overflows[name] for name in ids if name in self._overflows]

    @property
    def array(self) -> np.ndarray:
        """All cached photos, mapped read-only: uint8 `[n, S, S, C]`."""
        shape = (len(self._rows), *self.shape)
        if self._array.shape != shape and not self._rows:
            self._array = np.zeros(shape, np.uint8)  # An empty file cannot be mapped.
        elif self._array.shape != shape:
            with self._errors("read"):
                self._array = np.memmap(self._pixels, np.uint8, "r", shape=shape)
        return self._array

    # The files

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape))

    def _read(self) -> None:
        """Reads the index, as far as its lines are whole and their pixels there."""
        with self._errors("read"):
            size = self._pixels.stat().st_size if self._pixels.exists() else 0
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
                if record.get("version") == _FAULTS:
                    self._faults[name] = record["fault"]
            elif record["row"] == row and size >= (row + 1) * each:
                self._rows[name] = row
                if "overflow" in record:
                    self._overflows[name] = Overflow(*record["overflow"])
            else:
                break
            self._end += length

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._errors("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock").acquire()
        with lock:
            yield

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns a failure to read or write the folder into a UserError that names it."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot {what} {self.folder} ({error.strerror or error}): free some space, or set"
                " --config.data_dir"
            ) from error

    # Decoding

    def _decode(
        self, todo: Sequence[tuple[str, Path]], progress: Progress | None
    ) -> dict[str, str]:
        """Decodes and stores all of `todo`, in order; returns the faults that are not lasting."""
        passing: dict[str, str] = {}
        batch: list[tuple[str, Pixels | Fault]] = []
        most = max(1, min(_BATCH, _BATCH_BYTES // self._row_bytes))
        with contextlib.ExitStack() as stack:
            with self._errors("write"):
                for path in (self._pixels, self._index):
                    path.touch()
                pixels = stack.enter_context(self._pixels.open("r+b", buffering=0))
                index = stack.enter_context(self._index.open("r+b", buffering=0))
                index.truncate(self._end)
            decoded = decode_ahead(todo, self._decode_file, _AHEAD)
            outcomes = stack.enter_context(contextlib.closing(decoded))
            for number, ((name, _), outcome) in enumerate(zip(todo, outcomes, strict=True), 1):
                if isinstance(outcome, Fault) and not outcome.lasting:
                    passing[name] = outcome.reason
                else:
                    batch.append((name, outcome))
                if len(batch) >= most or number == len(todo):
                    self._store(batch, pixels, index)
                    batch = []
                if progress is not None:
                    progress(number, len(todo))
        return passing

    def _decode_file(self, file: BinaryIO) -> Pixels:
        size, _, channels = self.shape
        return decode.decode_checked(file, size, channels, self._resize, self._low_high)

    def _store(
        self, batch: Sequence[tuple[str, Pixels | Fault]], pixels: io.FileIO, index: io.FileIO
    ) -> None:
        """Writes pixels and, once they are on the disk, their lines of the index."""
        rows, faults, overflows = dict(self._rows), dict(self._faults), dict(self._overflows)
        lines: list[_Line] = []
        arrays = []
        for name, outcome in batch:
            if isinstance(outcome, Fault):
                faults[name] = outcome.reason
                lines.append({"id": name, "fault": outcome.reason, "version": _FAULTS})
            else:
                rows[name] = len(rows)
                lines.append({"id": name, "row": rows[name]})
                arrays.append(outcome.values)
                if outcome.overflow is not None:
                    overflows[name] = lines[-1]["overflow"] = outcome.overflow
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self._errors("write"):
            _write(pixels, len(self._rows) * self._row_bytes, b"".join(a.tobytes() for a in arrays))
            _write(index, self._end, text)
        self._rows, self._faults, self._overflows = rows, faults, overflows
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
