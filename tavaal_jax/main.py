"""Command line: python -m tavaal_jax.main --config=digits [--workdir=runs/digits]."""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from absl import logging

from tavaal_jax import command_line
from tavaal_jax.command_line import CommandLine
from tavaal_jax.engine import allocator, supervisor
from tavaal_jax.environment import forgive_output
from tavaal_jax.errors import Interrupted, UserError, WaitingForLabels

WAITING = 75
"""Exit code where people have to answer first: EX_TEMPFAIL of sysexits.h."""


class Signals:
    """Within its context the first signal to end is remembered; a second one acts at once.

    Within a second they count as one: a process and its parent may both be sent it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0
        self._usual: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets no other one handle signals.
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


def say(text: str) -> None:
    """A line on stderr, if anybody is there to read it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # Its reader is gone, or it is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(command: CommandLine) -> None:
    """The study that a command asks for, and its table."""
    gc.set_threshold(10_000)  # Imports and traces make much that stays: a tenth of a short run.
    from tavaal_jax.engine import compilation, processes
    from tavaal_jax.report import hint, progress, summary
    from tavaal_jax.run import is_labelled_by_people, run_study

    # TFDS and Orbax warn of what is no news here: no OpenCV, a save that was cut short.
    logging.set_verbosity(logging.ERROR)
    if command.distributed:
        processes.join(command.coordinator, command.process_count, command.process_index)
    note = compilation.keep_in_cache()
    if note is not None:
        say(f"note: {note}")
    console = progress.Terminal(quiet=command.distributed and not processes.is_first())
    if not console.is_terminal:
        console.width = 160  # In a log, tables are not broken.
    with Signals() as signals, progress.Display(console) as display:
        result = run_study(
            command.config,
            command.workdir,
            progress=display,
            stop=lambda: signal.SIGPIPE if console.is_closed else signals.received,
        )
    if is_labelled_by_people(command.config):
        return  # The loop has said where it stands.
    rows = result.rows()
    console.print(summary.table(rows))
    for line in hint.lines(rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _of_another_process(error: RuntimeError | ValueError, is_distributed: bool) -> int:
    """Says what another process has met with, `-> exit code`; raises what is this one's own."""
    import jax

    from tavaal_jax.engine import processes

    if isinstance(error, processes.Elsewhere):
        say(f"error: {error}")
        return 1
    lost = is_distributed and isinstance(error, jax.errors.JaxRuntimeError | ValueError)
    if not (lost and supervisor.is_loss(error)):
        raise error
    say(f"error: {supervisor.MESSAGE} ({str(error).splitlines()[0]})")
    return supervisor.LOST


def exit_code(work: Callable[[], None]) -> int:
    """Calls `work`; says in one line what has ended it, and returns the exit code.

    A fault that the user can mend is code 2; one of ours keeps its traceback.
    """
    try:
        work()
    except WaitingForLabels as error:
        say(str(error))
        return WAITING
    except UserError as error:
        if not error.told:
            say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped by SIGINT; the same command continues")
        return 130
    except Interrupted as error:
        from tavaal_jax.engine import processes

        name = signal.Signals(error.number).name
        if processes.is_first():
            say(f"stopped by {name}; everything is saved, the same command continues")
        return 128 + error.number
    return 0


def main(argv: list[str]) -> int:
    """Runs the study that `argv` describes; returns the exit code, see `exit_code`."""
    forgive_output()
    is_distributed = False

    def work() -> None:
        nonlocal is_distributed
        command = command_line.parse(argv)  # Before what takes seconds to import.
        is_distributed = command.distributed
        for note in command.notes:
            say(f"note: {note}")
        _run(command)

    if command_line.wants_help(argv):
        print(command_line.usage())
        return 0
    try:
        return exit_code(work)
    except (RuntimeError, ValueError) as error:  # JAX raises either where a collective fails.
        return _of_another_process(error, is_distributed)


if __name__ == "__main__":
    allocator.restart_with_huge_pages()
    code = supervisor.run_supervised(sys.argv)
    if code is None:
        code = supervisor.exit_now(main) if supervisor.is_child() else main(sys.argv)
    supervisor.end(code)
