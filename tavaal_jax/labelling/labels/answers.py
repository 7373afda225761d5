"""Reads the answers in a folder of label files, and in folders named like classes."""

import errno
import io
import os
import pathlib
import stat
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.inventory import EXTENSIONS, Image, printable
from tavaal_jax.labelling.labels.formats import MOST_ROWS, parse
from tavaal_jax.labelling.labels.rows import Answer

__all__ = ["Answer", "content_id", "read"]

MOST_BYTES = 100 * 2**20
"""Limit for one file."""
MOST_FILES = 1000
"""Limit for files of several rows; Label Studio's target storage has a file per annotation."""
NO_CLASS = ("_unsorted", "unlabelled", "unlabeled", "no_label")
"""Folders of images without a class; the last is CVAT's."""

_METADATA = ("metadata.csv", "metadata.jsonl")
_LEFTOVERS = ("~", ".swp", ".swo", ".tmp", ".part", ".crdownload")
_FROM_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")
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
) -> list[Answer]:
    """All answers below a folder and in further files and folders.

    `folder` may be missing, the others may not. `keep_annotators`: annotators are called by their
    mail addresses instead of Label Studio's numbers, where it gives both. Raises UserError at the
    first fault: nothing is half-read.
    """
    found: list[Answer] = []
    rows = files = 0
    for file in sorted(_files(folder, further)):
        source, path, _ = file
        if _is_image(path.name):
            answers, count = _from_class_folder(file), 1
        else:
            answers, count = parse(_text(_bytes(path, source), source), source, keep_annotators)
            files += count != 1
        found += answers
        rows += count
        if rows > MOST_ROWS:
            raise UserError(f"{source}: more than {MOST_ROWS:,} rows of labels: take some away")
        if files > MOST_FILES:
            raise UserError(
                f"{source}: more than {MOST_FILES:,} files of labels: join some, or take them away"
            )
    return found


def content_id(path: pathlib.Path) -> str:
    """The content id of an image file, see `decode.content_id`."""
    with _opened(path) as file:
        return decode.content_id(file)


# Which files


class _File(NamedTuple):
    source: str
    """Its name in messages: its path below the folder that holds the folder of labels."""
    path: pathlib.Path
    root: pathlib.Path
    """The given folder, or the folder of the given file."""


def _files(folder: pathlib.Path | None, further: Sequence[pathlib.Path]) -> Iterator[_File]:
    """Every file to be read, once."""
    done: set[pathlib.Path] = set()
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
        name, is_folder = _source(given, root, folder), root.is_dir()
        for path in _below(root, name) if is_folder else (root,):
            if path not in done:
                done.add(path)
                rest = f"/{path.relative_to(root).as_posix()}" if is_folder else ""
                yield _File(printable(name + rest), path, root if is_folder else root.parent)


def _source(given: pathlib.Path, root: pathlib.Path, folder: pathlib.Path | None) -> str:
    """The name in messages of a given file or folder, which resolves to `root`."""
    if folder is None:
        return given.as_posix()
    if given is folder:
        return folder.name
    base = folder.parent.resolve()
    return (root.relative_to(base) if root.is_relative_to(base) else given).as_posix()


def _below(root: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Files below a folder, without those that programs leave behind."""

    def stop(error: OSError) -> None:
        raise _unreadable(name, error) from error

    described: set[str] = set()
    for here, folders, files in os.walk(root, onerror=stop):
        folders[:] = sorted(folder for folder in folders if not _is_left_behind(folder))
        for folder in folders:
            if os.path.islink(os.path.join(here, folder)):
                raise _linked(printable(os.path.join(name, os.path.relpath(here, root), folder)))
        # A file of metadata labels the images beside and below it, so that these folders' names
        # are no classes; but people also drop such a file among their class folders.
        described_here = here in described or any(file in _METADATA for file in files)
        if described_here and pathlib.Path(here) != root:
            described.update(os.path.join(here, folder) for folder in folders)
        for file in files:
            if not _is_left_behind(file) and not (described_here and _is_image(file)):
                yield pathlib.Path(here, file)


def _is_left_behind(name: str) -> bool:
    small = name.casefold()
    return (
        small.startswith((".", "~$"))
        or small.endswith(_LEFTOVERS)
        or (small.startswith("#") and small.endswith("#"))
        or small in _FROM_SYSTEM
    )


def _is_image(name: str) -> bool:
    return name.casefold().endswith(EXTENSIONS)


def _from_class_folder(file: _File) -> list[Answer]:
    """The answer given by an image's folder; none where that is no class."""
    source, path, root = file
    if path.parent == root:
        raise UserError(
            f"{source} lies in no folder that is named like its class: move it into one, or away"
        )
    label = path.parent.name.strip()
    if label.casefold() in NO_CLASS:
        return []
    try:
        found = content_id(path)
    except OSError as error:
        raise _unreadable(source, error) from error
    name = path.relative_to(root).as_posix()
    return [Answer(source, 0, found, name, label, False, "", "")]


# From bytes to text


def _bytes(path: pathlib.Path, source: str) -> bytes:
    """Content of a file, read again where it changed meanwhile."""
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
        is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if is_same and len(data) == after.st_size:
            return data
        time.sleep(0.1)
    raise UserError(f"{source} is being written: start again when it is whole")


def _opened(path: pathlib.Path, flags: int = 0) -> io.BufferedReader:
    """A regular file, opened; raises OSError for pipes and such, which would block."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(number, "rb")


def _text(data: bytes, source: str) -> str:
    """Decodes UTF-8. Raises UserError for other encodings, workbooks and damaged text."""
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
        # That codec does not count the byte-order mark.
        first = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data.count(b"\n", 0, first) + 1
        raise UserError(
            f"{source} is not UTF-8 at byte {first} (0x{data[first]:02x}, line {line}): {_AS_UTF_8}"
        ) from error


def _linked(source: str) -> UserError:
    return UserError(
        f"{source} is a link: copy what it leads to, or name that in folder.labels instead"
    )


def _unreadable(source: str, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{source} cannot be read ({reason}): mend it, or take it away")


# Folders that are classes


def from_class_folders(
    images: Sequence[Image], classes: Sequence[str], class_folders: bool | None, key: str
) -> list[Answer]:
    """Answers given by the sub-folders of the images, where these are classes.

    `class_folders`: whether they are; None: where a class known so far is among them. Raises
    UserError, which names the config's `key` of the folder, where that is unclear.
    """
    images = [i for i in images if i.status == "ok" or i.status.startswith("duplicate_of:")]
    top_folder = {image.file: image.file.partition("/")[0] for image in images if "/" in image.file}
    named = sorted(set(top_folder.values()))
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
        Answer(key, 0, image.id, image.file, top_folder[image.file], False, "", "")
        for image in images
        if top_folder.get(image.file) in wanted
    ]
