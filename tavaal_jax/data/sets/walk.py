"""Listing of a user's folder, and a line for each kind of file that is passed over."""

import os
import pathlib
import stat
from collections.abc import Iterable
from typing import NamedTuple

from tavaal_jax.errors import UserError

_HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")  # beside .names
_NAMED = 3
_LONGEST = 200  # characters of a name in a line


class PassedOver:
    """Names of files that are left out, by reason, so that nothing is left out silently."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, names: Iterable[object]) -> None:
        """Adds names of files or folders."""
        self._names.setdefault(reason, []).extend(map(str, names))

    def add_fault(self, reason: str, name: str, fault: str) -> None:
        """Adds a file, with what is wrong with it."""
        self.add(f"files that {reason}", [f"{name} ({fault})"])

    def lines(self, root: pathlib.Path) -> list[str]:
        """A line for each reason: how many, and the first three names."""
        lines = []
        for reason, names in self._names.items():
            more = [f"{len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
            shown = ", ".join([*map(_printable, names[:_NAMED]), *more])
            if names:
                lines.append(f"{root}: passed over {reason}: {len(names):,} ({shown})")
        return lines


def _printable(name: str) -> str:
    """A name in one line that can be printed anywhere, cut where it is too long."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return text[:_LONGEST] + "..." * (len(text) > _LONGEST)


class Below(NamedTuple):
    """Files in a folder and its sub-folders, each sorted."""

    files: list[pathlib.Path]
    hidden: list[pathlib.Path]
    odd: list[pathlib.Path]
    """Links that lead nowhere or in a circle, and pipes, which never end when they are read."""


def text(path: str | pathlib.PurePath) -> str:
    """A path as UTF-8, which names are in whatever the locale; other bytes as surrogates."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def path_of(root: pathlib.Path, name: str) -> pathlib.Path:
    """Path of the file that has the name `text(its path below root)`."""
    return root / os.fsdecode(name.encode("utf-8", "surrogateescape"))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one of the system's, or begins with a dot."""
    return name.startswith(".") or name in _HIDDEN


def folders_in(folder: pathlib.Path, passed: PassedOver) -> list[str]:
    """Names of the sub-folders, sorted; hidden ones are passed over."""
    names = sorted(path.name for path in _entries(folder) if path.is_dir())
    passed.add("hidden folders", [name for name in names if is_hidden(name)])
    return [name for name in names if not is_hidden(name)]


def files_below(folder: pathlib.Path, deep: bool = True) -> Below:
    """Files in a folder, and with `deep` in its sub-folders.

    Links are followed, but never in a circle.
    """
    found: list[pathlib.Path] = []
    hidden: list[pathlib.Path] = []
    odd: list[pathlib.Path] = []
    todo, seen = [folder], {folder.resolve()}
    while todo:
        for path in _entries(todo.pop()):
            mode = _mode(path)
            if is_hidden(path.name):
                hidden += [] if stat.S_ISDIR(mode) and not deep else [path]
            elif stat.S_ISREG(mode):
                found.append(path)
            elif not stat.S_ISDIR(mode) or (deep and path.resolve() in seen):
                odd.append(path)
            elif deep:
                seen.add(path.resolve())
                todo.append(path)
    return Below(sorted(found), sorted(hidden), sorted(odd))


def _mode(path: pathlib.Path) -> int:
    """What a path is, see `stat`; 0 where it leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror or error}): change its permissions, or"
            " remove it"
        ) from error


def stamp(path: pathlib.Path) -> tuple[int, int]:
    """Size and time of a file in bytes and ns; -1 of one that cannot be found."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
