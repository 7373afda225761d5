"""A cycle of people: trains on what was frozen, measures, picks, leaves what they keep.

Nothing that people do meanwhile is looked at.
"""

import dataclasses
import functools
import pathlib
import shutil
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.state import LoopState
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import HumanOracle
from tavaal_jax.engine import memory
from tavaal_jax.errors import Diverged, TrialCannotContinue, UserError
from tavaal_jax.labelling import frozen as folders
from tavaal_jax.labelling import predictions, selection, snapshot
from tavaal_jax.labelling.frozen import Frozen
from tavaal_jax.labelling.workdir import LabellingWorkdir, differences
from tavaal_jax.report import checkpoints, files, progress, records, statistics
from tavaal_jax.report.plots import curves
from tavaal_jax.study import cycle, export, setup, training
from tavaal_jax.study.model import About, load_model
from tavaal_jax.study.recorder import UNITS, Recorder
from tavaal_jax.study.trial import Stop, Trial

TRIAL = 0
"""Number of the only trial that people answer."""
_AT_ONCE = 512  # images that predictions are made of together
_FEW = 30  # test images, with less of which nothing can be said


@dataclasses.dataclass(frozen=True)
class Work:
    """A workdir of people, its config, and who is told."""

    config: ConfigDict
    workdir: LabellingWorkdir
    method: Method
    callback: progress.Callback
    stop: Stop

    @property
    def trial(self) -> pathlib.Path:
        """Folder of the trial."""
        return files.trial_folder(self.workdir.folder, self.method.name, TRIAL)

    @property
    def names(self) -> dict[str, str]:
        """File of each image that can be used, by id."""
        return {i.id: i.file for i in self.workdir.images() if i.id and i.status == "ok"}

    def say(self, text: str) -> None:
        """A line."""
        self.callback(progress.Event(text))


def check(work: Work, number: int, record: dict[str, Any]) -> None:
    """Raises UserError where cycle `number` has begun with another config than the present one."""
    changed = differences(record, work.config)
    changed += differences(record, work.config, ("methods",))
    if changed:
        raise UserError(
            f"cycle {number} in {work.workdir.folder} has begun with another config:"
            f" {', '.join(changed)}; give the old values until people are asked again, or delete"
            f" {work.workdir.cycle(number) / 'config.json'} and it begins anew"
        )


def run(work: Work, number: int, frozen: Frozen, is_last: bool) -> None:
    """Trains cycle `number` from where it stands, to its end. The last one picks nothing."""
    dataset = _dataset(work, number, frozen)
    config = work.config.copy_and_resolve_references()
    candidates = int((np.asarray(dataset.available) & (dataset.train_labels < 0)).sum())
    kept = sum(row.split == "reserved" for row in frozen.rows)
    with config.unlocked():
        config.cycles = number + 1 if is_last or not candidates else number + 2
        config.budget -= selection.share(config.budget, config.folder.test_fraction, kept)
    try:
        _train(work, config, number, dataset)
    except TrialCannotContinue as error:  # The config that it has begun with is not kept to.
        work.workdir.thaw(number)
        checkpoints.remove(work.trial / "checkpoints")
        mend = error.mend
        if isinstance(error, Diverged):
            mend = "lower the learning rates, or mend the method's value or pick"
        raise UserError(
            f"{error.what}: {mend}; the same command begins cycle {number} anew"
        ) from error
    _keep(work, number, frozen, len(dataset.test_images))


def _train(work: Work, config: ConfigDict, number: int, dataset: Dataset) -> None:
    """The trial's cycle `number`."""
    made = setup.prepare(config, work.method, dataset, setup.place(config, dataset), HumanOracle())
    about = About(
        dataset.train_ids, dataset.class_names, dataset.shape, str(dataset.train_images.dtype)
    )
    labelled = int((dataset.train_labels >= 0).sum())
    steps = sum(
        training.stage_steps(config, made.available_size, labelled, stage) * UNITS.get(stage, 0)
        for stage in cycle.stage_names(config, work.method, number)
    )
    tracker = progress.Tracker(work.callback, steps)
    first = functools.partial(_state, work, made, dataset.train_labels, number)
    recorder = lambda observe: Recorder(
        made, TRIAL, work.trial, about, tracker, lambda: None, observe, first
    )
    with memory.named(f"cycle {number}", memory.smaller(config)):
        Trial(made, TRIAL, recorder, work.stop).run()


def _dataset(work: Work, number: int, frozen: Frozen) -> Dataset:
    """Of a cycle; what has left the cache since is decoded again."""
    pixels = snapshot.cache(work.config)
    wanted = [*frozen.images, *(row.id for row in frozen.rows if row.split == "test")]
    absent = {row.id for row in frozen.rows if row.split == "absent"} | {""}
    used = {row.id for row in frozen.rows if row.split in ("train", "test")}
    lost = [n for n in dict.fromkeys(wanted) if n not in absent and pixels.rows([n])[0] < 0]
    if lost:
        paths = snapshot.paths(work.config, work.workdir, work.say)
        pixels.add([(name, paths[name]) for name in lost if name in paths])
        gone = [name for name in lost if pixels.rows([name])[0] < 0]
        needed = [name for name in gone if name in used]
        if needed:
            files_of = {image.id: image.file for image in work.workdir.images()}
            raise UserError(
                f"{len(needed)} labelled images that cycle {number} has begun with are gone, first"
                f" {files_of.get(needed[0], needed[0])}: put them back, or delete"
                f" {work.workdir.cycle(number) / 'config.json'} and it begins anew without them"
            )
        if gone:
            work.say(f"{len(gone)} images without a label are gone: they are not picked")
    return folders.dataset(frozen, pixels.array, pixels.rows)


def _state(work: Work, made: setup.Setup, labels: np.ndarray, number: int, key: Any) -> LoopState:
    """At the beginning of cycle `number`, after those that the trial's files tell of."""
    known_from = np.where(labels >= 0, 0, -1).astype(np.int32)
    state = cycle.with_labels(made, labels, known_from)
    first = cycle.stage_names(made.config, made.method, number)[0]
    results, counts = state.results.copy(), state.counts.copy()
    for row in records.read_results(work.trial):
        if row["cycle"] < number:
            metric = made.problem.metrics.index(row["metric"])
            results[row["cycle"], metric] = row["value"]
            counts[row["cycle"]] = row["labelled"]
    picks = records.read_picks(work.trial)
    mine = picks["cycle"] < number
    columns = {"picked_in": "cycle", "pick_rank": "rank", "pick_score": "score"}
    arrays = {name: getattr(state, name).copy() for name in columns}
    for name, column in columns.items():
        arrays[name][picks["index"][mine]] = picks[column][mine]
    state = state.replace(cycle=number, stage=first, results=results, counts=counts, **arrays)
    return cycle.fresh(made, key, state)


def _keep(work: Work, number: int, frozen: Frozen, tested: int) -> None:
    """The model and what it says of all images, for people; then the cycle is through."""
    workdir, measured = work.workdir, _measured(work, number, tested)
    new = workdir.folder / ".model.new"
    with files.named(new):
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(work.trial / "model", new)
    export.add_export(new, measured if measured["n"] else None)
    workdir.replace_model(new)
    _predict(work, frozen)
    records.write_results(workdir.folder, records.all_results(workdir.folder)[0])
    record = {"method": work.method.name, "labelled": sum(frozen.counts.values())}
    workdir.write_trained(number, {**record, "test": measured})
    every = [workdir.trained(n) for n in range(number + 1)]
    points = [{**r, **r["test"]} for r in every if "test" in r and r["test"]["n"]]
    if points:
        curves.measured(points, workdir.folder / "accuracy.png")
    if measured["n"]:
        few = ", too few to judge" if measured["n"] < _FEW else ""
        work.say(
            f"cycle {number}: accuracy {measured['accuracy']:.3f}"
            f" ({measured['low']:.3f} to {measured['high']:.3f}, n = {measured['n']}{few})"
        )


def _predict(work: Work, frozen: Frozen) -> None:
    """predictions.csv: of every image that can be used."""
    workdir, pixels, files_of = work.workdir, snapshot.cache(work.config), work.names
    rows = {row.id: row for row in frozen.rows}
    names = [n for n in dict.fromkeys(frozen.images) if n in files_of and pixels.rows([n])[0] >= 0]
    model = load_model(workdir.model)
    probabilities = (
        probability
        for start in range(0, len(names), _AT_ONCE)
        for probability in model.predict_proba(
            pixels.array[pixels.rows(names[start : start + _AT_ONCE])]
        )
    )
    said = (
        predictions.PredictionRow(
            name, files_of[name], probability,
            rows[name].split if name in rows else "unlabelled",
            rows[name].label if name in rows else "",
        )
        for name, probability in zip(names, probabilities, strict=True)
    )  # fmt: skip
    predictions.write(workdir.folder / "predictions.csv", frozen.classes, said)


def _measured(work: Work, number: int, tested: int) -> dict[str, Any]:
    """Accuracy on the test set with Wilson's interval."""
    values = [
        row["value"]
        for row in records.read_results(work.trial)
        if (row["cycle"], row["metric"]) == (number, "accuracy")
    ]
    if not tested or not values:
        return {"n": 0, "accuracy": None, "low": None, "high": None}
    low, high = statistics.wilson(values[0], tested)
    return {"n": tested, "accuracy": values[0], "low": low, "high": high}
