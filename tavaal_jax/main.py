"""Command line: python -m tavaal_jax.main --config=configs/digits.py [--workdir=runs/digits]."""

import os
import pathlib
import signal
import sys
import time
from types import FrameType
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from tavaal_jax import config, config_file
from tavaal_jax.engine import allocator, supervisor
from tavaal_jax.errors import Interrupted, UserError, WaitingForLabels

WAITING = 75
"""Exit code where people have to answer first: EX_TEMPFAIL of sysexits.h."""

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/; keys can be overridden."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the study; default: runs/<config's name>."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of a pod or cluster."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "With --distributed, host:port of the first process; default: found by JAX."
)
_COUNT = flags.DEFINE_integer("process_count", 0, "How many processes there are, with it.")
_INDEX = flags.DEFINE_integer("process_index", -1, "Which of them this one is, 0 is the first.")


class Signals:
    """Within its context the first signal to end is remembered; a second one acts at once.

    Within a second they count as one: a process and its parent may both be sent it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0
        self._usual: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in supervisor.signals():
            self._usual[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self.received is None:
            self.received, self._when = number, now
        elif now - self._when > 1:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)


def _parse(argv: list[str]) -> pathlib.Path:
    """Reads the flags; the config's file. UserError for anything that is wrong with them."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        given, value = value, value if equals else following
        if name in ("-config", "--config") and value:
            config_file.load(value)  # What is wrong with the file itself is named with its line.
            if given.startswith("~"):  # A shell expands it only where it begins a word.
                argv[argv.index(argument)] = f"{name}={pathlib.Path(given).expanduser()}"
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.lock()  # A config that could not be loaded raises here.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        text = str(error.args[0] if error.args else error)
        if text[:1] == text[-1:] == "'":  # The repr of a text, as a KeyError holds it.
            text = text[1:-1].replace("\\n", " ").replace("\\'", "'")
        name = text.strip("'\"")
        for argument in argv:  # The name alone is said of a key that none is like.
            key = argument.lstrip("-").partition("=")[0]
            if key.startswith("config.") and name in key.split("."):
                text = f"{key}: the config has no {name}; tavaal_jax/config.py lists all keys"
        raise UserError(f"the flags cannot be read: {' '.join(text.split())}") from error
    if len(rest) > 1:
        raise UserError(f"unknown argument {rest[1]!r}: flags are written --name=value")
    if _CONFIG.value is None:
        raise UserError("--config is missing: give a file, for example --config=configs/digits.py")
    alone = not _DISTRIBUTED.value
    if alone and (_COORDINATOR.value or _COUNT.value != 0 or _INDEX.value != -1):
        raise UserError("--coordinator, --process_count, --process_index: give --distributed too")
    return pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]))


def _say(text: str) -> None:
    """A line on stderr, if anybody is there to read it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(argv: list[str]) -> None:
    """The study that `argv` describes, and its table."""
    file = _parse(argv)  # Before what takes seconds to import.
    from tavaal_jax.engine import compilation, processes
    from tavaal_jax.report import hint, progress, summary
    from tavaal_jax.run import run_study

    # TFDS and Orbax warn of what is no news here: no OpenCV, a save that was cut short.
    logging.set_verbosity(logging.ERROR)
    if _DISTRIBUTED.value:
        processes.join(_COORDINATOR.value, _COUNT.value, _INDEX.value)
    compilation.keep_in_cache()
    folder = pathlib.Path(_WORKDIR.value or f"runs/{file.stem}").expanduser()
    console = progress.Terminal(quiet=_DISTRIBUTED.value and not processes.is_first())
    if not console.is_terminal:
        console.width = 160  # In a log, tables are not broken.
    with Signals() as signals, progress.Display(console) as display:
        result = run_study(
            _CONFIG.value,
            folder,
            progress=display,
            stop=lambda: signal.SIGPIPE if console.is_closed else signals.received,
        )
    if _CONFIG.value.dataset == config.FOLDER:
        return  # People have been told.
    rows = result.rows()
    console.print(summary.table(rows))
    for line in hint.lines(rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _of_another_process(error: RuntimeError) -> int:
    """Says what another process has met with, `-> exit code`; raises what is this one's own."""
    import jax

    from tavaal_jax.engine import processes

    if isinstance(error, processes.Elsewhere):
        _say(f"error: {error}")
        return 1
    lost = _DISTRIBUTED.value and isinstance(error, jax.errors.JaxRuntimeError)
    if not (lost and supervisor.is_loss(error)):
        raise error
    _say(f"error: {supervisor.MESSAGE} ({str(error).splitlines()[0]})")
    return supervisor.LOST


def main(argv: list[str]) -> int:
    """Runs the study that `argv` describes; returns the exit code.

    A fault that the user can mend is one line and code 2; one of ours keeps its traceback.
    """
    code = 0
    try:
        _run(argv)
    except WaitingForLabels as error:
        _say(str(error))
        code = WAITING
    except UserError as error:
        if not error.told:
            _say(f"error: {error}")
        code = 2
    except KeyboardInterrupt:
        _say("stopped by SIGINT; the same command continues")
        code = 130
    except Interrupted as error:
        from tavaal_jax.engine import processes

        name = signal.Signals(error.number).name
        if processes.is_first():
            _say(f"stopped by {name}; everything is saved, the same command continues")
        code = 128 + error.number
    except RuntimeError as error:
        code = _of_another_process(error)
    return code


if __name__ == "__main__":
    allocator.restart_with_huge_pages()
    code = supervisor.run_supervised(sys.argv)
    if code is None:
        app.define_help_flags()
        code = supervisor.exit_now(main) if supervisor.is_child() else main(sys.argv)
    sys.exit(code)
