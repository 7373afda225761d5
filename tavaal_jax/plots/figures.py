"""Which figures a study's files allow, and all of them."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import data, workdir
from tavaal_jax.errors import UserError
from tavaal_jax.methods import METHODS
from tavaal_jax.plots import choices, curves, pictures

FIGURES = {
    "accuracy.png": "Figures 3 and 11: test metric over labels, and difference to random",
    "ablation.png": "Figure 6: the parts of TA-VAAL",
    "class_entropy.png": "Figure 7(a): class entropy of the picks",
    "likelihood.png": "Figure 7(b): D over the subset of the last choice",
    "loss_against_likelihood.png": "Figure 8: true loss against D at the last choice",
    "ranking_loss.png": "Figure 9: the Ranker's loss",
    "plane.png": "Figure 1: picks and boundary, for points of the plane",
    "picks.png": "Figure 13: the first picks, for images",
}


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
    record = workdir.read_config(folder)
    rows = workdir.read_results(folder)
    if record is None or not rows:
        raise UserError(f"{folder} holds no results of a study: give a study's --workdir")
    config = ConfigDict(record["config"])
    runs = workdir.runs(folder)
    curves.accuracy(rows, folder / "accuracy.png", config.dataset)
    drawn = ["accuracy.png"]
    if {"random", "tavaal"} <= {row["method"] for row in rows}:
        curves.ablation(rows, folder / "ablation.png")
        drawn.append("ablation.png")
    drawn += _of_training(folder, runs)
    diagnosed = workdir.read_diagnostics(folder)
    if diagnosed:
        choices.class_entropy(diagnosed, folder / "class_entropy.png")
        drawn.append("class_entropy.png")
    files = _choices(folder, runs)
    if not files:
        return drawn
    last = max(files) if cycle < 0 else cycle
    if last not in files:
        raise UserError(f"--cycle is {cycle}, but nothing was picked there: give 0 to {max(files)}")
    trials = sorted({number for numbers in files[last].values() for number in numbers})
    trial = trials[0] if trial < 0 else trial
    if trial not in trials:
        raise UserError(f"--trial is {trial}: give one of {', '.join(map(str, trials))}")
    judged = {
        name: [a for a in map(_arrays, trials.values()) if "logit" in a]
        for name, trials in files[last].items()
    }
    judged = {name: trials for name, trials in judged.items() if trials}
    if judged:
        choices.likelihood(judged, folder / "likelihood.png")
        drawn.append("likelihood.png")
    title = lambda c: (
        f"{config.dataset}, trial {trial}, {config.initial + c * config.budget} labelled"
    )
    chosen = lambda c: {
        name: _arrays(trials[trial]) for name, trials in files[c].items() if trial in trials
    }
    single = {name: arrays for name, arrays in chosen(last).items() if "logit" in arrays}
    if single:
        path = folder / "loss_against_likelihood.png"
        choices.loss_against_likelihood(single, path, title(last))
        drawn.append(path.name)
    dataset = _prepared(config, data_dir) if dataset is None else dataset
    if dataset is None:
        return drawn
    if dataset.is_plane:
        shown = min(4, last) if cycle < 0 else cycle
        pictures.plane(chosen(shown), dataset, folder / "plane.png", title(shown))
        return [*drawn, "plane.png"]
    pictures.contact_sheet(chosen(last), dataset, folder / "picks.png", title(last))
    return [*drawn, "picks.png"]


def _prepared(config, data_dir):
    """The data set where it needs no download or preparation, else None."""
    config.data_dir = data_dir or config.data_dir
    return data.load(config) if data.is_at_hand(config) else None


def _of_training(folder, runs):
    """Figure 9."""
    records: dict[str, list[list[dict]]] = {}
    for name, trial in runs:
        if name in ("learning_loss", "learning_loss_v2"):
            mine = workdir.read_metrics(workdir.run_folder(folder, name, trial))
            if any("ranking_loss" in record for record in mine):
                records.setdefault(name, []).append(mine)
    if not records:
        return []
    curves.ranking_losses(records, folder / "ranking_loss.png")
    return ["ranking_loss.png"]


def _choices(folder, runs):
    """Files of all choices: `{cycle: {method: {trial: path}}}`, methods in the paper's order."""
    found: dict[int, dict[str, dict[int, pathlib.Path]]] = {}
    for name, trial in sorted(runs, key=lambda run: (list(METHODS).index(run[0]), run[1])):
        for path in (workdir.run_folder(folder, name, trial) / "diagnostics").glob("cycle_*.npz"):
            cycle = int(path.stem.removeprefix("cycle_"))
            found.setdefault(cycle, {}).setdefault(name, {})[trial] = path
    return found


def _arrays(path):
    with np.load(path) as arrays:
        return dict(arrays)
