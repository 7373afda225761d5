"""Entries of a folder: image files to be read, and what is passed over, by kind."""

import contextlib
import errno
import os
import pathlib
import re
import stat
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tavaal_jax.data.pictures.reading import Stamp
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.passed_over import shown

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm",
)  # fmt: skip
"""File name extensions of images that are opened, in any case."""
RAW = "a raw photograph"
"""The format of what cameras save; its TIFF holds a small preview first."""
OTHERS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".avif": "AVIF", ".jxl": "JPEG XL", ".psd": "PSD", ".tga": "TGA",
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG 2000"),
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"), RAW
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
    rf"({'|'.join(map(re.escape, (*EXTENSIONS, *OTHERS)))})"
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
NO_FILE = "entries neither file nor folder (pipes, devices)"
NO_PICTURE = "files without an ending and no picture inside"
LEFT_BEHIND = "leftovers of images (backups, unfinished downloads)"
OTHER_PICTURES = "pictures in formats not read ({}): convert them to PNG"
OTHER_FILES = "files with other endings ({})"
"""Kinds of entries that are passed over."""


class Listing(NamedTuple):
    """All that is below a folder: image files, and what is passed over; paths have `/`."""

    files: dict[str, Stamp]
    """Files to be read: with an image's ending, or without any."""
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
        ending = extension(text)
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
    return extension(name) in EXTENSIONS or extension(name) in OTHERS


def extension(name: str) -> str:
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
