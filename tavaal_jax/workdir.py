"""The files of a study: config.json and its check, results.csv, picks.csv, written whole."""

import csv
import importlib.metadata
import io
import json
import os
import pathlib
import subprocess
import sys

import filelock
import numpy as np

from tavaal_jax import diagnostics, statistics
from tavaal_jax.errors import UserError
from tavaal_jax.methods import METHODS
from tavaal_jax.state import LoopState

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Keys that change no result, or, like more methods and trials, only add some.
_NEUTRAL = (
    "data_dir", "methods", "trials", "first_trial", "steps_per_call", "seconds_per_call",
    "log_every_steps", "checkpoint_every_steps", "tensorboard",
)  # fmt: skip
_RESULT_FIELDS = ("method", "trial", "cycle", "labelled", "metric", "value")
_PICK_FIELDS = ("cycle", "rank", "index", "id", "score")


def claim(workdir: pathlib.Path):
    """Makes the folder and locks it against a second process: a context that ends with the lock."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(workdir / ".lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(
            f"another process is running in {workdir}: wait for it, or give another --workdir"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write to workdir {workdir} ({error.strerror or error}): give another --workdir"
        ) from error


def run_folder(workdir: pathlib.Path, method: str, trial: int) -> pathlib.Path:
    """Where one run writes."""
    return workdir / method / f"trial_{trial}"


def runs(workdir: pathlib.Path) -> list[tuple[str, int]]:
    """(method, trial) of every run that has left something in the folder."""
    return sorted(
        (path.parent.name, int(path.name.removeprefix("trial_")))
        for path in workdir.glob("*/trial_*")
        if path.parent.name in METHODS and path.name.removeprefix("trial_").isdecimal()
    )


def read_results(workdir: pathlib.Path) -> list[dict]:
    """Rows of results.csv as `result_rows` made them; none where there is no such file."""
    kinds = {"trial": int, "cycle": int, "labelled": int, "value": float}
    rows = _read_csv(workdir / "results.csv")
    return [{k: kinds.get(k, str)(v) for k, v in row.items()} for row in rows]


def read_diagnostics(workdir: pathlib.Path) -> list[dict]:
    """Rows of all diagnostics.csv as text, with `method` and `trial`, methods in the paper's
    order."""
    order = list(METHODS)
    return [
        {"method": name, "trial": trial, **row}
        for name, trial in sorted(runs(workdir), key=lambda run: (order.index(run[0]), run[1]))
        for row in _read_csv(run_folder(workdir, name, trial) / "diagnostics.csv")
    ]


def read_metrics(folder: pathlib.Path) -> list[dict]:
    """Whole records of metrics.jsonl of a run; none where there is no such file."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for record in map(parse_record, lines) if record is not None]


def parse_record(line: str) -> dict | None:
    """One line of metrics.jsonl; None for one that was cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _read_csv(path):
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_config(workdir: pathlib.Path, config) -> None:
    """UserError if the folder holds results of a config that differs in what changes results."""
    old = read_config(workdir)
    if old is None:
        return
    before, now = _flat(old["config"]), _flat(_plain(config))
    changed = sorted(key for key in before | now if before.get(key) != now.get(key))
    changed = [key for key in changed if key not in _NEUTRAL]
    if changed:
        differences = ", ".join(f"{key} ({before.get(key)} -> {now.get(key)})" for key in changed)
        raise UserError(
            f"{workdir} holds a study with another config: {differences};"
            " give the old values or another --workdir"
        )


def write_config(workdir: pathlib.Path, config) -> None:
    """config.json: what runs now, and, where that differs, what ran here earlier."""
    old = read_config(workdir)
    record = {"config": _plain(config), "versions": _versions(), "git_revision": _git_revision()}
    earlier = [] if old is None else old.pop("earlier", [])
    if old is not None and old != record:
        earlier = [*earlier, old]
    write(workdir / "config.json", json.dumps({**record, "earlier": earlier}, indent=2) + "\n")


def read_config(workdir: pathlib.Path) -> dict | None:
    """What config.json holds; None where there is none, UserError where it cannot be read."""
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        record["config"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read, so this may be another study's folder:"
            " give another --workdir, or delete that file if you are sure"
        ) from error
    return record


def _plain(config):
    return json.loads(config.to_json())


def _flat(tree, prefix=""):
    flat: dict = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _versions():
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": sys.version.split()[0], **versions}


def _git_revision():
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # Installed without git, or not from a clone.
    return done.stdout.strip()


def result_rows(config, method: str, trial: int, results: np.ndarray, metrics) -> list[dict]:
    """Rows of results.csv for one run: `results [cycles, metrics]`, NaN where not evaluated yet."""
    rows = []
    for cycle, values in enumerate(results):
        for metric, value in zip(metrics, values, strict=True):
            if np.isfinite(value):
                labelled = config.initial + cycle * config.budget
                row = (method, trial, cycle, labelled, metric, float(value))
                rows.append(dict(zip(_RESULT_FIELDS, row, strict=True)))
    return rows


def write_results(workdir: pathlib.Path, rows: list[dict]) -> None:
    """results.csv"""
    lines = [{**row, "value": f"{row['value']:.6f}"} for row in rows]
    write(workdir / "results.csv", _csv(_RESULT_FIELDS, lines))


def write_picks(folder: pathlib.Path, state: LoopState, ids: np.ndarray) -> None:
    """picks.csv of a run, all cycles so far: a function of the state alone."""
    indices = np.flatnonzero(state.labelled_in > 0)
    order = np.lexsort((state.pick_rank[indices], state.labelled_in[indices]))
    rows = [
        {
            "cycle": int(state.labelled_in[i]) - 1,
            "rank": int(state.pick_rank[i]),
            "index": int(i),
            "id": str(ids[i]),
            "score": f"{state.pick_score[i]:.9g}",
        }
        for i in indices[order]
    ]
    write(folder / "picks.csv", _csv(_PICK_FIELDS, rows))


def write_diagnostics(folder: pathlib.Path, rows: list[dict]) -> None:
    """diagnostics.csv of a run, all cycles so far; what a method does not have is empty."""
    lines = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write(folder / "diagnostics.csv", _csv(diagnostics.FIELDS, lines))


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed npz file, written whole."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)


def write_summary(workdir: pathlib.Path, rows: list[dict], title: str) -> None:
    """summary.csv and summary.md from the rows of results.csv."""
    lines = [
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        for row in statistics.summary(rows)
    ]
    write(workdir / "summary.csv", _csv(statistics.FIELDS, lines))
    text = statistics.markdown(rows, read_diagnostics(workdir), title)
    write(workdir / "summary.md", text)


def _csv(fields, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file so that it is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
