"""Image files in a folder, and a cache of what they contain, so that each is read only once."""

import contextlib
import json
import os
import pathlib
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.reading import Stamp
from tavaal_jax.errors import UserError
from tavaal_jax.report.files import named

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm",
)  # fmt: skip
"""File name extensions of images that are opened, in any case."""
_RAW = "a raw photograph"
_OTHERS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".avif": "AVIF", ".jxl": "JPEG XL", ".psd": "PSD", ".tga": "TGA",
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG 2000"),
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"), _RAW
    ),
}  # fmt: skip
"""Formats of images that cannot be opened; they are listed with the advice to convert them."""
_HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # beside names with a dot
_ATTEMPTS = 3
_VERSION = 1  # of the cache's lines; lines of other versions are ignored
_FRESH = 2 * 10**9  # ns within which a file may change again without another time


class FileFacts(NamedTuple):
    """Content id, size and status of an image file."""

    id: str
    width: int
    height: int
    mode: str
    status: str
    """ok, corrupt, too_large, unsupported."""
    reason: str
    """Why it cannot be used; "" where it can."""

    @classmethod
    def unread(cls, status: str, reason: str) -> "FileFacts":
        """The facts of a file whose content could not be read."""
        return cls("", 0, 0, "", status, reason)


class Listing(NamedTuple):
    """Image files below a folder, and what was left out; paths have `/`."""

    files: dict[str, Stamp]
    undecodable: list[str]
    """Names of images that are not UTF-8, escaped."""
    outside: list[str]
    """Links that lead out of the folder; they are not followed."""
    unreadable: list[str]
    """Folders and files that cannot be read, with the reason."""


# Listing


def list_files(folder: pathlib.Path, key: str) -> Listing:
    """Lists the image files in a folder and below.

    Raises UserError, which names the config's `key`, where the folder cannot be read.
    """
    real = os.path.realpath(folder)
    found = Listing({}, [], [], [])
    below = [""]
    while below:
        place = below.pop()
        try:
            with os.scandir(folder / place) as entries:
                for entry in entries:
                    name = f"{place}/{entry.name}" if place else entry.name
                    if not _is_hidden(entry.name) and _classify(entry, name, real, found):
                        below.append(name)
        except OSError as error:
            reason = error.strerror or str(error)
            if not place:
                reason = {
                    FileNotFoundError: "it does not exist", NotADirectoryError: "it is no folder"
                }.get(type(error), reason)  # fmt: skip
                raise UserError(
                    f"cannot read the images in {folder} ({reason}): see to {key}"
                ) from error
            found.unreadable.append(f"{_escaped(place)} ({reason})")
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN


def _classify(entry: os.DirEntry[str], name: str, real: str, found: Listing) -> bool:
    """Adds an entry to a listing; returns whether it is a folder to be searched."""
    is_image = _extension(name) in EXTENSIONS or _extension(name) in _OTHERS
    # An entry that vanishes meanwhile, or a link in a circle, counts as not there.
    with contextlib.suppress(OSError):
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not target.startswith(real.rstrip("/") + "/") and target != real:
                if is_image or entry.is_dir():
                    found.outside.append(_escaped(name))
                return False
        if entry.is_dir():
            return not entry.is_symlink()  # A link's target is listed at its own place.
        if is_image and entry.is_file():
            if _escaped(name) == name:
                found.files[name] = Stamp.from_stat(entry.stat())
            else:
                found.undecodable.append(_escaped(name))
    return False


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _escaped(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# Reading


def read_head(path: pathlib.Path) -> tuple[Stamp | None, FileFacts | None]:
    """Stamp and facts of a file; facts are None where it is gone, or keeps being written."""
    try:
        for _ in range(_ATTEMPTS):
            with path.open("rb") as file:
                before = Stamp.from_file(file)
                facts = _facts(file, _extension(path.name))
                if Stamp.from_file(file) == before:
                    return before, facts
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, FileFacts.unread("corrupt", error.strerror or str(error))
    return None, None


def _facts(file: BinaryIO, extension: str) -> FileFacts:
    name, kind = decode.content_id(file), _OTHERS.get(extension)
    file.seek(0)
    advice = f"{kind}: convert to JPEG"
    try:
        if kind == _RAW:  # Some are TIFF with a small preview first.
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
            for line in self._file:
                self._lines += 1
                # Where a line was cut short, or is another version's, the image is read again.
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    file, known = _parsed(line)
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
        is_old = max(stamp.mtime_ns, stamp.ctime_ns) + _FRESH < known.when_ns
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
    record = {"version": _VERSION, "file": file, **known._asdict()}
    return f"{json.dumps(record)}\n".encode()


def _parsed(line: bytes) -> tuple[str, _Entry]:
    record = json.loads(line)
    if record["version"] != _VERSION:
        raise ValueError
    when_ns = int(record["when_ns"])
    return str(record["file"]), _Entry(
        Stamp(*record["stamp"]), when_ns, FileFacts(*record["facts"])
    )
