"""Facts of image files, and a cache of them, so that each file is read only once."""

import contextlib
import json
import os
import pathlib
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.reading import Stamp, records
from tavaal_jax.labelling.images.files import OTHERS, RAW, extension
from tavaal_jax.report.files import named

_ATTEMPTS = 3
_VERSION = 2  # of the cache's lines; lines of other versions are ignored
_FRESH = 2 * 10**9  # ns within which a file may change again without another time


class FileFacts(NamedTuple):
    """Content id, size and status of an image file."""

    id: str
    width: int
    height: int
    mode: str
    status: str
    """ok, corrupt, too_large, unsupported; other: it has no ending, and is no picture."""
    reason: str
    """Why it cannot be used; "" where it can."""

    @classmethod
    def unread(cls, status: str, reason: str) -> "FileFacts":
        """The facts of a file whose content could not be read."""
        return cls("", 0, 0, "", status, reason)


# Reading


def read_head(path: str) -> tuple[Stamp | None, FileFacts | None]:
    """Stamp and facts of a file; facts are None where it is gone, or keeps being written."""
    try:
        for _ in range(_ATTEMPTS):
            with open(path, "rb") as file:
                before = Stamp.from_file(file)
                facts = _facts(file, extension(path))
                if Stamp.from_file(file) == before:
                    return before, facts
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, FileFacts.unread("corrupt", error.strerror or str(error))
    return None, None


def _facts(file: BinaryIO, ending: str) -> FileFacts:
    if not ending and not decode.is_picture(file):
        return FileFacts.unread("other", "no picture")
    file.seek(0)
    name, kind = decode.content_id(file), OTHERS.get(ending)
    file.seek(0)
    advice = f"{kind}: convert to JPEG"
    try:
        if kind == RAW:  # Some are TIFF with a small preview first.
            raise decode.Unsupported(advice)
        return FileFacts(name, *decode.header(file), "ok", "")
    except decode.Corrupt as error:
        if not error.lasting:
            return FileFacts.unread("corrupt", str(error))
        if isinstance(error, decode.TooLarge):
            status, reason = "too_large", str(error)
        elif isinstance(error, decode.Unsupported):
            status, reason = "unsupported", str(error)
        else:
            status, reason = ("corrupt", str(error)) if kind is None else ("unsupported", advice)
        return FileFacts(name, 0, 0, "", status, reason)


# The cache


class _Entry(NamedTuple):
    """Facts of a file, its stamp, and when it was read."""

    stamp: Stamp
    when_ns: int
    facts: FileFacts


class FactsCache:
    """Facts of files by path and stamp, kept in a file of JSON lines; a context that closes it.

    What a killed process has found is there for the next one.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._known: dict[str, _Entry] = {}
        self._lines = 0
        with named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._file.seek(0)
            for record in records(self._file.read()):
                self._lines += 1
                # Another version's: the image is read again.
                with contextlib.suppress(ValueError, TypeError):
                    file, known = _parsed(record)
                    self._known[file] = known
            if self._file.tell():
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")

    def __enter__(self) -> "FactsCache":
        return self

    def __exit__(self, *_: object) -> None:
        with named(self._path):
            self._file.close()

    def get(self, file: str, stamp: Stamp) -> FileFacts | None:
        """The cached facts of a file; None where it has changed since, or may have."""
        known = self._known.get(file)
        if known is None or known.stamp != stamp:
            return None
        # A camera's clock may be ahead; but ctime is the disk's, and each change sets it.
        is_old = stamp.ctime_ns + _FRESH < known.when_ns
        return known.facts if is_old else None

    def put(self, file: str, stamp: Stamp, when_ns: int, facts: FileFacts) -> None:
        """Stores a file's facts; `when_ns` is the time before it was read."""
        self._known[file] = _Entry(stamp, when_ns, facts)
        self._lines += 1
        with named(self._path):
            self._file.write(_line(file, self._known[file]))
            self._file.flush()

    def compact(self, files: Collection[str]) -> None:
        """Drops all but the present `files`, if most lines are of others or outdated."""
        if self._lines <= 2 * len(files) + 100:
            return
        present = {file: known for file, known in self._known.items() if file in files}
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with named(self._path):
            temporary.write_bytes(b"".join(_line(file, known) for file, known in present.items()))
            os.replace(temporary, self._path)


def _line(file: str, known: _Entry) -> bytes:
    return f"{json.dumps([_VERSION, file, known.when_ns, known.stamp, known.facts])}\n".encode()


def _parsed(record: object) -> tuple[str, _Entry]:
    if not isinstance(record, list) or len(record) != 5 or record[0] != _VERSION:
        raise ValueError
    _, file, when_ns, stamp, facts = record
    return str(file), _Entry(Stamp(*stamp), int(when_ns), FileFacts(*facts))
