"""Image files in a folder, and a cache of what they contain, so that each is read only once."""

import contextlib
import errno
import json
import os
import pathlib
import re
import stat
from collections import Counter
from collections.abc import Collection, Sequence
from typing import BinaryIO, NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.reading import Stamp, records
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.passed_over import shown
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
_PICTURES = (
    ".svg", ".dcm", ".dicom", ".ico", ".cur", ".exr", ".hdr", ".pcx", ".dds", ".eps", ".pdf", ".ai",
    ".xcf", ".npy", ".npz", ".nii", ".mat", ".mpo", ".apng", ".dib", ".jps", ".wmf", ".emf",
)  # fmt: skip
_FROM_SYSTEM = (
    b"__macosx", b"@eadir", b"$recycle.bin", b"system volume information", b"thumbs.db",
    b"desktop.ini",
)  # fmt: skip
_LEFT_BEHIND = re.compile(
    rf"({'|'.join(map(re.escape, (*EXTENSIONS, *_OTHERS)))})"
    r"(~|_original|_large|\.(\d{1,3}|bak|orig|old|save|swp|tmp|temp|part|partial|crdownload|download"
    r"|filepart|!ut))$",
    re.IGNORECASE,
)
_ENDINGS = 5  # shown of other files

HIDDEN = "entries hidden or of other programs"
IN_CLOUD = "images in iCloud only: download them"
NOWHERE = "links leading nowhere"
AGAIN = "links to folders searched anyway"
OUTSIDE = "links out of the folder, not followed (but with follow_links)"
NO_FILE = "pipes and devices"
NO_PICTURE = "files without an ending or a picture in them"
LEFT_BEHIND = "backups or unfinished downloads of images"
OTHER_PICTURES = "pictures in formats not read ({}): convert them to PNG"
OTHER_FILES = "files with other endings ({})"
"""Kinds of entries that are passed over."""
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


class Listing(NamedTuple):
    """All that is below a folder: image files, and what is passed over; paths have `/`."""

    files: dict[str, Stamp]
    """Those to be read: of an image's ending, or of none."""
    undecodable: list[str]
    """Names of images that are not UTF-8, escaped; none is also in `files`."""
    passed: list[tuple[str, str]]
    """Kind, see `passed_over.PassedOver`, and name of each entry that is neither."""


# Listing


def list_files(folder: pathlib.Path, key: str, follow_links: bool = False) -> Listing:
    """Lists what is in a folder and below.

    Links out of the folder are passed over, unless `follow_links`. Raises UserError, which names
    the config's `key`, where the folder cannot be read.
    """
    return _Lister(folder, key, follow_links).listing()


def path_of(folder: str | pathlib.Path, file: str) -> str:
    """Path of a listed file. A name on the disk is bytes, here UTF-8 whatever the locale."""
    return os.fsdecode(os.fsencode(folder) + b"/" + file.encode())


class _Lister:
    """Sorts the entries of a folder and those below it by what they are."""

    def __init__(self, folder: pathlib.Path, key: str, follow_links: bool):
        self._folder, self._key, self._follows = folder, key, follow_links
        self._root = os.fsencode(folder)
        self._real = os.path.realpath(self._root)
        self._seen: set[tuple[int, int]] = set()
        self._found = Listing({}, [], [])
        self._other_endings: list[tuple[str, str]] = []
        self._other_pictures: list[tuple[str, str]] = []

    def listing(self) -> Listing:
        below = [b""]
        with contextlib.suppress(OSError):  # Told below.
            found = os.stat(self._root)
            self._seen.add((found.st_dev, found.st_ino))
        while below:
            place = below.pop()
            try:
                with os.scandir(self._root + b"/" + place) as entries:
                    # In order, so that of two links to one folder the same is followed each time.
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        name = place + b"/" + entry.name if place else entry.name
                        if self._is_searched(entry, name):
                            below.append(name)
            except OSError as error:
                reason = error.strerror or str(error)
                if not place:
                    raise self._unreadable(error, reason) from error
                self._pass(f"folders unreadable ({reason})", place)
        self._count_endings(OTHER_PICTURES, self._other_pictures)
        self._count_endings(OTHER_FILES, self._other_endings)
        return self._found._replace(undecodable=self._escaped_apart())

    def _unreadable(self, error: OSError, reason: str) -> UserError:
        reason = {
            FileNotFoundError: "it does not exist", NotADirectoryError: "it is no folder"
        }.get(type(error), reason)  # fmt: skip
        return UserError(f"cannot read the images in {self._folder} ({reason}): see to {self._key}")

    def _pass(self, what: str, name: bytes) -> None:
        self._found.passed.append((what, _escaped(name)))

    def _is_searched(self, entry: os.DirEntry[bytes], name: bytes) -> bool:
        """Adds an entry to the listing; returns whether it is a folder to be searched."""
        if _is_hidden(entry.name):
            of_image = entry.name.endswith(b".icloud") and _is_image(_text(entry.name[1:-7]))
            self._pass(IN_CLOUD if of_image else HIDDEN, name)
            return False
        try:
            return self._is_folder(entry, name)
        except FileNotFoundError:
            if entry.is_symlink():
                self._pass(NOWHERE, name)
        except OSError as error:
            is_circle = error.errno == errno.ELOOP
            reason = error.strerror or str(error)
            self._pass(NOWHERE if is_circle else f"files unreadable ({reason})", name)
        return False

    def _is_folder(self, entry: os.DirEntry[bytes], name: bytes) -> bool:
        found = entry.stat()
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if target != self._real and not target.startswith(self._real.rstrip(b"/") + b"/"):
                if not self._follows:
                    self._pass(OUTSIDE, name)
                    return False
            elif stat.S_ISDIR(found.st_mode):  # A link's target is listed at its own place.
                self._pass(AGAIN, name)
                return False
        if stat.S_ISDIR(found.st_mode):
            place = (found.st_dev, found.st_ino)
            if self._follows and place in self._seen:
                self._pass(AGAIN, name)
                return False
            self._seen.add(place)
            return True
        if stat.S_ISREG(found.st_mode):
            self._add_file(name, found)
        else:
            self._pass(NO_FILE, name)
        return False

    def _add_file(self, name: bytes, found: os.stat_result) -> None:
        text = _text(name)
        ending = _extension(text)
        if _is_image(text) or not ending:
            if text == _escaped(name):
                self._found.files[text] = Stamp.from_stat(found)
            else:
                self._found.undecodable.append(_escaped(name))
        elif _LEFT_BEHIND.search(text):
            self._pass(LEFT_BEHIND, name)
        elif ending in _PICTURES:
            self._other_pictures.append((ending, _escaped(name)))
        else:
            self._other_endings.append((ending, _escaped(name)))

    def _count_endings(self, what: str, named: Sequence[tuple[str, str]]) -> None:
        counts = Counter(shown(ending, 12) for ending, _ in named).most_common()
        texts = [f"{ending} {count:,}" for ending, count in counts[:_ENDINGS]]
        more = ["..."] if len(counts) > _ENDINGS else []
        kind = what.format(", ".join(texts + more))
        self._found.passed.extend((kind, name) for _, name in named)

    def _escaped_apart(self) -> list[str]:
        """Undecodable names, escaped so that none is that of another file."""
        taken = set(self._found.files)
        escaped = []
        for found in sorted(self._found.undecodable):
            name = found
            while name in taken:
                name = name.replace("\\x", "\\\\x", 1)
            taken.add(name)
            escaped.append(name)
        return escaped


def _is_hidden(name: bytes) -> bool:
    return name.startswith(b".") or name.lower() in _FROM_SYSTEM


def _is_image(name: str) -> bool:
    return _extension(name) in EXTENSIONS or _extension(name) in _OTHERS


def _extension(name: str) -> str:
    """A file name's ending, in small letters; what an address asks for does not count."""
    base = name.rpartition("/")[2]
    ending = os.path.splitext(base)[1].lower()
    if "?" not in base:
        return ending
    of_address = os.path.splitext(base.partition("?")[0])[1].lower()
    return of_address if of_address in EXTENSIONS else ending


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _escaped(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


# Reading


def read_head(path: str) -> tuple[Stamp | None, FileFacts | None]:
    """Stamp and facts of a file; facts are None where it is gone, or keeps being written."""
    try:
        for _ in range(_ATTEMPTS):
            with open(path, "rb") as file:
                before = Stamp.from_file(file)
                facts = _facts(file, _extension(path))
                if Stamp.from_file(file) == before:
                    return before, facts
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, FileFacts.unread("corrupt", error.strerror or str(error))
    return None, None


def _facts(file: BinaryIO, extension: str) -> FileFacts:
    if not extension and not decode.is_picture(file):
        return FileFacts.unread("other", "no picture")
    file.seek(0)
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
