"""Progress of a study, and the seconds spent in each stage."""

import pathlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.report import files, records
from tavaal_jax.report.files import ConfigRecord
from tavaal_jax.report.records import Result
from tavaal_jax.report.summary import Cells

STAGES: dict[str, tuple[str, ...]] = {
    "train": ("solve", "task", "joint", "adversary"),
    "evaluate": ("evaluate",),
    "select": ("select",),
    "label": ("label",),
    "diagnose": ("diagnose",),
}
"""Columns of the table, and the stages of metrics.jsonl in each."""


def newest(workdir: pathlib.Path) -> float:
    """Time at which the newest result was written, seconds since the epoch."""
    paths = [files.trial_folder(workdir, *trial) / "results.csv" for trial in files.trials(workdir)]
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return max(times) if times else (workdir / "results.csv").stat().st_mtime


def progress(config: ConfigRecord, rows: Sequence[Result]) -> str:
    """Text: how many trials are finished and which are not, from the rows of results.csv."""
    cycles: dict[tuple[str, int], set[int]] = {}
    for row in rows:
        cycles.setdefault((row["method"], row["trial"]), set()).add(row["cycle"])
    if config["methods"].strip() == "all":
        names = set(METHODS)
    else:
        names = {name.strip() for name in config["methods"].split(",")} - {""}
    trials = range(config["first_trial"], config["trials"])
    absent = {(name, trial) for name in names for trial in trials} - set(cycles)
    partly = [
        f"`{name}` {trial} ({len(done)} of {config['cycles']} cycles)"
        for (name, trial), done in cycles.items()
        if len(done) < config["cycles"]
    ]
    texts = [f"{len(cycles) - len(partly)} finished, all methods together"]
    texts += [f"unfinished: {', '.join(partly)}"] if partly else []
    texts += [f"{len(absent)} without any result yet"] if absent else []
    return "; ".join(texts)


def table(workdir: pathlib.Path) -> Cells:
    """Seconds of a trial's stages per method, means over trials; its first trial by itself."""
    trials: dict[str, list[dict[str, float]]] = {}
    for method, trial in files.trials(workdir):
        spent = _spent(files.trial_folder(workdir, method, trial))
        if spent:
            trials.setdefault(method, []).append(spent)
    body = []
    for method, found in trials.items():
        totals = [sum(spent.values()) for spent in found]
        seconds = [
            *(
                np.mean([sum(s[name] for name in names) for s in found])
                for names in STAGES.values()
            ),
            np.mean(totals),
            totals[0],
            *([np.mean(totals[1:])] if totals[1:] else []),
        ]
        cells = [f"{value:.2f}" for value in seconds]
        body.append([f"`{method}`", *cells, *([] if totals[1:] else ["-"])])
    return Cells(["method", *STAGES, "whole trial", "first trial", "later trials"], body)


def _spent(trial: pathlib.Path) -> dict[str, float]:
    """Seconds of a trial's stages, `{stage: seconds}`, 0 for one that the log does not have."""
    found: dict[str, float] = defaultdict(float)
    for record in records.read_log(trial):
        if isinstance(record.get("seconds"), int | float):
            found[str(record.get("stage"))] += record["seconds"]
    return found
