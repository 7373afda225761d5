"""The flags of the command: which config, with which keys overridden, in which folder."""

import pathlib
import warnings
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from tavaal_jax import config_file
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.renamed_keys import present_flag

USAGE = """python -m tavaal_jax.main --config=NAME [--workdir=FOLDER] [--config.KEY=VALUE ...]

Runs a study, or continues the one in its workdir. --config is a file or one of these names:"""


class CommandLine(NamedTuple):
    """What a command asks for."""

    config: ConfigDict
    workdir: pathlib.Path
    distributed: bool
    coordinator: str
    """host:port of the first process; empty: JAX finds it."""
    process_count: int
    process_index: int
    notes: list[str]
    """What the user is to be told of it: keys whose names are old."""


def parse(argv: list[str]) -> CommandLine:
    """Reads a command's arguments; `argv[0]` is the program. UserError for the first fault."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", FutureWarning)
        name, rest = _split(argv)
        config = config_file.load(name)
        try:
            values = _flags(config, rest)
            others = values(rest)
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"the flags cannot be read: {_fault(error, rest)}") from error
    if len(others) > 1:
        raise UserError(f"unknown argument {others[1]!r}: flags are written --name=value")
    found = CommandLine(
        values["config"].value,
        user_path(values.workdir or f"runs/{config_file.stem(name)}", "--workdir"),
        values.distributed,
        values.coordinator,
        values.process_count,
        values.process_index,
        list(dict.fromkeys(str(warning.message) for warning in caught)),
    )
    alone = (found.coordinator, found.process_count, found.process_index) == ("", 0, -1)
    if not found.distributed and not alone:
        raise UserError("--coordinator, --process_count, --process_index: give --distributed too")
    return found


def wants_help(argv: list[str]) -> bool:
    """Whether a command asks only how it is used."""
    return any(argument in ("--help", "-help", "-h", "--helpfull") for argument in argv[1:])


def usage() -> str:
    """How the command is used, and the configs that there are by name."""
    return f"{USAGE}\n{config_file.listing()}\n\n{_flags(None, []).main_module_help()}".rstrip()


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """The config that is named last, and all other arguments with the names of today."""
    name, rest, following = "", [], iter(argv)
    for argument in following:
        flag, equals, value = argument.partition("=")
        if flag in ("-config", "--config"):
            name = value if equals else next(following, "")
        else:
            rest.append(present_flag(argument))
    if not name:
        raise UserError(
            "--config is missing: give a file, or the name of one of these, such as"
            f" --config=digits\n{config_file.listing()}"
        )
    return name, rest


def _flags(config: ConfigDict | None, argv: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for define, name, default, text in (
        (flags.DEFINE_string, "workdir", None, "Folder of the study; default: runs/<config>."),
        (flags.DEFINE_bool, "distributed", False, "Join the other processes of a pod or cluster."),
        (flags.DEFINE_string, "coordinator", "", "host:port of the first process; else found."),
        (flags.DEFINE_integer, "process_count", 0, "How many processes there are; else found."),
        (flags.DEFINE_integer, "process_index", -1, "Which one this is; 0 is the first."),
    ):
        define(name, default, text, flag_values=values)  # type: ignore[arg-type]
    if config is not None:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    return values


def _fault(error: Exception, argv: list[str]) -> str:
    """What is wrong with the flags, in one line."""
    text = str(error.args[0] if error.args else error)
    if text[:1] == text[-1:] == "'":  # The repr of a text, as a KeyError holds it.
        text = text[1:-1].replace("\\n", " ").replace("\\'", "'")
    name = text.strip("'\"")
    for argument in argv:  # Of a key that none is like only the name is said.
        key = argument.lstrip("-").partition("=")[0]
        if key.startswith("config.") and name in key.split("."):
            text = f"{key}: the config has no {name}; tavaal_jax/config_keys.py lists all keys"
    return " ".join(text.split())
