"""One question, no files: which of these images are worth labelling next?"""

import operator
from typing import Any, NamedTuple

import jax
import numpy as np

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import derive
from tavaal_jax.data import Dataset
from tavaal_jax.engine import devices
from tavaal_jax.errors import UserError
from tavaal_jax.study import checks, cycle, setup, stages


class Query(NamedTuple):
    """The answer, best first."""

    indices: np.ndarray
    """Of the picked images `[budget]`."""
    scores: np.ndarray
    """With which they were picked `[budget]`."""


class _Silent:
    """The oracle of a query: people answer later."""

    def answer(self, indices: np.ndarray) -> np.ndarray:
        return np.full(len(indices), -1, np.int32)

    def reveal(self, indices: np.ndarray) -> None:
        del indices

    def class_counts(self, indices: np.ndarray) -> np.ndarray:
        raise NotImplementedError  # Nothing is diagnosed.


def query(
    config: Any, dataset: Dataset, method: str = "tavaal", budget: int | None = None
) -> Query:
    """Trains on the labels that are not -1 and picks `budget` of the other images.

    `method` is a name in METHODS; `config` says how to train and, unless given here, the budget.
    No file is read or written. Raises UserError for a fault the user can mend.
    """
    checks.check_name("method", method, tuple(METHODS))
    try:
        budget = None if budget is None else operator.index(budget)
    except TypeError as error:
        raise UserError(f"budget is {budget!r}: give a whole number") from error
    labelled = dataset.known
    count, rest = int(labelled.sum()), int((~labelled).sum())
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.dataset, config.methods, config.diagnostics = dataset.name, method, False
        # Two cycles, because the last one of a study picks nothing.
        config.cycles, config.initial = 2, max(1, count)
        config.trials, config.first_trial = 1, 0
        config.budget = config.budget if budget is None else budget
        config.subset = max(config.subset, config.budget) if config.subset else 0
    if not rest:
        raise UserError("every image has a label: give -1 to those that nobody has labelled")
    if not 1 <= config.budget <= rest:
        raise UserError(f"budget is {config.budget}: give 1 to {rest}, the images without a label")
    if not count:
        raise UserError(
            f"none of the {rest} images has a label: label some at random first, as many as"
            f" batch_size = {config.batch_size} or more"
        )
    if count < config.batch_size:
        raise UserError(
            f"batch_size is {config.batch_size}, more than the {count} labels: lower batch_size, or"
            " label more"
        )
    checks.check(config, devices.device_count(), dataset)
    placed = setup.place(config, dataset)
    made = setup.prepare(config, METHODS[method], dataset, placed, _Silent())
    key = derive(jax.random.key(config.seed), 0)
    known_from = np.where(labelled, 0, -1).astype(np.int32)
    labels = known_from if dataset.has_maps else dataset.train_labels
    state = cycle.fresh(made, key, cycle.with_labels(made, labels, known_from))
    stage = stages.Cycle(made, key, state, lambda stage: config.steps_per_call)
    for name in cycle.names(config, METHODS[method], 0):
        if name == "evaluate":
            continue
        if name == "label":
            break
        state = _end(stage.run(name, state))[0].replace(step=0)
    picks = np.flatnonzero(state.picked_in == 0)
    picks = picks[np.argsort(state.pick_rank[picks])]
    return Query(picks, state.pick_score[picks])


def _end(generator):
    """What a generator returns; every training call's losses must be finite on the way."""
    while True:
        try:
            _, report = next(generator)
        except StopIteration as stop:
            return stop.value
        except stages.ValueFault as error:
            raise UserError(
                f"{error}: mend the method's value or pick, or lower the learning rates if the"
                " weights have grown too large"
            ) from error
        devices.check_agreement(report.agree, report.stage)
        for name, value in report.values().items():
            if not np.isfinite(value).all():
                raise UserError(f"{name} is not finite in stage {report.stage}: lower the"
                                " learning rates")  # fmt: skip
