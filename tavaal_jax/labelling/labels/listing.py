"""Which files below folders of labels are read, and which are passed over."""

import functools
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.inventory import EXTENSIONS
from tavaal_jax.labelling.labels.rows import REQUESTS
from tavaal_jax.labelling.passed_over import PassedOver, collected, natural, printable

_METADATA = ("metadata.csv", "metadata.jsonl")
_READ = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_PACKED = (
    ".xlsx", ".xlsm", ".xls", ".ods", ".numbers", ".zip", ".gz", ".tgz", ".tar", ".7z", ".rar",
    ".parquet", ".feather", ".arrow",
)  # fmt: skip
"""Files that may well hold labels, which people are asked to save otherwise."""
_ELSEWHERE = {".icloud": "iCloud: download it", ".gsheet": "Google Drive: save it as CSV"}
"""Files that stand for one whose content is not on this disk."""
_FROM_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin")
_HIDDEN = "files hidden or of other programs"
OTHERS = f"files of other kinds than {' '.join(_READ)} and images in class folders"
_LIST = re.compile(r"to_label/cycle_\d{3,}/to_label(?:_\d+of\d+)?\.csv")
_PARTS_OF_REQUESTS = re.compile(
    r"to_label/cycle_\d{3,}/(?:index\.html|HOWTO\.txt|label_studio\.(?:json|xml))"
)
_BESIDE = "files in to_label/ beside its lists (answers of your own belong into labels/)"
_DESCRIBED = "images that a metadata file describes"


class File(NamedTuple):
    """A file to be read."""

    source: str
    """Its name in messages: its path below the folder that holds the folder of labels."""
    path: pathlib.Path
    root: pathlib.Path
    """The given folder, or the folder of the given file."""
    is_named: bool
    """Given itself, not found in a folder: it is read whatever its name."""


def order(file: File) -> tuple[object, ...]:
    """Sort key of files: their names, numbers in them by size."""
    return (natural(file.source), file)


def files(
    folder: pathlib.Path | None, further: Sequence[pathlib.Path], passed: list[tuple[str, str]]
) -> Iterator[File]:
    """Every file to be read, once; `passed` gets what is not, kind and name."""
    every = [one for one in (folder, *further) if one is not None]
    given = [(one, root) for one in every if (root := _root(one, folder)) is not None]
    done: set[pathlib.Path] = set()
    # What is named itself first: it is read, also where it lies in one of the folders.
    for one, root in sorted(given, key=lambda pair: pair[1].is_dir()):
        name, is_folder = _source(one, root, folder), root.is_dir()
        for path in _below(root, name, done, passed) if is_folder else (root,):
            if path not in done:
                done.add(path)
                rest = f"/{utf8(path.relative_to(root))}" if is_folder else ""
                above = root if is_folder else root.parent
                yield File(printable(name + rest), path, above, not is_folder)


def requests(
    workdir: pathlib.Path, named: Sequence[pathlib.Path]
) -> tuple[list[pathlib.Path], tuple[PassedOver, ...]]:
    """Lists of the requests in a workdir, and what else people put beside them.

    `named` are files and folders that are read anyway.
    """
    lists, passed = [], []
    read = {path.resolve() for path in named}
    for path in sorted((workdir / REQUESTS).rglob("*")):
        name = f"{REQUESTS}{utf8(path.relative_to(workdir / REQUESTS))}"
        if path.is_dir() or _PARTS_OF_REQUESTS.fullmatch(name):
            continue
        if _LIST.fullmatch(name):
            lists.append(path)
        elif read.isdisjoint((path.resolve(), *path.resolve().parents)):
            _passed(path.name, printable(name))
            passed.append((_BESIDE, name))
    return lists, collected(passed)


def _root(given: pathlib.Path, folder: pathlib.Path | None) -> pathlib.Path | None:
    """A given file or folder, resolved; None where `folder` itself is missing."""
    try:
        return user_path(given, "folder.labels").resolve(strict=True)
    except FileNotFoundError as error:
        if given is folder:
            return None
        raise UserError(f"{given} does not exist: mend folder.labels") from error
    except (OSError, RuntimeError) as error:
        raise unreadable(str(given), error) from error


def utf8(path: pathlib.Path | str) -> str:
    """A path with `/`, as UTF-8 whatever the locale; other bytes are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _source(given: pathlib.Path, root: pathlib.Path, folder: pathlib.Path | None) -> str:
    """The name in messages of a given file or folder, which resolves to `root`."""
    if folder is None:
        return utf8(given)
    if given is folder:
        return folder.name
    base = folder.parent.resolve()
    return utf8(root.relative_to(base) if root.is_relative_to(base) else given)


def _below(
    root: pathlib.Path,
    name: str,
    done: Collection[pathlib.Path],
    passed: list[tuple[str, str]],
) -> Iterator[pathlib.Path]:
    """Files below a folder that are meant as labels; `passed` gets the others but for `done`."""

    def stop(error: OSError) -> None:
        raise unreadable(name, error) from error

    described: set[str] = set()
    for here, folders, files in os.walk(root, onerror=stop):
        below = utf8(pathlib.Path(here).relative_to(root) / "_")[:-1]
        called = functools.partial("{}/{}{}".format, name, below)
        passed += [
            (_HIDDEN, f"{called(utf8(folder))}/") for folder in folders if _is_hidden(folder)
        ]
        folders[:] = sorted(folder for folder in folders if not _is_hidden(folder))
        for folder in folders:
            if os.path.islink(os.path.join(here, folder)):
                raise linked(printable(called(utf8(folder))))
        # A file of metadata labels the images beside and below it, so that these folders' names
        # are no classes; but people also drop such a file among their class folders.
        described_here = here in described or any(file in _METADATA for file in files)
        if described_here and pathlib.Path(here) != root:
            described.update(os.path.join(here, folder) for folder in folders)
        for file in files:
            if pathlib.Path(here, file) in done:
                continue
            what = _passed(file, printable(called(utf8(file))))
            if not what and described_here and is_image(file):
                what = _DESCRIBED
            if what:
                passed.append((what, called(utf8(file))))
            else:
                yield pathlib.Path(here, file)


def _is_hidden(name: str) -> bool:
    small = name.casefold()
    is_lock = small.startswith("#") and small.endswith("#")
    return small.startswith((".", "~$")) or is_lock or small in _FROM_SYSTEM


def _passed(name: str, source: str) -> str:
    """The kind of file that is not read; "" for one that is.

    Raises UserError for files that may hold labels and have to be saved otherwise.
    """
    ending = ending_of(name)
    if ending in _ELSEWHERE:
        inside = name.removeprefix(".")[: -len(ending)]
        if ending != ".icloud" or ending_of(inside) in (*_READ, *EXTENSIONS):
            raise UserError(
                f"{source} stands for {printable(inside)}, which is in {_ELSEWHERE[ending]}, or"
                " take this away"
            )
    if _is_hidden(name):
        return _HIDDEN
    if ending in _PACKED:
        raise UserError(
            f"{source} is a workbook or an archive: save it as CSV, or unpack it, and take it away"
        )
    # Label Studio's target storage names files by the number of the annotation.
    is_read = ending in (*_READ, *EXTENSIONS, ".txt") or name.isdecimal()
    return "" if is_read else OTHERS


def ending_of(name: str) -> str:
    """The ending of a file's name, with its dot and caseless."""
    return os.path.splitext(name)[1].casefold()


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return ending_of(name) in EXTENSIONS


def linked(source: str) -> UserError:
    """The error about a link, which is not followed."""
    return UserError(
        f"{source} is a link: copy what it leads to, or name that in folder.labels instead"
    )


def unreadable(source: str, error: Exception) -> UserError:
    """The error about a file that cannot be read."""
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{source} cannot be read ({reason}): mend it, or take it away")
