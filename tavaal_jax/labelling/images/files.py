"""Files of images in a folder, and what is remembered of them, so that each is read only once."""

import contextlib
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO, NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm",
)  # fmt: skip
"""Of files that are opened, in small or large letters."""
_RAW = "a raw photograph"
_OTHERS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".avif": "AVIF", ".jxl": "JPEG XL", ".psd": "PSD", ".tga": "TGA",
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG 2000"),
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"), _RAW
    ),
}  # fmt: skip
"""Of images that are listed with the advice to convert them."""
_HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # beside names with a dot
_ATTEMPTS = 3
_VERSION = 1  # of what is remembered; lines of others are not read
_FRESH = 2 * 10**9  # ns: a file may change again without another time


class Stamp(NamedTuple):
    """By what a file is taken for unchanged."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """It tells files of one size and time apart that have changed names."""

    @classmethod
    def of(cls, found: os.stat_result) -> "Stamp":
        """What the file system says."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class FileFacts(NamedTuple):
    """What the bytes of a file say."""

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
        """Of a file that is known by its name alone."""
        return cls("", 0, 0, "", status, reason)


class Listing(NamedTuple):
    """Files below a folder, by path with `/`."""

    files: dict[str, Stamp]
    undecodable: list[str]
    """Names of images that are no UTF-8, escaped."""
    outside: list[str]
    """Links that lead out of the folder; they are not followed."""
    closed: list[str]
    """Folders that cannot be read, with the reason."""


# Listing


def list_files(folder: pathlib.Path, key: str) -> Listing:
    """What lies in a folder and below. UserError, which names `key`, where it cannot be read."""
    real = os.path.realpath(folder)
    found = Listing({}, [], [], [])
    below = [""]
    while below:
        place = below.pop()
        try:
            with os.scandir(folder / place) as entries:
                for entry in entries:
                    name = f"{place}/{entry.name}" if place else entry.name
                    if not _is_hidden(entry.name) and _take(entry, name, real, found):
                        below.append(name)
        except OSError as error:
            reason = error.strerror or str(error)
            if not place:
                raise UserError(_no_folder(folder, error, reason, key)) from error
            found.closed.append(f"{_escaped(place)} ({reason})")
    return found


def _no_folder(folder, error, reason, key):
    reasons = {FileNotFoundError: "it does not exist", NotADirectoryError: "it is no folder"}
    return f"cannot read the images in {folder} ({reasons.get(type(error), reason)}): see to {key}"


def _is_hidden(name):
    return name.startswith(".") or name in _HIDDEN


def _take(entry, name, real, found):
    """Puts an entry where it belongs; whether it is a folder to look into."""
    is_image = _extension(name) in EXTENSIONS or _extension(name) in _OTHERS
    # One that vanishes meanwhile, or links in a circle, is as good as not there.
    with contextlib.suppress(OSError):
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not target.startswith(real.rstrip("/") + "/") and target != real:
                if is_image or entry.is_dir():
                    found.outside.append(_escaped(name))
                return False
        if entry.is_dir():
            return not entry.is_symlink()  # What a link leads to is met where it lies.
        if is_image and entry.is_file():
            if _escaped(name) == name:
                found.files[name] = Stamp.of(entry.stat())
            else:
                found.undecodable.append(_escaped(name))
    return False


def _extension(name):
    return os.path.splitext(name)[1].lower()


def _escaped(name):
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# Reading


def read_head(path: pathlib.Path) -> tuple[Stamp | None, FileFacts | None]:
    """Reads a file and its head; no facts where it is gone, or is being written all the time."""
    try:
        for _ in range(_ATTEMPTS):
            with path.open("rb") as file:
                before = Stamp.of(os.fstat(file.fileno()))
                facts = _facts(file, _extension(path.name))
                if Stamp.of(os.fstat(file.fileno())) == before:
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
        if kind == _RAW:  # Some are TIFF, with a small picture in front.
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


# Remembering


class Memory:
    """Facts of files by path, size and time, in a file of JSON lines; a context that ends it.

    What a killed process has found is there for the next one.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._known: dict[str, tuple[Stamp, int, FileFacts]] = {}
        self._lines = 0
        with _named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._file.seek(0)
            for line in self._file:
                self._lines += 1
                # One that was cut short, or is another version's, is read anew from its file.
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    file, known = _parsed(json.loads(line))
                    self._known[file] = known
            if self._file.tell():
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: Any) -> None:
        with _named(self._path):
            self._file.close()

    def get(self, file: str, stamp: Stamp) -> FileFacts | None:
        """What is known of a file; None where it has changed, or may have."""
        known = self._known.get(file)
        if known is None or known[0] != stamp:
            return None
        is_old = max(stamp.mtime_ns, stamp.ctime_ns) + _FRESH < known[1]
        return known[2] if is_old else None

    def put(self, file: str, stamp: Stamp, when_ns: int, facts: FileFacts) -> None:
        """Keeps what was found at `when_ns`, the time before it was read."""
        self._known[file] = stamp, when_ns, facts
        self._lines += 1
        with _named(self._path):
            self._file.write(_line(file, self._known[file]))
            self._file.flush()

    def tidy(self, files: Collection[str]) -> None:
        """Forgets what is no file any more, where that is most of what is remembered."""
        if self._lines <= 2 * len(files) + 100:
            return
        kept = {file: known for file, known in self._known.items() if file in files}
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with _named(self._path):
            temporary.write_bytes(b"".join(_line(file, known) for file, known in kept.items()))
            os.replace(temporary, self._path)


def _line(file, known):
    stamp, when_ns, facts = known
    record = {"version": _VERSION, "file": file, "stamp": stamp, "when_ns": when_ns, "facts": facts}
    return f"{json.dumps(record)}\n".encode()


def _parsed(record: Mapping[str, Any]) -> tuple[str, tuple[Stamp, int, FileFacts]]:
    if record["version"] != _VERSION:
        raise ValueError
    when_ns = int(record["when_ns"])
    return str(record["file"]), (Stamp(*record["stamp"]), when_ns, FileFacts(*record["facts"]))


@contextlib.contextmanager
def _named(path):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): free some space, or give another"
            " --workdir"
        ) from error
