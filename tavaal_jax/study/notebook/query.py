"""Active learning on arrays, without files: which images are worth labelling next?"""

import operator
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.algorithm.methods import METHODS, ON_FEATURES
from tavaal_jax.algorithm.state import ArrayTree, LoopState, derive
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import HumanOracle
from tavaal_jax.engine import devices, memory
from tavaal_jax.errors import UserError
from tavaal_jax.study import cycle, features, setup
from tavaal_jax.study.checks import config as checks
from tavaal_jax.study.context import Calls, Cycle, Result, ValueFault


class Query(NamedTuple):
    """The picked images, best first."""

    indices: np.ndarray
    """Indices of the images in the data set, `[budget]`."""
    scores: np.ndarray
    """Score by which each image was picked, `[budget]`."""


class _Silent(HumanOracle):
    """Oracle of a query: it never answers, and nobody waits for it."""

    def answer(self, indices: np.ndarray) -> np.ndarray:
        """No label for any of the images: `[n] -> [n]`, all -1."""
        return np.full(len(indices), -1, np.int32)


def query(
    config: ConfigDict, dataset: Dataset, method: str | None = None, budget: int | None = None
) -> Query:
    """Trains on the labels that are not -1 and picks `budget` of the other images.

    `method` is a name in METHODS, None: uncertainty herding on vectors, TA-VAAL on images.
    `config` holds the settings of the training and the budget, which `budget` overrides.
    No file is read or written, but the cache of features of a frozen backbone.
    Raises UserError for what does not fit.
    """
    try:
        count = config.budget if budget is None else operator.index(budget)
    except TypeError as error:
        raise UserError(f"budget is {budget!r}: give a whole number") from error
    rest = int((~dataset.known).sum())
    if not rest:
        raise UserError("every image has a label: give -1 to those that nobody has labelled")
    if not 1 <= count <= rest:
        raise UserError(f"budget is {count}: give 1 to {rest}, the images without a label")
    return pick(train(config, dataset, method_of(method, config, dataset, "tavaal")), count)


def method_of(name: str | None, config: ConfigDict, dataset: Dataset, on_images: str) -> str:
    """A name in METHODS; for None the best of ours on features, and `on_images` elsewhere."""
    if name is None:
        on_features = features.is_on(config) or len(dataset.shape) == 1
        return ON_FEATURES if on_features else on_images
    checks.check_name("method", name, tuple(METHODS))
    return name


class FittedMethod(NamedTuple):
    """A method whose networks are trained on all labels, before it picks."""

    setup: setup.Setup
    key: jax.Array
    """Key of the trial."""
    state: LoopState
    """State before stage `select`."""


def train(config: ConfigDict, dataset: Dataset, method: str, number: int = 0) -> FittedMethod:
    """Trains a method on the labels of `dataset` as cycle `number` of a trial does.

    Raises UserError for no labels, or fewer than a batch, and for a config that does not fit.
    """
    checks.check_name("method", method, tuple(METHODS))
    labelled = dataset.known
    count = int(labelled.sum())
    config = configs.changed(
        config, dataset=dataset.name, methods=method, diagnostics=False, cycles=1,
        initial=max(1, count), budget=1, trials=1, first_trial=0,
    )  # fmt: skip
    if not count:
        raise UserError(
            f"none of the {len(labelled)} images has a label: label some at random first, as many"
            f" as batch_size = {config.batch_size} or more"
        )
    if count < config.batch_size:
        raise UserError(
            f"batch_size is {config.batch_size}, more than the {count} labels: lower batch_size, or"
            " label more"
        )
    config = features.adapted(config, dataset)
    checks.check(config, devices.device_count(), dataset)
    dataset = features.of_dataset(config, dataset, features.source(config))
    config.cycles = number + 2  # The last one of a study picks nothing.
    placed = setup.place(config, dataset)
    made = setup.prepare(config, METHODS[method], dataset, placed, _Silent())
    key = derive(jax.random.key(config.seed), 0)
    known_from = np.where(labelled, 0, -1).astype(np.int32)
    labels = known_from if dataset.has_maps else dataset.train_labels
    stages_before = cycle.stage_names(config, METHODS[method], number)
    state = cycle.with_labels(made, labels, known_from)
    with memory.explain_full(f"training {method}", memory.advice(config)):
        state = cycle.fresh(made, key, state.replace(cycle=number, stage=stages_before[0]))
        now = Cycle(made, key, state, lambda stage: config.steps_per_call)
        for name in stages_before[: stages_before.index("select")]:
            if name != "evaluate":
                state = _end(cycle.run_stage(now, name, state)).state.replace(step=0)
    return FittedMethod(made, key, state)


def pick(trained: FittedMethod, count: int, subset: int | None = None) -> Query:
    """Picks `count` images, of `subset` random unlabelled ones (0: of all; None: as the config)."""
    state = trained.state
    with _scoring(trained):
        state = _end(cycle.run_stage(_choosing(trained, count, subset), "select", state)).state
    picks = np.flatnonzero(state.picked_in == state.cycle)
    picks = picks[np.argsort(state.pick_rank[picks])]
    return Query(picks, state.pick_score[picks])


class Values(NamedTuple):
    """What a method picks by."""

    candidates: np.ndarray
    """Indices of the images that may be picked, `[M]`."""
    value: ArrayTree
    """The method's value of each candidate, `[M, ...]`."""
    labelled: ArrayTree | None
    """Value of each labelled image, `[L, ...]`; None for a method that does not compare."""


def values(trained: FittedMethod) -> Values:
    """Computes the values of all candidates, and of L for a method that compares with it."""
    choosing, state = _choosing(trained, 1, None), trained.state
    with _scoring(trained):
        value = _end(choosing.values(state, "select", choosing.subset)).value
        if not trained.setup.method.compares:
            return Values(choosing.subset, value, None)
        known = np.flatnonzero(choosing.labelled)
        labelled = _end(choosing.values(state, "select", known)).value
        return Values(choosing.subset, value, labelled)


def _scoring(trained: FittedMethod) -> AbstractContextManager[None]:
    mend = memory.advice(trained.setup.config)
    return memory.explain_full(f"scoring by {trained.setup.method.name}", mend)


def _choosing(trained: FittedMethod, count: int, subset: int | None) -> Cycle:
    """The cycle that `trained` stands in, with a budget of `count`."""
    config = trained.setup.config
    size = config.subset if subset is None else subset
    config = configs.changed(config, budget=count, subset=max(size, count) if size else 0)
    made = trained.setup._replace(config=config)
    return Cycle(made, trained.key, trained.state, lambda stage: config.steps_per_call)


def _end(calls: Calls[Result]) -> Result:
    """Runs a generator to its end and returns its result.

    Raises UserError where a loss on the way, or a value, is not finite.
    """
    while True:
        try:
            _, report = next(calls)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        except ValueFault as error:
            raise UserError(
                f"{error}: mend the method's value or pick, or lower the learning rates if the"
                " weights have grown too large"
            ) from error
        devices.check_agreement(report.agree, report.stage)
        for name, value in report.values().items():
            if not np.isfinite(value).all():
                raise UserError(f"{name} is not finite in stage {report.stage}: lower the"
                                " learning rates")  # fmt: skip
