"""What a study tells while it runs: events for a callback, and a display of them."""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Event(NamedTuple):
    """Something that has just been done."""

    text: str | None = None
    """A line worth keeping, if there is one."""
    done: float | None = None
    """Share of the study's work that is done, estimated; None: as before."""
    skipped: float = 0.0
    """Share that an earlier process had done: it says nothing about the speed."""
    method: str | None = None
    trial: int | None = None
    cycle: int | None = None
    stage: str | None = None
    step: int | None = None
    metrics: dict[str, float] | None = None
    """Means over the steps since the last event, or a stage's figures."""


Callback = Callable[[Event], None]


def silent(event: Event) -> None:
    """The callback of nobody."""
    del event


class Tracker:
    """Turns units of work, as the caller defines them, into events."""

    def __init__(self, callback: Callback, total: int):
        self._callback, self._total = callback, max(1, total)
        self._done = self._skipped = 0

    def __call__(self, text: str | None = None, units: int = 0, skipped: int = 0, **place: Any):
        """`units` of work were done now, `skipped` by an earlier process; `place` as in Event."""
        self._done += units + skipped
        self._skipped += skipped
        done = min(1.0, self._done / self._total)
        self._callback(Event(text, done, self._skipped / self._total, **place))


class Terminal(Console):
    """Where a study is shown; when it is closed (`| head -1`), it is written to no more."""

    is_closed = False

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """What rich calls when nobody reads any more; its own ends the program."""
        self.quiet = self.is_closed = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


class Display:
    """A callback: a bar with the time left on a terminal, one line per event elsewhere."""

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
            self._done, self._skipped = event.done, event.skipped
            place = (event.method, "trial", event.trial, "cycle", event.cycle, event.stage)
            text = " ".join(map(str, (*place, event.step)))
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
