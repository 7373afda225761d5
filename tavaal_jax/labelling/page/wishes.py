"""Images that people want to be asked for next: lines of ask_next.txt in the workdir.

The next requests take those that are still to be had, as many as they ask for. The file only grows.
"""

import pathlib
from collections.abc import Sequence

from tavaal_jax.labelling.page.answer_files import append

_FILE = "ask_next.txt"


def read(workdir: pathlib.Path) -> list[str]:
    """Ids of these images, in the order in which they were asked for."""
    try:
        text = (workdir / _FILE).read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return list(dict.fromkeys(text.split()))


def add(workdir: pathlib.Path, names: Sequence[str]) -> None:
    """Adds images, and returns when that is on the disk. Raises OSError."""
    known = set(read(workdir))
    new = [name for name in names if name not in known]
    if new:
        append(workdir / _FILE, "".join(f"{name}\n" for name in new))
