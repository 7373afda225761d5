"""Progress of a running study: events for a callback, their display, and how often they come."""

import contextlib
import os
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict, Unpack

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tavaal_jax.errors import UserError


class Event(NamedTuple):
    """Report of something that has just been done."""

    text: str | None = None
    """A line for the log, if there is one."""
    done: float | None = None
    """Estimated share of the study's work that is done; None: as before."""
    skipped: float = 0.0
    """Share that an earlier process had done, to be left out of estimates of speed."""
    method: str | None = None
    trial: int | None = None
    cycle: int | None = None
    stage: str | None = None
    step: int | None = None
    metrics: dict[str, float] | None = None
    """Means over the steps since the last event, or a stage's figures."""


class Place(TypedDict, total=False):
    """Fields of `Event` that say where in the study it happened, and its figures."""

    method: str | None
    trial: int | None
    cycle: int | None
    stage: str | None
    step: int | None
    metrics: dict[str, float] | None


Callback = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignores an event."""
    del event


@contextlib.contextmanager
def attempt(what: str, say: Callable[[str], None], mend: str) -> Iterator[None]:
    """Context whose failure is a line: what only shows results must not end what has made them.

    A UserError is raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Whatever Matplotlib, Pillow and this machine can raise.
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        say(f"warning: no {what} ({reason}): the results stand; {mend}")


class Tracker:
    """Turns units of work, whose size the caller defines, into events."""

    def __init__(self, callback: Callback, total: int):
        self._callback, self._total = callback, max(1, total)
        self._done = self._skipped = 0

    def __call__(
        self, text: str | None = None, units: int = 0, skipped: int = 0, **place: Unpack[Place]
    ) -> None:
        """Reports `units` of work done now and `skipped` ones done by an earlier process."""
        self._done += units + skipped
        self._skipped += skipped
        done = min(1.0, self._done / self._total)
        self._callback(Event(text, done, self._skipped / self._total, **place))


class Terminal(Console):
    """Console that goes quiet when its reader is gone (`| head -1`)."""

    is_closed = False

    def print(self, *objects: object, **options: Any) -> None:
        """Prints as rich's `Console.print`."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Goes quiet; rich's own reaction to a broken pipe ends the program."""
        self.quiet = self.is_closed = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


class Display:
    """Callback that shows a bar with the time left on a terminal, elsewhere a line per event."""

    def __init__(self, console: Console):
        self._console = console
        self._done = self._skipped = 0.0
        self._begin = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        if event.done is not None:
            if event.done < self._done:  # Something else begins, such as training after features.
                self._begin = time.monotonic()
            self._done, self._skipped = event.done, event.skipped
            place = (event.method, "trial", event.trial, "cycle", event.cycle)
            trial = place if event.method is not None else ()
            text = " ".join(map(str, (*trial, event.stage, event.step)))
            self._bar.update(self._task, completed=self._done, description=text)
        if event.text is not None:
            running = event.method is not None and self._done < 1 and not self._console.is_terminal
            left = f"  [{self._time_left()}]" if running else ""
            self._console.print(
                f"{event.text}{left}", highlight=False, markup=False, soft_wrap=True
            )

    def _time_left(self) -> str:
        fresh = self._done - self._skipped
        if fresh <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self._begin) / fresh * (1.0 - self._done)
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"


class Throttle:
    """Wrapper that skips calls of `act` so that it takes at most a twentieth of the time."""

    def __init__(self, act: Callable[[], object]):
        self._act, self._next = act, 0.0

    def __call__(self) -> None:
        """Calls `act`, or skips it."""
        begin = time.monotonic()
        if begin >= self._next:
            self._act()
            now = time.monotonic()
            self._next = now + 19 * (now - begin)
