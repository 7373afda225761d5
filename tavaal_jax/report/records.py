"""Records of trials and studies: results, picks, diagnostics, the log of training."""

import contextlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from tavaal_jax.algorithm.state import LoopState
from tavaal_jax.errors import UserError
from tavaal_jax.report import diagnostics, files
from tavaal_jax.report.diagnostics import LogRecord

_PICK_FIELDS = ("cycle", "rank", "index", "id", "score")


class Result(TypedDict):
    """A row of results.csv."""

    method: str
    trial: int
    cycle: int
    labelled: int
    metric: str
    value: float


ClassIoU = TypedDict("ClassIoU", {"cycle": int, "labelled": int, "class": str, "iou": float})
"""A row of class_iou.csv."""
DiagnosticsRow = dict[str, Any]
"""A row of diagnostics.csv: text by column, empty where there is no value, `method` and `trial`."""
_RESULT_KINDS = {"method": str, "trial": int, "cycle": int, "labelled": int, "metric": str,
                 "value": float}  # fmt: skip


# Results: each trial has a file, a study's is their union


def result_rows(state: LoopState, method: str, trial: int, metrics: Sequence[str]) -> list[Result]:
    """Rows of a trial, one per evaluated cycle and metric; nan without a test set."""
    return [
        Result(
            method=method, trial=trial, cycle=cycle, labelled=int(state.counts[cycle]),
            metric=metric, value=float(value),
        )
        for cycle, values in enumerate(state.results)
        for metric, value in zip(metrics, values, strict=True)
        if state.counts[cycle] >= 0
    ]  # fmt: skip


def write_results(folder: pathlib.Path, rows: list[Result]) -> None:
    """Writes results.csv of a trial or of a study."""
    text = lambda value: "" if math.isnan(value) else f"{value:.6f}"
    lines = [{**row, "value": text(row["value"])} for row in rows]
    files.write(folder / "results.csv", files.as_csv(tuple(_RESULT_KINDS), lines))


def read_results(folder: pathlib.Path) -> list[Result]:
    """Rows of results.csv; none where there is no such file, UserError where it is damaged.

    Without a test set a value is nan, in the file an empty cell.
    """
    path = folder / "results.csv"
    mend = "put back a copy, or delete that trial's folder to run it anew"
    rows = files.read_csv(path, mend)
    try:
        return [
            {k: kind(row[k]) for k, kind in _RESULT_KINDS.items()}  # type: ignore[misc]
            for row in (_filled(row, "value") for row in rows)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}): {mend}"
        ) from error


def _filled(row: dict[str, str], name: str) -> dict[str, str]:
    """The row with "nan" in an empty cell; a missing cell, in a torn line, stays missing."""
    return {**row, name: "nan" if row[name] == "" else row[name]}


def of_study(folder: pathlib.Path) -> tuple[files.ConfigRecord, list[Result]]:
    """What config.json says, and the rows of results.csv; UserError where there are none."""
    record, rows = files.read_config(folder), read_results(folder)
    if record is None or not rows:
        why = "results.csv has no rows" if record else "config.json: No such file or directory"
        raise UserError(f"{folder} holds no results of a study ({why}): give a study's --workdir")
    return record, rows


def all_results(workdir: pathlib.Path) -> tuple[list[Result], list[UserError]]:
    """Results of all trials, and errors of files that could not be read.

    Trials in the study's own results.csv whose folders are gone are kept.
    """
    found: dict[tuple[str, int], list[Result]] = {}
    faults = files.copies(workdir)
    for method, trial in files.trials(workdir):
        try:
            rows = read_results(files.trial_folder(workdir, method, trial))
        except UserError as error:
            faults.append(error)
            continue
        if rows:
            found[method, trial] = rows
    with contextlib.suppress(UserError):  # A damaged union is made anew from the trials' files.
        kept: dict[tuple[str, int], list[Result]] = {}
        for row in read_results(workdir):
            kept.setdefault((row["method"], row["trial"]), []).append(row)
        found = kept | found
    return [row for key in sorted(found, key=files.order) for row in found[key]], faults


_IOU_KINDS = {"cycle": int, "labelled": int, "class": str, "iou": float}


def write_class_iou(
    folder: pathlib.Path, cycle: int, labelled: int, values: dict[str, float]
) -> None:
    """Adds a cycle's rows to class_iou.csv of a trial; an absent class has an empty cell."""
    rows: list[ClassIoU] = []
    with contextlib.suppress(UserError):  # A damaged one is begun anew.
        rows = [row for row in read_class_iou(folder) if row["cycle"] < cycle]
    rows += [
        {"cycle": cycle, "labelled": labelled, "class": name, "iou": value}
        for name, value in values.items()
    ]
    text = lambda value: f"{value:.6f}" if np.isfinite(value) else ""
    lines = [{**row, "iou": text(row["iou"])} for row in rows]
    files.write(folder / "class_iou.csv", files.as_csv(tuple(_IOU_KINDS), lines))


def read_class_iou(folder: pathlib.Path) -> list[ClassIoU]:
    """Rows of class_iou.csv of a trial, nan for an absent class; none without that file.

    Raises UserError where it is damaged.
    """
    path = folder / "class_iou.csv"
    mend = "delete that file: it is not needed to go on"
    rows = files.read_csv(path, mend)
    try:
        return [
            {k: kind(row[k]) for k, kind in _IOU_KINDS.items()}  # type: ignore[misc]
            for row in (_filled(row, "iou") for row in rows)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}): {mend}"
        ) from error


# Picks and diagnostics


def write_picks(folder: pathlib.Path, state: LoopState, ids: np.ndarray) -> None:
    """Writes picks.csv of a trial, all cycles so far, from the state alone."""
    indices = np.flatnonzero(state.picked_in >= 0)
    sorter = np.lexsort((state.pick_rank[indices], state.picked_in[indices]))
    rows = [
        {
            "cycle": int(state.picked_in[i]),
            "rank": int(state.pick_rank[i]),
            "index": int(i),
            "id": str(ids[i]),
            "score": f"{state.pick_score[i]:.9g}",
        }
        for i in indices[sorter]
    ]
    files.write(folder / "picks.csv", files.as_csv(_PICK_FIELDS, rows))


def read_picks(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Columns of picks.csv of a trial; UserError where it is damaged."""
    path = folder / "picks.csv"
    rows = files.read_csv(path)
    kinds = {"id": str, "score": np.float64}
    try:
        return {
            name: np.array([row[name] for row in rows]).astype(kinds.get(name, np.int64))
            for name in _PICK_FIELDS
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}): put back a copy"
        ) from error


def write_table(
    path: pathlib.Path, fields: Sequence[str], rows: Sequence[Mapping[str, object]]
) -> None:
    """Writes a csv of numbers with six digits; what a row does not have is empty."""
    files.write(path, files.as_csv(fields, _as_lines(rows)))


def write_diagnostics(folder: pathlib.Path, log: list[LogRecord], cycle: int, every: int) -> None:
    """Writes diagnostics.csv of a trial from its log; keeps rows of cycles missing in the log.

    `cycle` is the one under way, `every` the config's `log_every_steps`.
    """
    path, fields = folder / "diagnostics.csv", diagnostics.FIELDS
    lines = _as_lines(diagnostics.rows(log, every))
    logged = {line["cycle"] for line in lines}
    with contextlib.suppress(UserError, KeyError, ValueError):  # A damaged one is made anew.
        before = [row for row in files.read_csv(path) if set(row) == set(fields)]
        for row in before:
            number = int(row["cycle"])
            if number < cycle and number not in logged:
                lines.append({**row, "cycle": number})
    lines.sort(key=lambda line: int(str(line["cycle"])))
    files.write(path, files.as_csv(fields, lines))


def _as_lines(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    return [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def read_diagnostics(workdir: pathlib.Path) -> list[DiagnosticsRow]:
    """Rows of all diagnostics.csv; damaged files are left out."""
    return all_diagnostics(workdir)[0]


def all_diagnostics(workdir: pathlib.Path) -> tuple[list[DiagnosticsRow], list[UserError]]:
    """Rows of all diagnostics.csv, and errors of files that could not be read."""
    found: list[DiagnosticsRow] = []
    faults = []
    for method, trial in files.trials(workdir):
        path = files.trial_folder(workdir, method, trial) / "diagnostics.csv"
        try:
            rows = files.read_csv(path)
            for row in rows:
                [float(text) for text in row.values() if text]
                [float(row[name]) for name in diagnostics.ALWAYS]
        except KeyError as error:
            faults.append(UserError(f"{path} cannot be read (no column {error}): put back a copy"))
        except UserError as error:
            faults.append(error)
        except (TypeError, ValueError) as error:
            faults.append(UserError(f"{path} cannot be read ({error}): put back a copy"))
        else:
            found += [{"method": method, "trial": trial, **row} for row in rows]
    return found, faults


# The log


class Log:
    """Log metrics.jsonl: an object per line, in the trial's order even after an interruption."""

    def __init__(self, path: pathlib.Path, keep: Callable[[LogRecord], bool]):
        """Opens `path` to append; lines that `keep` refuses or that are cut short are dropped."""
        before = path.read_text("utf-8", "replace") if path.exists() else ""
        records = [(line, _record(line)) for line in before.splitlines()]
        kept = [line for line, record in records if record is not None and keep(record)]
        after = "".join(f"{line}\n" for line in kept)
        if after != before:
            files.write(path, after)
        self._path = path
        with files.named(path):
            self._file = path.open("a", encoding="utf-8")

    def write(self, record: LogRecord) -> None:
        """Appends one record."""
        with files.named(self._path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def records(self) -> list[LogRecord]:
        """All records, including those of earlier processes."""
        return read_log(self._path.parent)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_log(folder: pathlib.Path) -> list[LogRecord]:
    """Records of metrics.jsonl of a trial, lines cut short left out; none without that file."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    return [record for record in map(_record, lines) if record is not None]


def _record(line: str) -> LogRecord | None:
    """Record of one line of metrics.jsonl; None for a line that was cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
