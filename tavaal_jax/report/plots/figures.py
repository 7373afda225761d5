"""Draws all figures that a study's files allow."""

import pathlib
import zipfile

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax import data
from tavaal_jax.algorithm.methods import BASELINE, METHODS
from tavaal_jax.errors import UserError
from tavaal_jax.report import files, records
from tavaal_jax.report.diagnostics import LogRecord
from tavaal_jax.report.files import ConfigRecord
from tavaal_jax.report.plots import choices, curves, pictures, style
from tavaal_jax.report.plots.style import Arrays
from tavaal_jax.report.records import ClassIoU

Trials = list[tuple[str, int]]
"""(method, trial) of all trials."""
Paths = dict[str, dict[int, pathlib.Path]]
"""Files of one cycle's picks, `{method: {trial: path}}`."""

FIGURES = {
    "accuracy.png": "Figures 3 and 11: test metric over labels, and difference to random",
    "ablation.png": "Figure 6: the parts of TA-VAAL",
    "class_entropy.png": "Figure 7(a): class entropy of the picks",
    "likelihood.png": "Figure 7(b): D over the subset of the last choice",
    "loss_against_likelihood.png": "Figure 8: true loss against D at the last choice",
    "ranking_loss.png": "Figure 9: the Ranker's loss",
    "plane.png": "Figure 1: picks and boundary, for points of the plane",
    "picks.png": "Figure 13: the first picks, for images",
    "class_iou.png": "intersection over union of each class over labels, for maps",
    "maps.png": "the first picks with label, prediction and mistakes, for maps",
}


@style.own_settings()
def draw(
    folder: pathlib.Path,
    dataset: data.Dataset | None = None,
    trial: int = -1,
    cycle: int = -1,
    data_dir: str | None = None,
) -> list[str]:
    """Draws every figure that the files in `folder` allow and returns their names.

    Those that show the images need the data set: `dataset`, or what is prepared in `data_dir` (the
    study's own by default); they are left out where there is none.
    `trial` and `cycle` choose what the figures of a single choice show: -1 is the first trial, and
    the last cycle, or for Figure 1 the fifth, as in the paper. Raises UserError where there are no
    results, or none of that trial and cycle.
    """
    record, rows = records.of_study(folder)
    files.check_readable(folder, record, "draw its figures")
    config = ConfigDict(record["config"])
    if config.dataset == configs.PEOPLE:
        raise UserError(f"{folder} is people's, whose accuracy.png each training draws anew itself")
    trials_there = files.trials(folder)
    curves.accuracy(rows, folder / "accuracy.png", config.dataset)
    drawn = ["accuracy.png"]
    methods = {row["method"] for row in rows}
    if BASELINE in methods and curves.ablation(rows, folder / "ablation.png"):
        drawn.append("ablation.png")
    if by_class := _class_iou(folder, trials_there):
        curves.class_iou(by_class, folder / "class_iou.png")
        drawn.append("class_iou.png")
    drawn += _draw_ranking_losses(folder, trials_there)
    diagnosed = records.read_diagnostics(folder)
    if diagnosed:
        choices.class_entropy(diagnosed, folder / "class_entropy.png")
        drawn.append("class_entropy.png")
    found = _choices(folder, trials_there)
    if not found:
        return drawn
    last = max(found) if cycle < 0 else cycle
    if last not in found:
        raise UserError(f"--cycle is {cycle}, but nothing was picked there: give 0 to {max(found)}")
    trials = sorted({number for numbers in found[last].values() for number in numbers})
    trial = trials[0] if trial < 0 else trial
    if trial not in trials:
        raise UserError(f"--trial is {trial}: give one of {', '.join(map(str, trials))}")
    drawn += _draw_likelihoods(folder, found[last], trial, config.dataset)
    dataset = prepared(record, data_dir) if dataset is None else dataset
    if dataset is None:
        return drawn
    plane = dataset.is_plane
    if len(dataset.shape) == 1 and not plane:
        return drawn  # Features have no picture.
    shown = _fifth(found, trial) if plane and cycle < 0 else last
    chosen = {name: _arrays(there[trial]) for name, there in found[shown].items() if trial in there}
    picture, name = (
        (pictures.plane, "plane.png") if plane else (pictures.contact_sheet, "picks.png")
    )
    title = _title(config.dataset, trial, chosen)
    picture(chosen, dataset, folder / name, title)
    if not dataset.has_maps:
        return [*drawn, name]
    pictures.maps(chosen, dataset, folder / "maps.png", title)
    return [*drawn, name, "maps.png"]


def _fifth(found: dict[int, Paths], trial: int) -> int:
    """The fifth cycle of a trial, else the nearest before it, else the first after it."""
    there = sorted(c for c, by in found.items() if any(trial in trials for trials in by.values()))
    return max((cycle for cycle in there if cycle <= 4), default=there[0])


def _title(dataset: str, trial: int, chosen: dict[str, Arrays]) -> str:
    """Title of a figure of one cycle's picks."""
    labelled = len(next(iter(chosen.values()))["labelled"])
    return f"{dataset}, trial {trial}, {labelled} labelled"


def _draw_likelihoods(folder: pathlib.Path, paths: Paths, trial: int, dataset: str) -> list[str]:
    """Figures 7(b) and 8, for methods with an adversary."""
    judged = {
        name: {number: a for number, a in arrays.items() if "logit" in a}
        for name, arrays in (
            (name, {number: _arrays(path) for number, path in there.items()})
            for name, there in paths.items()
        )
    }
    judged = {name: trials for name, trials in judged.items() if trials}
    if not judged:
        return []
    likelihoods = {name: list(trials.values()) for name, trials in judged.items()}
    choices.likelihood(likelihoods, folder / "likelihood.png")
    single = {name: trials[trial] for name, trials in judged.items() if trial in trials}
    if not single:
        return ["likelihood.png"]
    path = folder / "loss_against_likelihood.png"
    choices.loss_against_likelihood(single, path, _title(dataset, trial, single))
    return ["likelihood.png", path.name]


def prepared(record: ConfigRecord, data_dir: str | None = None) -> data.Dataset | None:
    """Loads the data set of a study where it needs no download or preparation, else None.

    `data_dir` stands for the config's. Raises UserError where what is there cannot be loaded.
    """
    config = ConfigDict(record["config"])
    config.data_dir = data_dir or config.data_dir
    # Arrays that were given may bear the name of another data set.
    is_same = record.get("data") == data.fingerprint(config)
    return data.load(config) if is_same and data.is_at_hand(config) else None


def _draw_ranking_losses(folder: pathlib.Path, there: Trials) -> list[str]:
    """Figure 9, for methods that pick by a Ranker alone."""
    logs: dict[str, list[list[LogRecord]]] = {}
    for name, trial in there:
        method = METHODS.get(name)
        if method is not None and method.ranking_loss is not None and method.adversary is None:
            mine = records.read_log(files.trial_folder(folder, name, trial))
            if any("ranking_loss" in record for record in mine):
                logs.setdefault(name, []).append(mine)
    if not logs:
        return []
    curves.ranking_losses(logs, folder / "ranking_loss.png")
    return ["ranking_loss.png"]


def _class_iou(folder: pathlib.Path, there: Trials) -> dict[str, list[ClassIoU]]:
    """Rows of all class_iou.csv by method; empty without maps."""
    found: dict[str, list[ClassIoU]] = {}
    for name, trial in there:
        rows = records.read_class_iou(files.trial_folder(folder, name, trial))
        if rows:
            found.setdefault(name, []).extend(rows)
    return found


def _choices(folder: pathlib.Path, there: Trials) -> dict[int, Paths]:
    """Files of all picks by cycle, methods in the table's order."""
    found: dict[int, Paths] = {}
    for name, trial in there:
        for path in (files.trial_folder(folder, name, trial) / "diagnostics").glob("cycle_*.npz"):
            cycle = path.stem.removeprefix("cycle_")
            if cycle.isdecimal():  # Other names are copies that people have made.
                found.setdefault(int(cycle), {}).setdefault(name, {})[trial] = path
    return found


def _arrays(path: pathlib.Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}): put back a copy, or delete it"
        ) from error
