"""Locks of folders, and who has them."""

import contextlib
import datetime
import os
import pathlib
import socket
import warnings
from contextlib import AbstractContextManager

import filelock

from tavaal_jax.errors import UserError


def lock(folder: pathlib.Path, name: str, fault: str) -> AbstractContextManager[object]:
    """Locks a file at once, until the context ends; the file beside it tells who has it."""
    path, holder, held = folder / name, folder / f"{name}.holder", contextlib.ExitStack()
    warned: list[warnings.WarningMessage] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            held.enter_context(filelock.FileLock(path).acquire(timeout=0))
    except filelock.Timeout as error:
        with contextlib.suppress(OSError):
            fault += f" ({holder.read_text('utf-8', 'replace')})"
        mend = "wait for it, or give another --workdir"
        if warned:  # Without locks of the disk, the file itself is one, and outlives its process.
            mend += f"; if it, or its machine, is gone, delete {path}"
        raise UserError(f"{fault}: {mend}") from error
    except OSError as error:
        raise UserError(
            f"cannot write to workdir {folder} ({error.strerror or error}): give another --workdir"
        ) from error
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    # On a full disk the lock is one all the same.
    with contextlib.suppress(OSError):
        holder.write_text(
            f"process {os.getpid()} on {socket.gethostname()}, since {since}", "utf-8"
        )
    held.callback(_remove, holder)
    return held


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
