"""A user's config file: what its `get_config()` returns, or what is wrong with it and where."""

import ast
import difflib
import importlib.util
import pathlib
import sys
import traceback
from typing import Any

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError


def load(name: str | pathlib.Path, **overrides: Any) -> ConfigDict:
    """The config that a file's `get_config()` returns, with some keys overridden.

    `name` is the file's path, or for a config that comes with the package its name alone, "digits".
    A nested key is written with its dots: `load("digits", epochs=20, **{"vae.latent": 16})`. What
    follows a colon, `file.py:argument`, is given to `get_config`. Raises UserError, which names
    file and line, for what is wrong with the file.
    """
    text, arguments = _split(name)
    path = _file(text)
    # Config files import each other, by the folder they are in or as neighbours.
    there = [str(folder) for folder in path.resolve().parents[:2]][::-1]
    sys.path.extend(there)
    before = set(sys.modules)
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
        for folder in there:
            sys.path.remove(folder)  # The last one of that name, which is ours.
        sys.path.reverse()
        _forget_neighbours(path, before)
    return configs.override(config, **overrides)


def _split(name: str | pathlib.Path) -> tuple[str, list[str]]:
    """A config's path, which may have a colon in it, and what follows its colon if it has one."""
    text = str(name)
    if text.endswith(".py") or pathlib.Path(text).is_file():
        return text, []
    head, colon, argument = text.partition(".py:")
    if colon:
        return f"{head}.py", [argument]
    head, colon, argument = text.partition(":")
    return head, [argument] if colon else []


def _forget_neighbours(path: pathlib.Path, before: set[str]) -> None:
    """Drops modules imported from the file's own folder: another folder may have one so named."""
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        is_ours = name.startswith("_config_") or "." in name
        if file and not is_ours and pathlib.Path(file).parent == path.resolve().parent:
            del sys.modules[name]


def _file(text: str) -> pathlib.Path:
    """The file of a config; UserError where there is none."""
    path = user_path(text, "--config")
    if path.is_file():
        return path
    ours = _folder() / f"{text}.py"
    if pathlib.PurePath(text).name == text and ours.is_file():
        return ours
    near = difflib.get_close_matches(path.stem, _names(), 1)
    raise UserError(
        f"there is no config file {path}: give a file, or a name, such as"
        f" {near[0] if near else 'digits'}; without --config all names are listed"
    )


def _folder() -> pathlib.Path:
    """Where the package's own configs are: in the clone that it runs from, or in its wheel."""
    package = pathlib.Path(__file__).parent
    clone = package.parent / "configs"
    is_clone = (package.parent / "pyproject.toml").is_file()
    return clone if is_clone else package / "configs"


def _names() -> list[str]:
    return sorted(p.stem for p in _folder().glob("*.py") if not p.stem.startswith("_"))


def stem(name: str | pathlib.Path) -> str:
    """What a config, a path or a name, is called."""
    return pathlib.Path(_split(name)[0]).stem


def listing() -> str:
    """A line for each config that comes with the package: its name, and what it says of itself."""
    names = _names()
    width = max(map(len, names), default=0)
    return "\n".join(f"  {name:{width}}  {_first_line(name)}" for name in names)


def _first_line(name: str) -> str:
    tree = ast.parse((_folder() / f"{name}.py").read_text("utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def fault_of_file(error: BaseException, path: str | pathlib.Path) -> str:
    """One line that says what a user's file raised, and where."""
    text = " ".join(str(error).split()) or "no message"
    same = lambda name: pathlib.Path(name).resolve() == pathlib.Path(path).resolve()
    at = [f.lineno for f in traceback.extract_tb(error.__traceback__) if same(f.filename)]
    if isinstance(error, SyntaxError) and error.filename and same(error.filename):
        at.append(error.lineno)
    line = f", line {at[-1]}" if at else ""
    return f"{path}{line}: {type(error).__name__}: {text}"
