"""A user's config file: what its `get_config()` returns, or what is wrong with it and where."""

import importlib.util
import pathlib
import sys
import traceback
from typing import Any

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.errors import UserError


def load(path: str | pathlib.Path, **overrides: Any) -> ConfigDict:
    """The config that a file's `get_config()` returns, with some keys overridden.

    A nested key is written with its dots: `load(path, epochs=20, **{"vae.latent": 16})`. What
    follows a colon, `file.py:argument`, is given to `get_config`. Raises UserError, which names
    file and line, for what is wrong with the file.
    """
    text, *arguments = str(path).split(":", 1)
    path = pathlib.Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"there is no config file {path}: give a file, such as configs/digits.py")
    # Config files import each other by the folder they are in.
    there = str(path.resolve().parent.parent)
    sys.path.append(there)
    try:
        spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path} is no Python file: give one, such as configs/digits.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # Where dataclasses look for their module.
        spec.loader.exec_module(module)
        config = module.get_config(*arguments)
        config.lock()
    except UserError:
        raise
    except Exception as error:  # Whatever a user's file can raise.
        raise UserError(fault_of_file(error, path)) from error
    finally:
        sys.path.reverse()
        sys.path.remove(there)  # The last one of that name, which is ours.
        sys.path.reverse()
    return configs.override(config, **overrides)


def fault_of_file(error: BaseException, path: str | pathlib.Path) -> str:
    """One line that says what a user's file raised, and where."""
    text = " ".join(str(error).split()) or "no message"
    same = lambda name: pathlib.Path(name).resolve() == pathlib.Path(path).resolve()
    at = [f.lineno for f in traceback.extract_tb(error.__traceback__) if same(f.filename)]
    if isinstance(error, SyntaxError) and error.filename and same(error.filename):
        at.append(error.lineno)
    line = f", line {at[-1]}" if at else ""
    return f"{path}{line}: {type(error).__name__}: {text}"
