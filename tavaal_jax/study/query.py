"""One question, no files: which of these images are worth labelling next?"""

import operator
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import LoopState, derive
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import HumanOracle
from tavaal_jax.engine import devices, memory
from tavaal_jax.errors import UserError
from tavaal_jax.study import checks, cycle, setup, stages
from tavaal_jax.study.context import Cycle, ValueFault


class Query(NamedTuple):
    """The answer, best first."""

    indices: np.ndarray
    """Of the picked images `[budget]`."""
    scores: np.ndarray
    """With which they were picked `[budget]`."""


class _Silent(HumanOracle):
    """The oracle of a query, which does not wait for people's answers."""

    def answer(self, indices: np.ndarray) -> np.ndarray:
        return np.full(len(indices), -1, np.int32)


def query(
    config: ConfigDict, dataset: Dataset, method: str = "tavaal", budget: int | None = None
) -> Query:
    """Trains on the labels that are not -1 and picks `budget` of the other images.

    `method` is a name in METHODS; `config` says how to train and, unless given here, the budget.
    No file is read or written. Raises UserError for a fault the user can mend.
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
    return pick(train(config, dataset, method), count)


class FittedMethod(NamedTuple):
    """Networks that have learned all that is labelled."""

    setup: setup.Setup
    key: jax.Array
    state: LoopState
    """Before the choice."""


def train(config: ConfigDict, dataset: Dataset, method: str, number: int = 0) -> FittedMethod:
    """Trains as cycle `number` of a trial does; see `query`."""
    checks.check_name("method", method, tuple(METHODS))
    labelled = dataset.known
    count = int(labelled.sum())
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.dataset, config.methods, config.diagnostics = dataset.name, method, False
        config.cycles, config.initial, config.budget = 1, max(1, count), 1
        config.trials, config.first_trial = 1, 0
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
    checks.check(config, devices.device_count(), dataset)
    config.cycles = number + 2  # The last one of a study picks nothing.
    placed = setup.place(config, dataset)
    made = setup.prepare(config, METHODS[method], dataset, placed, _Silent())
    key = derive(jax.random.key(config.seed), 0)
    known_from = np.where(labelled, 0, -1).astype(np.int32)
    labels = known_from if dataset.has_maps else dataset.train_labels
    stages_before = cycle.stage_names(config, METHODS[method], number)
    state = cycle.with_labels(made, labels, known_from)
    with memory.named(f"training {method}", memory.smaller(config)):
        state = cycle.fresh(made, key, state.replace(cycle=number, stage=stages_before[0]))
        now = Cycle(made, key, state, lambda stage: config.steps_per_call)
        for name in stages_before[: stages_before.index("select")]:
            if name != "evaluate":
                state = _end(stages.run(now, name, state))[0].replace(step=0)
    return FittedMethod(made, key, state)


def pick(trained: FittedMethod, count: int, subset: int | None = None) -> Query:
    """The `count` images that the method picks next, of `subset` random ones (0: of all)."""
    state = trained.state
    with _scoring(trained):
        state = _end(stages.run(_choosing(trained, count, subset), "select", state))[0]
    picks = np.flatnonzero(state.picked_in == state.cycle)
    picks = picks[np.argsort(state.pick_rank[picks])]
    return Query(picks, state.pick_score[picks])


def values(trained: FittedMethod) -> tuple[np.ndarray, Any, Any]:
    """What the method picks by: the candidates' indices `[M]`, their values, and those of L.

    The last are None for a method that does not compare.
    """
    choosing, state = _choosing(trained, 1, None), trained.state
    with _scoring(trained):
        valued = _end(choosing.values(state, "select", choosing.subset)).value
        if not trained.setup.method.compares:
            return choosing.subset, valued, None
        labelled = np.flatnonzero(choosing.labelled)
        return choosing.subset, valued, _end(choosing.values(state, "select", labelled)).value


def _scoring(trained):
    mend = memory.smaller(trained.setup.config)
    return memory.named(f"scoring by {trained.setup.method.name}", mend)


def _choosing(trained, count, subset):
    """The cycle under way, with another budget."""
    config = trained.setup.config.copy_and_resolve_references()
    with config.unlocked():
        config.budget = count
        size = config.subset if subset is None else subset
        config.subset = max(size, count) if size else 0
    made = trained.setup._replace(config=config)
    return Cycle(made, trained.key, trained.state, lambda stage: config.steps_per_call)


def _end(generator):
    """What a generator returns; every training call's losses must be finite on the way."""
    while True:
        try:
            _, report = next(generator)
        except StopIteration as stop:
            return stop.value
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
