"""One cycle of the labelling loop: trains on frozen labels, evaluates, picks, writes the results.

Labels and images that people change meanwhile are not read.
"""

import dataclasses
import filecmp
import functools
import json
import pathlib
import shutil
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.near_duplicates import one_of_each
from tavaal_jax.algorithm.state import LoopState
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import HumanOracle
from tavaal_jax.data.pictures.cache import Decoded
from tavaal_jax.engine import memory
from tavaal_jax.errors import Diverged, TrialCannotContinue, UserError
from tavaal_jax.labelling import frozen as frozen_labels
from tavaal_jax.labelling import predictions, reading, selection
from tavaal_jax.labelling.frozen import Frozen, LabelRow
from tavaal_jax.labelling.reading import Images
from tavaal_jax.labelling.workdir import (
    FrozenCycle,
    LabellingWorkdir,
    TestScore,
    changed_among,
)
from tavaal_jax.report import checkpoints, files, progress, records, statistics
from tavaal_jax.report.plots import curves
from tavaal_jax.study import cycle, export, features, near_duplicates, setup, training
from tavaal_jax.study.features import Photos
from tavaal_jax.study.model import DatasetInfo, load_model
from tavaal_jax.study.recorder import Recorder
from tavaal_jax.study.trial import Stop, Trial

TRIAL = 0
"""Number of the only trial of a labelling loop."""
_BATCH = 512  # images that are predicted at once
_FEW = 30  # test images below which an accuracy is too uncertain


@dataclasses.dataclass(frozen=True)
class LabellingContext:
    """What all cycles of a labelling loop share."""

    config: ConfigDict
    workdir: LabellingWorkdir
    method: Method
    callback: progress.Callback
    stop: Stop

    @property
    def trial(self) -> pathlib.Path:
        """Folder of the trial."""
        return files.trial_folder(self.workdir.folder, self.method.name, TRIAL)

    def log(self, text: str) -> None:
        """Reports a line to the callback."""
        self.callback(progress.Event(text))


def check(context: LabellingContext, number: int, begun: FrozenCycle, images: Images) -> None:
    """Raises UserError where cycle `number` has begun with a config other than the present one."""
    config = context.config
    changed = files.changed_keys(begun.config, config, features.digest(images.source))
    changed += changed_among(begun.config, context.config, ("methods",))
    if changed:
        raise UserError(
            f"cycle {number} in {context.workdir.folder} has begun with another config:"
            f" {', '.join(changed)}; give the old values until the next request, or delete"
            f" {context.workdir.cycle_folder(number) / 'config.json'} and it begins anew"
        )


def run(
    context: LabellingContext, number: int, frozen: Frozen, images: Images, is_last: bool
) -> None:
    """Runs cycle `number` from its last checkpoint to its end; the last cycle picks nothing."""
    dataset = _dataset(context, number, frozen, images)
    config = context.config
    labelled = dataset.train_labels >= 0
    free = np.asarray(dataset.available) & ~labelled
    candidates = one_of_each(dataset.folds, free, labelled).sum()
    reserved = sum(row.split == "reserved" for row in frozen.rows)
    for_test = selection.test_share(config.budget, config.folder.test_fraction, reserved)
    config = configs.changed(
        config,
        cycles=number + 1 if is_last or not candidates else number + 2,
        budget=config.budget - for_test,
    )
    try:
        _train(context, config, number, dataset)
    except TrialCannotContinue as error:  # The cycle may begin again with another config.
        context.workdir.thaw(number)
        checkpoints.remove(context.trial / "checkpoints")
        mend = error.mend
        if isinstance(error, Diverged):
            mend = "lower the learning rates, or mend the method's value or pick"
        raise UserError(
            f"{error.what}: {mend}; the same command begins cycle {number} anew"
        ) from error
    _write_outputs(context, number, frozen, images, len(dataset.test_images))


def _train(context: LabellingContext, config: ConfigDict, number: int, dataset: Dataset) -> None:
    """Trains and evaluates cycle `number`, and picks, as a trial that stops there."""
    placed = setup.place(config, dataset)
    prepared = setup.prepare(config, context.method, dataset, placed, HumanOracle())
    labelled = int((dataset.train_labels >= 0).sum())
    cost = sum(
        training.stage_cost(config, prepared.available_size, labelled, stage)
        for stage in cycle.stage_names(config, context.method, number)
    )
    tracker = progress.Tracker(context.callback, cost)
    first_state = functools.partial(_state, context, prepared, dataset.train_labels, number)
    recorder = lambda observe: Recorder(
        prepared, TRIAL, context.trial, DatasetInfo.from_dataset(dataset), tracker, lambda: None,
        observe, first_state,
    )  # fmt: skip
    with memory.explain_full(f"cycle {number}", memory.advice(config)):
        Trial(prepared, TRIAL, recorder, context.stop).run()


def _dataset(context: LabellingContext, number: int, frozen: Frozen, images: Images) -> Dataset:
    """The cycle's data set; images evicted from the cache are decoded again."""
    pixels = images.cache
    wanted = [*frozen.images, *(row.id for row in frozen.rows if row.split == "test")]
    absent = {row.id for row in frozen.rows if row.split == "absent"} | {""}
    used = {row.id for row in frozen.rows if row.split in ("train", "test")}
    lost = [n for n in dict.fromkeys(wanted) if n not in absent and pixels.rows([n])[0] < 0]
    if lost:
        paths = reading.image_paths(context.config, context.workdir, context.log)
        pixels.add([(name, paths[name]) for name in lost if name in paths])
        gone = [name for name in lost if pixels.rows([name])[0] < 0]
        needed = [name for name in gone if name in used]
        if needed:
            file_by_id = {image.id: image.file for image in context.workdir.images()}
            raise UserError(
                f"{len(needed)} labelled images that cycle {number} has begun with are gone, first"
                f" {file_by_id.get(needed[0], needed[0])}: put them back, or delete"
                f" {context.workdir.cycle_folder(number) / 'config.json'} and it begins anew"
                " without them"
            )
        if gone:
            context.log(f"{len(gone)} images without a label are gone: they are not picked")
    found = frozen_labels.dataset(frozen, pixels.array, pixels.rows)
    made_by = features.made_by(images.source)
    found = dataclasses.replace(found, is_embedded=images.source is not None, made_by=made_by)
    return near_duplicates.left_out(context.config, found)


def _state(
    context: LabellingContext,
    prepared: setup.Setup,
    labels: np.ndarray,
    number: int,
    key: jax.Array,
) -> LoopState:
    """State at the beginning of cycle `number`, with results and picks of the trial's files."""
    known_from = np.where(labels >= 0, 0, -1).astype(np.int32)
    state = cycle.with_labels(prepared, labels, known_from)
    stage = cycle.stage_names(prepared.config, prepared.method, number)[0]
    results, counts = state.results.copy(), state.counts.copy()
    for row in records.read_results(context.trial):
        if row["cycle"] < number:
            metric = prepared.problem.metrics.index(row["metric"])
            results[row["cycle"], metric] = row["value"]
            counts[row["cycle"]] = row["labelled"]
    picks = records.read_picks(context.trial)
    earlier = picks["cycle"] < number
    columns = {"picked_in": "cycle", "pick_rank": "rank", "pick_score": "score"}
    arrays = {name: getattr(state, name).copy() for name in columns}
    for name, column in columns.items():
        arrays[name][picks["index"][earlier]] = picks[column][earlier]
    state = state.replace(cycle=number, stage=stage, results=results, counts=counts, **arrays)
    return cycle.fresh(prepared, key, state)


def _write_outputs(
    context: LabellingContext, number: int, frozen: Frozen, images: Images, test_size: int
) -> None:
    """Writes predictions and results for people, then trained.json, which ends the cycle."""
    workdir, score = context.workdir, _test_score(context, number, test_size)
    rows = _predictions(context.trial / "model", workdir, frozen, images.cache)
    predictions.write(workdir.folder / "predictions.csv", frozen.classes, rows)
    records.write_results(workdir.folder, records.all_results(workdir.folder)[0])
    labelled = sum(frozen.counts.values())
    workdir.write_trained(
        number, {"method": context.method.name, "labelled": labelled, "test": score}
    )
    if score["n"]:
        few = ", too few to judge" if score["n"] < _FEW else ""
        context.log(
            f"cycle {number}: accuracy {score['accuracy']:.3f}"
            f" ({score['low']:.3f} to {score['high']:.3f}, n = {score['n']}{few})"
        )


def publish(context: LabellingContext, number: int) -> None:
    """Writes model/ of a trained cycle and draws accuracy.png, unless that has been done.

    It comes after the next request: nobody has to wait for programs to be exported.
    """
    workdir, record = context.workdir, context.workdir.trained(number)
    if "skipped" in record:
        return
    model = files.trial_folder(workdir.folder, record["method"], TRIAL) / "model"
    if not (model / "model.json").exists():
        return context.log(f"{workdir.model} stays as it is: {model} is not there")
    if _is_published(model, workdir.model):
        return
    new = workdir.folder / ".model.new"
    with files.named(new):
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(model, new)
    score = record["test"]
    export.add_export(new, score if score["n"] else None, before=workdir.model)
    _draw(context, number)
    workdir.replace_model(new)


def _is_published(model: pathlib.Path, published: pathlib.Path) -> bool:
    """Whether the other folder has the model, complete with what is exported."""
    try:
        mine, theirs = (json.loads((x / "model.json").read_bytes()) for x in (model, published))
        mine_too, weights = mine.items() <= theirs.items(), "weights.npz"
        is_same = mine_too and filecmp.cmp(model / weights, published / weights, shallow=False)
        return is_same and (published / export.README).exists()
    except (OSError, ValueError):
        return False


def _draw(context: LabellingContext, number: int) -> None:
    """Draws accuracy.png of the cycles up to `number`."""
    folder = context.workdir.folder
    every = [context.workdir.trained(n) for n in range(number + 1)]
    points = [_point(r["labelled"], r["test"]) for r in every if "test" in r and r["test"]["n"]]
    if points:
        with progress.attempt("accuracy.png", context.log, "the next training draws it"):
            curves.measured(points, folder / "accuracy.png")


def _point(labelled: int, score: TestScore) -> dict[str, float]:
    """A test score as a point of the accuracy curve."""
    values = (labelled, score["n"], score["accuracy"], score["low"], score["high"])
    names = ("labelled", "n", "accuracy", "low", "high")
    return {name: v for name, v in zip(names, values, strict=True) if v is not None}


def _predictions(
    folder: pathlib.Path, workdir: LabellingWorkdir, frozen: Frozen, pixels: Decoded | Photos
) -> Iterator[predictions.PredictionRow]:
    """Prediction of the model in a folder for every usable image."""
    file_by_id = workdir.usable_files()
    known = {row.id: row for row in frozen.rows}
    unlabelled = LabelRow("", "", "unlabelled")
    names = [
        name
        for name in dict.fromkeys(frozen.images)
        if name in file_by_id and pixels.rows([name])[0] >= 0
    ]
    model = load_model(folder)
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        probabilities = model.predict_proba(pixels.array[pixels.rows(batch)])
        for name, row in zip(batch, probabilities, strict=True):
            label = known.get(name, unlabelled)
            yield predictions.PredictionRow(name, file_by_id[name], row, label.split, label.label)


def _test_score(context: LabellingContext, number: int, test_size: int) -> TestScore:
    """Accuracy on the test set with Wilson's 95 % interval."""
    values = [
        row["value"]
        for row in records.read_results(context.trial)
        if (row["cycle"], row["metric"]) == (number, "accuracy")
    ]
    if not test_size or not values:
        return {"n": 0, "accuracy": None, "low": None, "high": None}
    low, high = statistics.wilson(values[0], test_size)
    return {"n": test_size, "accuracy": values[0], "low": low, "high": high}
