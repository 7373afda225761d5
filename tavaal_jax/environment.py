"""What a machine's environment may lack: a home directory, letters on the terminal."""

import io
import os
import pathlib
import sys

from tavaal_jax.errors import UserError


def user_path(given: str | os.PathLike[str], name: str) -> pathlib.Path:
    """A path, with `~` as the home directory; UserError, with the key's `name`, where none is."""
    try:
        return pathlib.Path(given).expanduser()
    except RuntimeError as error:
        user = pathlib.PurePath(given).parts[0].removeprefix("~")
        whose = f" of {user}" if user else ""
        raise UserError(
            f"{name} is {os.fspath(given)}, and there is no home directory{whose}: give a path"
            " without ~"
        ) from error


def forgive_output() -> None:
    """Makes stdout and stderr replace what their encoding lacks, such as letters of a class."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
