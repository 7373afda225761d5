"""Files of a trial's folder as bytes, to be moved to another machine and back."""

import os
import pathlib
import shutil

from tavaal_jax.report import files

Marks = dict[str, tuple[int, int]]
"""Time of change and size of files, by their names in the trial's folder."""
_CHECKPOINTS = "checkpoints"


def changed(folder: pathlib.Path, marks: Marks, checkpoints: int = 1) -> dict[str, bytes]:
    """Reads the files that are not as in `marks`, which is updated, by their names in `folder`.

    Of the checkpoints only the newest ones, that many, are read: older ones may be deleted now.
    """
    # Checkpoints are renamed and deleted meanwhile, which a walk takes no offence at.
    kept = {str(number) for number in _numbers(folder)[:checkpoints]}
    names = []
    for here, folders, there in os.walk(folder):
        place = pathlib.Path(here).relative_to(folder)
        if place.parts[:1] == (_CHECKPOINTS,) and len(place.parts) == 1:
            folders[:] = sorted(kept & set(folders))
            continue
        names += [place / name for name in there]
    found = {}
    for place in sorted(names):
        path = folder / place
        if place.parts[0].startswith((".", "unreadable_")):
            continue
        name, stat = place.as_posix(), path.stat()
        mark = stat.st_mtime_ns, stat.st_size
        if marks.get(name) != mark:
            marks[name], found[name] = mark, path.read_bytes()
    return found


def write(folder: pathlib.Path, content: dict[str, bytes]) -> None:
    """Writes files that `changed` has read, each of them and each checkpoint whole.

    Checkpoints come last: a trial's other files may be ahead of them, not behind. The two newest
    are kept.
    """
    saved: dict[int, dict[str, bytes]] = {}
    for name, text in content.items():
        place = pathlib.PurePosixPath(name)
        if place.parts[0] == _CHECKPOINTS:
            saved.setdefault(int(place.parts[1]), {})["/".join(place.parts[2:])] = text
        else:
            with files.named(folder / name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.write(folder / name, text)
    for number, parts in sorted(saved.items()):
        _write_checkpoint(folder, number, parts)
    for number in _numbers(folder)[2:]:
        shutil.rmtree(folder / _CHECKPOINTS / str(number), ignore_errors=True)


def _write_checkpoint(folder: pathlib.Path, number: int, parts: dict[str, bytes]) -> None:
    path, temporary = folder / _CHECKPOINTS / str(number), folder / ".checkpoint.tmp"
    with files.named(path):
        shutil.rmtree(temporary, ignore_errors=True)
        for name, content in parts.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)


def _numbers(folder: pathlib.Path) -> list[int]:
    """Numbers of the checkpoints that are whole, newest first."""
    # One that is being written has another name until it is whole.
    found = [path.name for path in (folder / _CHECKPOINTS).glob("*") if path.is_dir()]
    return sorted((int(name) for name in found if name.isdecimal()), reverse=True)
