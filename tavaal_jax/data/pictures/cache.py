"""A cache of decoded photographs that grows: pixels in one file, ids in another.

A line of the index is written when its pixels are on the disk; what a killed process has left
behind the last whole line is written over. So it is right at any moment, without a clean end.
"""

import contextlib
import io
import json
import os
import pathlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import filelock
import numpy as np

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError

_VERSION = 1  # of how photographs are decoded; part of the folder's name
_THREADS = 2
_AHEAD = 4  # pictures that are decoded, or wait to be
_BATCH = 64  # pictures that a killed process may have decoded in vain
_BATCH_BYTES = 2**23

Progress = Callable[[int, int], None]


class _Fault(NamedTuple):
    """Why there are no pixels of an image."""

    reason: str
    lasting: bool


def folder(
    data_dir: str, shape: tuple[int, int, int], resize: str, low_high: Sequence[float]
) -> pathlib.Path:
    """Where photographs that are decoded to `shape` `[S, S, C]` lie."""
    how = ["x".join(map(str, shape)), resize, *(f"{value:g}" for value in low_high)]
    name = f"photos-{'-'.join(how)}-v{_VERSION}"
    return pathlib.Path(data_dir).expanduser() / "decoded" / name


class Decoded:
    """Photographs of one shape, by id. Several processes may read and add at a time."""

    def __init__(
        self,
        folder: pathlib.Path,
        shape: tuple[int, int, int],
        resize: str = "stretch",
        low_high: Sequence[float] = (),
    ):
        """`shape` is `[S, S, C]`; one folder is for one shape, `resize` and `low_high` alone."""
        self.folder, self.shape = folder, shape
        self._resize, self._low_high = resize, tuple(low_high)
        self._pixels, self._index = folder / "pixels.u8", folder / "index.jsonl"
        self._rows: dict[str, int] = {}
        self._faults: dict[str, str] = {}
        self._end = 0  # of the index's last good line, in bytes
        self._array = np.zeros((0, *shape), np.uint8)
        self._read()

    def add(
        self, todo: Sequence[tuple[str, pathlib.Path]], progress: Progress | None = None
    ) -> dict[str, str]:
        """Decodes what is not there yet of `todo`, ids and paths; reasons, by id, where it cannot.

        Damaged contents are remembered; what is gone, changed or cannot be read is tried again the
        next time. What `progress(done, total)` raises ends it, and what was done stays.
        """
        paths: dict[str, pathlib.Path] = {}
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
        """Places in `array`, int64 `[n]`, -1 for an image that is not there."""
        return np.array([self._rows.get(name, -1) for name in ids], np.int64)

    @property
    def array(self) -> np.ndarray:
        """All photographs, mapped read-only: uint8 `[n, S, S, C]`."""
        shape = (len(self._rows), *self.shape)
        if self._array.shape != shape and not self._rows:
            self._array = np.zeros(shape, np.uint8)  # Nothing cannot be mapped.
        elif self._array.shape != shape:
            with self._named("read"):
                self._array = np.memmap(self._pixels, np.uint8, "r", shape=shape)
        return self._array

    # The files

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape))

    def _read(self) -> None:
        """Takes in the index, as far as it is whole and has its pixels."""
        with self._named("read"):
            text = self._index.read_bytes() if self._index.exists() else b""
            size = self._pixels.stat().st_size if self._pixels.exists() else 0
        self._rows, self._faults, self._end = {}, {}, 0
        for line in text.splitlines(keepends=True):
            record = _record(line)
            if record is None:
                break
            name, fault = record["id"], record.get("fault")
            if fault is not None:
                self._faults[name] = fault
            elif record["row"] == len(self._rows) and size >= (record["row"] + 1) * self._row_bytes:
                self._rows[name] = record["row"]
            else:
                break
            self._end += len(line)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._named("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock").acquire()
        with lock:
            yield

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot {what} {self.folder} ({error.strerror or error}): free some space, or set"
                " --config.data_dir"
            ) from error

    # Decoding

    def _decode(
        self, todo: Sequence[tuple[str, pathlib.Path]], progress: Progress | None
    ) -> dict[str, str]:
        """Decodes and keeps all of `todo`, in order; reasons of what is not remembered."""
        passing: dict[str, str] = {}
        batch: list[tuple[str, np.ndarray | _Fault]] = []
        most = max(1, min(_BATCH, _BATCH_BYTES // self._row_bytes))
        with contextlib.ExitStack() as stack:
            with self._named("write"):
                for path in (self._pixels, self._index):
                    path.touch()
                pixels = stack.enter_context(self._pixels.open("r+b", buffering=0))
                index = stack.enter_context(self._index.open("r+b", buffering=0))
                index.truncate(self._end)
            outcomes = stack.enter_context(contextlib.closing(self._outcomes(todo)))
            for number, (name, outcome) in enumerate(outcomes):
                if isinstance(outcome, _Fault) and not outcome.lasting:
                    passing[name] = outcome.reason
                else:
                    batch.append((name, outcome))
                if len(batch) >= most or number + 1 == len(todo):
                    self._keep(batch, pixels, index)
                    batch = []
                if progress is not None:
                    progress(number + 1, len(todo))
        return passing

    def _outcomes(
        self, todo: Sequence[tuple[str, pathlib.Path]]
    ) -> Generator[tuple[str, np.ndarray | _Fault]]:
        """Pixels or fault of each, in order; only some wait at a time."""
        waiting: deque[tuple[str, Future[Any]]] = deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for name, path in todo:
                    waiting.append((name, pool.submit(self._one, name, path)))
                    if len(waiting) == _AHEAD:
                        first, future = waiting.popleft()
                        yield first, future.result()
                for name, future in waiting:
                    yield name, future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _one(self, name: str, path: pathlib.Path) -> np.ndarray | _Fault:
        """Decodes what `name` stands for, and nothing that has come into its place."""
        size, _, channels = self.shape
        try:
            with path.open("rb") as file:
                before = _stamp(file)
                if decode.content_id(file) != name:
                    return _Fault(decode.CHANGED, False)
                try:
                    image = decode.decode(file, size, channels, self._resize, self._low_high)
                except decode.Corrupt as error:
                    if _stamp(file) == before:
                        return _Fault(str(error), error.lasting)
                return image if _stamp(file) == before else _Fault(decode.CHANGED, False)
        except (FileNotFoundError, NotADirectoryError):
            return _Fault(decode.GONE, False)
        except OSError as error:
            return _Fault(error.strerror or str(error), False)

    def _keep(
        self, batch: Sequence[tuple[str, np.ndarray | _Fault]], pixels: io.FileIO, index: io.FileIO
    ) -> None:
        """Writes pixels, and when these are safe the lines that say so."""
        rows, faults = dict(self._rows), dict(self._faults)
        lines: list[dict[str, Any]] = []
        arrays = []
        for name, outcome in batch:
            if isinstance(outcome, _Fault):
                faults[name] = outcome.reason
                lines.append({"id": name, "fault": outcome.reason})
            else:
                rows[name] = len(rows)
                lines.append({"id": name, "row": rows[name]})
                arrays.append(outcome)
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self._named("write"):
            _write(pixels, len(self._rows) * self._row_bytes, b"".join(a.tobytes() for a in arrays))
            _write(index, self._end, text)
        self._rows, self._faults, self._end = rows, faults, self._end + len(text)


def _stamp(file):
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _write(file, place, content):
    """Puts `content` at `place` of a file, on the disk itself."""
    file.seek(place)
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    if content:
        os.fsync(file.fileno())


def _record(line):
    """A line of the index; None where it is none, or was cut short."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        return None
    return record if "fault" in record or "row" in record else None
