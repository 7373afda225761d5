"""What a run tells while it trains: JSON lines, TensorBoard, progress on a terminal or in a log."""

import json
import pathlib
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tavaal_jax import workdir


class JsonLines:
    """`metrics.jsonl`: one object per line, in the order of the run even after an interruption."""

    def __init__(self, path: pathlib.Path, keep: Callable[[dict], bool]):
        """Continues `path`; lines that `keep` refuses, or that are cut short, are dropped first."""
        lines = path.read_text().splitlines() if path.exists() else []
        records = [(line, workdir.parse_record(line)) for line in lines]
        kept = [line for line, record in records if record is not None and keep(record)]
        if kept != lines:
            workdir.write(path, "".join(f"{line}\n" for line in kept))
        self._path = path
        self._file = path.open("a")

    def write(self, record: dict) -> None:
        """Appends one record."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def records(self) -> list[dict]:
        """All records, those of earlier processes included."""
        return workdir.read_metrics(self._path.parent)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def tensorboard_writer(folder: pathlib.Path):
    """A TensorBoard writer below `folder`; needs the extra."""
    import tensorboardX

    return tensorboardX.SummaryWriter(str(folder))


class Display:
    """Progress of a study: a bar with the time left on a terminal, one line per event elsewhere.

    Work is counted in units that the caller defines.
    """

    def __init__(self, total: int, console: Console):
        self._console, self._total = console, total
        self._done = self._skipped = 0
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
        self._task = self._bar.add_task("", total=total)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *error):
        self._bar.stop()

    def advance(self, units: int, text: str) -> None:
        """`units` of work are done; `text` says at what."""
        self._done += units
        self._bar.update(self._task, completed=self._done, description=text)

    def skip(self, units: int) -> None:
        """`units` of work were done by an earlier process: they say nothing about the speed."""
        self._skipped += units
        self._done += units
        self._bar.update(self._task, completed=self._done)

    def line(self, text: str) -> None:
        """A line that stays."""
        left = "" if self._console.is_terminal else f"  [{self._time_left()}]"
        self._console.print(f"{text}{left}", highlight=False, markup=False, soft_wrap=True)

    def _time_left(self):
        fresh = self._done - self._skipped
        if not fresh:
            return "time left unknown"
        seconds = (time.monotonic() - self._begin) / fresh * (self._total - self._done)
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"


def final_table(rows: list[dict]) -> Table:
    """Mean and standard deviation (n - 1) over trials per method and number of labels."""
    metrics = sorted({row["metric"] for row in rows})
    table = Table(title="mean ± standard deviation over trials")
    table.add_column("labelled")
    table.add_column("n", justify="right")
    counts = sorted({row["labelled"] for row in rows})
    for labelled in counts:
        table.add_column(str(labelled), justify="right")
    for metric in metrics:
        for name in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if (row["method"], row["metric"]) == (name, metric)]
            at = {x: [row["value"] for row in mine if row["labelled"] == x] for x in counts}
            n = len({row["trial"] for row in mine})
            label = name if len(metrics) == 1 else f"{name}, {metric}"
            table.add_row(label, str(n), *map(_mean_and_deviation, at.values()))
    return table


def _mean_and_deviation(values):
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.3f}\n± {variance**0.5:.3f}"
