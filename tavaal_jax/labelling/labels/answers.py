"""What people have answered: all that lies in a folder of labels, read once and in full."""

import errno
import hashlib
import io
import os
import pathlib
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.inventory import EXTENSIONS, Image, printable
from tavaal_jax.labelling.labels.formats import MOST_ROWS, parse
from tavaal_jax.labelling.labels.rows import Answer

__all__ = ["Answer", "content_id", "read"]

MOST_BYTES = 100 * 2**20
"""Of a file."""
MOST_FILES = 1000
"""Of more rows than one: Label Studio's target storage has a file for each annotation."""
NO_CLASS = ("_unsorted", "unlabelled", "unlabeled", "no_label")
"""Folders of images that nobody has sorted; the last is CVAT's."""

_METADATA = ("metadata.csv", "metadata.jsonl")
_LEFTOVERS = ("~", ".swp", ".swo", ".tmp", ".part", ".crdownload")
_NOT_OURS = ("thumbs.db", "desktop.ini", "__macosx")
_ENCODINGS = (  # The longer ones first: UTF-32 begins as UTF-16 does.
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip
_AS_UTF_8 = "save it as UTF-8 (in Excel: CSV UTF-8)"


def read(
    folder: pathlib.Path | None,
    further: Sequence[pathlib.Path] = (),
    *,
    keep_annotators: bool = False,
    identify: Callable[[pathlib.Path], str] | None = None,
) -> tuple[list[Answer], str]:
    """All answers below a folder and in further files and folders, and a digest of what was read.

    `folder` may be missing, the others may not. `keep_annotators`: addresses of people instead of
    Label Studio's numbers, where it gives both. `identify` tells the id of an image in a class
    folder, for those who remember it. Raises UserError: nothing is half-read.
    """
    found: list[Answer] = []
    digests: list[str] = []
    rows = files = 0
    for file in sorted(_files(folder, further)):
        source, path, _ = file
        if _is_image(path.name):
            answers, count = _sorted_image(file, identify or content_id), 1
            digests.append(f"{source} {answers[0].id if answers else ''}")
        else:
            data = _bytes(path, source)
            digests.append(f"{source} {hashlib.sha256(data).hexdigest()}")
            answers, count = parse(_text(data, source), source, keep_annotators)
            files += count != 1
        found += answers
        rows += count
        if rows > MOST_ROWS:
            raise UserError(f"{source}: more than {MOST_ROWS:,} rows of labels: take some away")
        if files > MOST_FILES:
            raise UserError(
                f"{source}: more than {MOST_FILES:,} files of labels: join some, or take them away"
            )
    return found, hashlib.sha256("\n".join(digests).encode()).hexdigest()


def content_id(path: pathlib.Path) -> str:
    """The id of an image in a file."""
    with _opened(path) as file:
        return decode.content_id(file)


# Which files


class _File(NamedTuple):
    source: str
    """What messages call it: its path in the folder that the folder of labels lies in."""
    path: pathlib.Path
    root: pathlib.Path
    """The folder that was given, or in which the file lies that was given."""


def _files(folder: pathlib.Path | None, further: Sequence[pathlib.Path]) -> Iterator[_File]:
    """Every file to be read, once."""
    seen: set[pathlib.Path] = set()
    for given in (folder, *further):
        if given is None:
            continue
        try:
            root = given.expanduser().resolve(strict=True)
        except FileNotFoundError as error:
            if given is folder:
                continue
            raise UserError(f"{given} does not exist: mend folder.labels") from error
        except (OSError, RuntimeError) as error:
            raise _unreadable(str(given), error) from error
        name, is_folder = _called(given, root, folder), root.is_dir()
        for path in _below(root, name) if is_folder else (root,):
            if path not in seen:
                seen.add(path)
                rest = f"/{path.relative_to(root).as_posix()}" if is_folder else ""
                yield _File(printable(name + rest), path, root if is_folder else root.parent)


def _called(given, root, folder):
    """A place as messages call it; `root` is what is really there."""
    if folder is None or given is folder:
        return given.as_posix() if folder is None else folder.name
    base = folder.parent.resolve()
    return (root.relative_to(base) if root.is_relative_to(base) else given).as_posix()


def _below(root: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Files below a folder but for what programs leave behind."""

    def stop(error):
        raise _unreadable(name, error) from error

    described: set[str] = set()
    for here, folders, files in os.walk(root, onerror=stop):
        folders[:] = sorted(folder for folder in folders if not _is_left_behind(folder))
        for folder in folders:
            if os.path.islink(os.path.join(here, folder)):
                raise _linked(printable(os.path.join(name, os.path.relpath(here, root), folder)))
        # Metadata say what the images beside and below them are, and the folders' names do not;
        # but people drop them among their class folders, too.
        described_here = here in described or any(file in _METADATA for file in files)
        if described_here and pathlib.Path(here) != root:
            described.update(os.path.join(here, folder) for folder in folders)
        for file in files:
            if not _is_left_behind(file) and not (described_here and _is_image(file)):
                yield pathlib.Path(here, file)


def _is_left_behind(name):
    small = name.casefold()
    return (
        small.startswith((".", "~$"))
        or small.endswith(_LEFTOVERS)
        or (small.startswith("#") and small.endswith("#"))
        or small in _NOT_OURS
    )


def _is_image(name):
    return name.casefold().endswith(EXTENSIONS)


def _sorted_image(file: _File, identify: Callable[[pathlib.Path], str]) -> list[Answer]:
    """The answer that an image's folder is: none where that is no class."""
    source, path, root = file
    if path.parent == root:
        raise UserError(
            f"{source} lies in no folder that is named like its class: move it into one, or away"
        )
    label = path.parent.name.strip()
    if label.casefold() in NO_CLASS:
        return []
    try:
        found = identify(path)
    except OSError as error:
        raise _unreadable(source, error) from error
    name = path.relative_to(root).as_posix()
    return [Answer(source, 0, found, name, label, False, "", "")]


# From bytes to text


def _bytes(path: pathlib.Path, source: str) -> bytes:
    """A file as it was at one moment: read in one go, and once more where it changed meanwhile."""
    for _ in range(3):
        try:
            with _opened(path, os.O_NOFOLLOW) as file:
                before = os.fstat(file.fileno())
                data = file.read(MOST_BYTES + 1)
                after = os.fstat(file.fileno())
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _linked(source) from error
            raise _unreadable(source, error) from error
        if max(len(data), after.st_size) > MOST_BYTES:
            raise UserError(
                f"{source} has more than {MOST_BYTES // 2**20} MB: divide it, or save labels only"
            )
        state = [(which.st_size, which.st_mtime_ns) for which in (before, after)]
        if state[0] == state[1] and len(data) == after.st_size:
            return data
        time.sleep(0.1)
    raise UserError(f"{source} is being written: start again when it is whole")


def _opened(path: pathlib.Path, flags: int = 0) -> io.BufferedReader:
    """A regular file; whatever waits for a writer raises OSError instead."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(number, "rb")


def _text(data: bytes, source: str) -> str:
    for mark, name in _ENCODINGS:
        if data.startswith(mark):
            raise UserError(f"{source} is {name}: {_AS_UTF_8}")
    if data.startswith(b"PK\x03\x04"):
        raise UserError(f"{source} is a workbook or an archive: save it as CSV, or unpack it")
    null = data.find(0)
    if null >= 0:
        start = data[:4096]
        halves = [part.count(0) / max(len(part), 1) for part in (start[::2], start[1::2])]
        if max(halves) > 0.5 and min(halves) < 0.1:  # Latin letters have an empty half.
            raise UserError(f"{source} is UTF-16: {_AS_UTF_8}")
        raise UserError(
            f"{source} has a NUL at byte {null}: it is no text, or was cut: save it anew"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The byte-order mark is not counted by that codec.
        first = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data.count(b"\n", 0, first) + 1
        raise UserError(
            f"{source} is not UTF-8 at byte {first} (0x{data[first]:02x}, line {line}): {_AS_UTF_8}"
        ) from error


def _linked(source):
    return UserError(
        f"{source} is a link: copy what it leads to, or name that in folder.labels instead"
    )


def _unreadable(source, error):
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{source} cannot be read ({reason}): mend it, or take it away")


# Folders that are classes


def of_class_folders(
    images: Sequence[Image], classes: Sequence[str], class_folders: bool | None, key: str
) -> list[Answer]:
    """What the sub-folders of the images say, where they are classes.

    `key` is the config's key of the folder, for errors. UserError where that is not known.
    """
    images = [i for i in images if i.status == "ok" or i.status.startswith("duplicate_of:")]
    tops = {image.file: pathlib.PurePosixPath(image.file).parts for image in images}
    named = sorted({parts[0] for parts in tops.values() if len(parts) > 1})
    if class_folders is None and named and not set(named) & set(classes):
        shown = ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")
        raise UserError(
            f"{key} has sub-folders ({shown}): give --config.folder.class_folders=True if they are"
            " classes, or False"
        )
    if class_folders is False:
        return []
    wanted = set(named) if class_folders else set(named) & set(classes)
    wanted = {name for name in wanted if name.casefold() not in NO_CLASS}
    return [
        Answer(key, 0, image.id, image.file, tops[image.file][0], False, "", "")
        for image in images
        if len(tops[image.file]) > 1 and tops[image.file][0] in wanted
    ]
