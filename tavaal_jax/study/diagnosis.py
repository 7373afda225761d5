"""Diagnosis of a cycle's picks from the true labels, which no other stage sees."""

import numpy as np

from tavaal_jax.algorithm import values
from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.data.pool import take_rows
from tavaal_jax.engine.programs import TaskVariables
from tavaal_jax.report import diagnostics
from tavaal_jax.study.context import Calls, Cycle, Stage, StageEnd
from tavaal_jax.study.setup import Setup

STAGE = "diagnose"


def diagnose(cycle: Cycle, state: LoopState) -> Stage:
    """Computes figures of this cycle's picks, and keeps the arrays behind them."""
    setup, subset = cycle.setup, cycle.subset
    picked, labelled = state.picked_in[subset] == cycle.number, np.flatnonzero(cycle.labelled)
    true = setup.oracle.reveal(subset)
    if true is None:
        return StageEnd(state, {}, None)
    # After an interruption the inference for picking is gone.
    yield from cycle.infer(state, STAGE, cycle.mask(subset))
    losses = yield from _losses(cycle, state, true)
    arrays = {
        "index": subset,
        "rank": np.where(picked, state.pick_rank[subset], -1),
        "loss": losses,
    }
    labelled_logits = None
    if setup.method.adversary is not None:
        both = np.concatenate([labelled, subset])
        logits = (yield from cycle.values(state, STAGE, both)).score
        assert logits is not None
        labelled_logits, arrays["logit"] = np.split(logits, [len(labelled)])
    if cycle.inferred.predicted is not None:
        arrays["predicted"] = np.asarray(cycle.inferred.predicted)[subset]
    key = derive(cycle.key, Stream.VALUES, cycle.number)
    choice = diagnostics.ChoiceDiagnosis(
        subset, picked, losses, arrays.get("predicted"), arrays.get("logit"), labelled_logits,
        np.asarray(values.uniform_pool(key, setup.size))[subset],
    )  # fmt: skip
    metrics = diagnostics.choice_figures(
        choice, setup.oracle.class_counts(subset), setup.oracle.class_counts(labelled)
    )
    metrics |= {"labelled": len(labelled), "picks": int(picked.sum())}
    details = {**arrays, "labelled": labelled}
    if isinstance(setup.problem, Segmentation):
        order = np.argsort(state.pick_rank[subset[picked]])
        details["prediction"] = yield from _maps(cycle, state, subset[picked][order][:_MOST_MAPS])
    if setup.plane is not None:
        plane, figures = _plane(setup, setup.plane, state, subset[picked])
        metrics, details = metrics | figures, {**details, **plane._asdict()}
    return StageEnd(state, metrics, details)


def _losses(cycle: Cycle, state: LoopState, true: np.ndarray) -> Calls[np.ndarray]:
    """True losses of the subset, `[M]`, from its labels `true [M]`."""
    setup = cycle.setup
    labels = np.full(setup.size, -1, np.int32)
    labels[cycle.subset] = true
    examples = Example(setup.train.images, setup.with_labels(labels).labels)
    assert state.learner is not None
    variables, parts = TaskVariables(state.learner, setup.train.normalise), []
    for part in setup.programs.losses(variables, examples, cycle.subset):
        parts.append(part)
        yield state, cycle.call_report(STAGE)
    return np.concatenate(parts)


_MOST_MAPS = 6  # picks whose predictions are kept for a figure


def _maps(cycle: Cycle, state: LoopState, indices: np.ndarray) -> Calls[np.ndarray]:
    """T's predicted maps of the images `indices [n]`, one at a time: uint8 `[n, H, W]`."""
    setup, found = cycle.setup, []
    assert state.learner is not None
    for index in indices:
        image = take_rows(setup.train.images, np.array([index]))
        chosen = setup.programs.classify(state.learner, setup.train.normalise, image)
        found.append(np.asarray(chosen, np.uint8))
        yield state, cycle.call_report(STAGE)
    return np.concatenate(found)


def _plane(
    setup: Setup, plane: diagnostics.Plane, state: LoopState, picks: np.ndarray
) -> tuple[diagnostics.Plane, dict[str, float]]:
    """T's decisions on the grid, and Figure 1's distances of the picks `[n]`."""
    assert state.learner is not None
    found = setup.programs.classify(state.learner, setup.train.normalise, plane.points)
    plane = plane._replace(classes=np.asarray(found, np.int32).reshape(plane.classes.shape))
    return plane, diagnostics.plane_figures(plane, np.asarray(setup.train.images)[picks])
