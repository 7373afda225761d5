"""Listing of a user's folder, and a line for each kind of file that is passed over."""

import os
import pathlib
from collections.abc import Iterable

from tavaal_jax.errors import UserError

_HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")  # beside .names
_NAMED = 3


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
            # Names that are not UTF-8 cannot be printed.
            shown = ", ".join([*names[:_NAMED], *more]).encode("utf-8", "replace").decode()
            if names:
                lines.append(f"{root}: passed over {reason}: {len(names):,} ({shown})")
        return lines


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one of the system's, or begins with a dot."""
    return name.startswith(".") or name in _HIDDEN


def folders_in(folder: pathlib.Path, passed: PassedOver) -> list[str]:
    """Names of the sub-folders, sorted; hidden ones are passed over."""
    names = sorted(path.name for path in _entries(folder) if path.is_dir())
    passed.add("hidden folders", [name for name in names if is_hidden(name)])
    return [name for name in names if not is_hidden(name)]


def files_below(
    folder: pathlib.Path, deep: bool = True
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Files in a folder, and with `deep` in its sub-folders: sorted ones, and hidden ones.

    Links are followed, but never in a circle.
    """
    found: list[pathlib.Path] = []
    hidden: list[pathlib.Path] = []
    todo, seen = [folder], {folder.resolve()}
    while todo:
        for path in _entries(todo.pop()):
            if is_hidden(path.name):
                hidden += [] if path.is_dir() and not deep else [path]
            elif not path.is_dir():
                found.append(path)
            elif deep and path.resolve() not in seen:
                seen.add(path.resolve())
                todo.append(path)
    return sorted(found), sorted(hidden)


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
