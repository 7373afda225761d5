"""What the true labels say of a cycle's choice; the only room where the subset meets them."""

import numpy as np

from tavaal_jax.algorithm import values
from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.data.pool import take_rows
from tavaal_jax.report import diagnostics
from tavaal_jax.study.context import Cycle, Stage

STAGE = "diagnose"


def diagnose(cycle: Cycle, state: LoopState) -> Stage:
    """A stage: figures of the picks of this cycle, and the arrays behind them."""
    setup, subset = cycle.setup, cycle.subset
    picked, labelled = state.picked_in[subset] == cycle.number, np.flatnonzero(cycle.labelled)
    true = setup.oracle.reveal(subset)
    if true is None:
        return state, {}, None
    # After an interruption nothing of what was asked for picking is at hand.
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
        labelled_logits, arrays["logit"] = np.split(logits, [len(labelled)])
    if cycle.inferred.predicted is not None:
        arrays["predicted"] = np.asarray(cycle.inferred.predicted)[subset]
    key = derive(cycle.key, Stream.VALUES, cycle.number)
    choice = diagnostics.ChoiceDiagnosis(
        subset, picked, losses, arrays.get("predicted"), arrays.get("logit"), labelled_logits,
        np.asarray(values.uniform_pool(key, setup.size))[subset],
    )  # fmt: skip
    metrics = diagnostics.of_choice(
        choice, setup.oracle.class_counts(subset), setup.oracle.class_counts(labelled)
    )
    metrics |= {"labelled": len(labelled), "picks": int(picked.sum())}
    details = {**arrays, "labelled": labelled}
    if isinstance(setup.problem, Segmentation):
        order = np.argsort(state.pick_rank[subset[picked]])
        details["prediction"] = yield from _maps(cycle, state, subset[picked][order][:_MOST_MAPS])
    if setup.plane is not None:
        plane, figures = _plane(setup, state, subset[picked])
        metrics, details = metrics | figures, {**details, **plane._asdict()}
    return state, metrics, details


def _losses(cycle, state, true):
    """True losses of the subset, `[M]`, from its labels `true [M]`."""
    setup = cycle.setup
    labels = np.full(setup.size, -1, np.int32)
    labels[cycle.subset] = true
    examples = Example(setup.train.images, setup.with_labels(labels).labels)
    variables, parts = (state.learner, setup.train.normalise), []
    for part in setup.programs.losses(variables, examples, cycle.subset):
        parts.append(part)
        yield state, cycle.passed(STAGE)
    return np.concatenate(parts)


_MOST_MAPS = 6  # picks whose predictions are kept for a figure


def _maps(cycle, state, indices):
    """Classes that T chooses of the pixels of images `[n]`, uint8 `[n, H, W]`, one at a time."""
    setup, found = cycle.setup, []
    for index in indices:
        image = take_rows(setup.train.images, np.array([index]))
        chosen = setup.programs.classify(state.learner, setup.train.normalise, image)
        found.append(np.asarray(chosen, np.uint8))
        yield state, cycle.passed(STAGE)
    return np.concatenate(found)


def _plane(setup, state, picks):
    """T's decision on the grid, and what Figure 1 says of the picks."""
    plane = setup.plane
    found = setup.programs.classify(state.learner, setup.train.normalise, plane.points)
    plane = plane._replace(classes=np.asarray(found, np.int32).reshape(plane.classes.shape))
    return plane, diagnostics.of_plane(plane, np.asarray(setup.train.images)[picks])
