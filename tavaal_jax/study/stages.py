"""What each stage of a cycle does: train, evaluate, select, label, diagnose.

Stages are generators without I/O or clock; they yield after every call to the devices.
"""

import numpy as np

from tavaal_jax.algorithm import picks as picking
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.engine import sharded_picks
from tavaal_jax.study import diagnosis, training
from tavaal_jax.study.context import Cycle, Stage, ValueFault


def run(cycle: Cycle, stage: str, state: LoopState) -> Stage:
    """One stage, as a generator like `cycle.advance`; returns `state, metrics, details`."""
    stages = {
        "evaluate": _evaluate,
        "select": _select,
        "label": _label,
        "diagnose": diagnosis.diagnose,
    }
    if stage in stages:
        return stages[stage](cycle, state)
    return training.train(cycle, stage, state)


def _evaluate(cycle: Cycle, state: LoopState) -> Stage:
    """Metrics of T on the whole test set."""
    problem, test = cycle.setup.problem, cycle.setup.test
    sizes = state.counts.copy()
    sizes[cycle.number] = cycle.labelled.sum()
    if not len(test.images):
        return state.replace(counts=sizes), {}, None
    examples = Example(test.images, test.labels)
    variables = (state.learner, test.normalise)
    indices = np.arange(len(test.images))
    counts = []
    for part in cycle.setup.programs.evaluate(variables, examples, indices):
        counts.append(part.sum(0, dtype=np.int64))
        yield state, cycle.passed("evaluate")
    figures = problem.summarise(np.sum(counts, axis=0))
    results = state.results.copy()
    results[cycle.number] = figures
    metrics = dict(zip(problem.metrics, figures.tolist(), strict=True))
    by_class = problem.by_class(np.sum(counts, axis=0))
    details = None if by_class is None else {"by_class": by_class}
    return state.replace(results=results, counts=sizes), metrics, details


def _select(cycle: Cycle, state: LoopState) -> Stage:
    """Picks from the subset: a request, no label yet."""
    method = cycle.setup.method
    count = min(cycle.setup.config.budget, len(cycle.subset))
    key = derive(cycle.key, Stream.PICKS, cycle.number)
    if method.pick in picking.INCREMENTAL:
        best = picking.Best(method.pick, count, key)
        yield from cycle.score(state, "select", cycle.subset, lambda v: best.add(v.value))
        positions, scores = best.picks()
    else:
        valued = yield from cycle.values(state, "select", cycle.subset)
        labelled_values = None
        if method.compares:
            labelled = np.flatnonzero(cycle.labelled)
            labelled_values = (yield from cycle.values(state, "select", labelled)).value
        pick = sharded_picks.on_all_devices(method.pick)
        positions, scores = pick(valued.value, count, key, labelled_values)
    _check_picks(cycle, positions, scores, count)
    picks = cycle.subset[positions]
    picked_in, rank, score = (
        x.copy() for x in (state.picked_in, state.pick_rank, state.pick_score)
    )
    picked_in[picks] = cycle.number
    rank[picks] = np.arange(len(picks))
    score[picks] = scores
    state = state.replace(picked_in=picked_in, pick_rank=rank, pick_score=score)
    metrics = {"first_score": scores[0], "last_score": scores[-1]} if len(scores) else {}
    return state, metrics, None


def _check_picks(cycle, positions, scores, count):
    shape = (count,)
    if np.shape(positions) != shape or np.shape(scores) != shape:
        raise ValueFault(
            f"its pick gave {np.shape(positions)} positions and {np.shape(scores)} scores for a"
            f" request of {count}"
        )
    if count and (np.min(positions) < 0 or np.max(positions) >= len(cycle.subset)):
        raise ValueFault(f"its pick chose a position outside of 0 to {len(cycle.subset) - 1}")
    if len(np.unique(positions)) < count:
        raise ValueFault("its pick chose an image twice")
    if not np.isfinite(scores).all():
        raise ValueFault("its pick gave a score that is not finite")


def _label(cycle: Cycle, state: LoopState) -> Stage:
    """Asks the oracle for this cycle's picks; an image joins L when its label has come."""
    yield from ()  # A stage is a generator.
    picks = np.flatnonzero(state.picked_in == cycle.number)
    answers = cycle.setup.oracle.answer(picks)
    labels, labelled_in = state.labels.copy(), state.labelled_in.copy()
    labels[picks] = answers
    labelled_in[picks[answers >= 0]] = cycle.number + 1
    metrics = {"asked": len(picks), "answered": int((answers >= 0).sum())}
    return state.replace(labels=labels, labelled_in=labelled_in), metrics, None
