"""Stages of a cycle: train, evaluate, select, label, diagnose.

Stages do no I/O and read no clock; they yield after every call to the devices.
"""

from typing import cast

import jax
import numpy as np

from tavaal_jax.algorithm import picks as picking
from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.engine import sharded_picks
from tavaal_jax.engine.programs import TaskVariables
from tavaal_jax.study import diagnosis, training
from tavaal_jax.study.context import Calls, Cycle, Stage, StageEnd, ValueFault


def run(cycle: Cycle, stage: str, state: LoopState) -> Stage:
    """Runs one stage by name, yielding as `cycle.advance` does."""
    match stage:
        case "solve":
            return training.solve(cycle, state)
        case "evaluate":
            return (yield from _evaluate(cycle, state))
        case "select":
            return (yield from _select(cycle, state))
        case "label":
            return _label(cycle, state)
        case "diagnose":
            return (yield from diagnosis.diagnose(cycle, state))
    return (yield from training.train(cycle, stage, state))


def _evaluate(cycle: Cycle, state: LoopState) -> Stage:
    """Measures T on the whole test set."""
    problem, test = cycle.setup.problem, cycle.setup.test
    sizes = state.counts.copy()
    sizes[cycle.number] = cycle.labelled.sum()
    if not len(test.images):
        return StageEnd(state.replace(counts=sizes), {}, None)
    examples = Example(test.images, test.labels)
    assert state.learner is not None
    variables = TaskVariables(state.learner, test.normalise)
    indices = np.arange(len(test.images))
    counts = []
    for part in cycle.setup.programs.evaluate(variables, examples, indices):
        counts.append(part.sum(0, dtype=np.int64))
        yield state, cycle.call_report("evaluate")
    figures = problem.summarise(np.sum(counts, axis=0))
    results = state.results.copy()
    results[cycle.number] = figures
    metrics = dict(zip(problem.metrics, figures.tolist(), strict=True))
    by_class = problem.by_class(np.sum(counts, axis=0))
    details = None if by_class is None else {"by_class": by_class}
    return StageEnd(state.replace(results=results, counts=sizes), metrics, details)


def _select(cycle: Cycle, state: LoopState) -> Stage:
    """Picks from the subset; the picks get their labels in the next stage."""
    count = min(cycle.setup.config.budget, len(cycle.subset))
    key = derive(cycle.key, Stream.PICKS, cycle.number)
    positions, scores = yield from _pick(cycle, state, count, key)
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
    return StageEnd(state, metrics, None)


def _pick(cycle: Cycle, state: LoopState, count: int, key: jax.Array) -> Calls[picking.Picks]:
    """Scores the subset and picks `count` positions in it."""
    method, subset = cycle.setup.method, cycle.subset
    if method.pick in picking.INCREMENTAL:
        best = picking.Best(method.pick, count, key)
        add = lambda part: best.add(cast(np.ndarray, part.value))
        yield from cycle.score(state, "select", subset, add)
        return best.picks()
    values = (yield from cycle.values(state, "select", subset)).value
    given: picking.Values = None
    labelled = np.flatnonzero(cycle.labelled)
    if method.compares and len(labelled):
        given = (yield from cycle.values(state, "select", labelled)).value
        if method.sees_labels:
            has_maps = isinstance(cycle.setup.problem, Segmentation)
            given = picking.Labelled(given, None if has_maps else state.labels[labelled])
    return sharded_picks.on_all_devices(method.pick)(values, count, key, given)


def _check_picks(cycle: Cycle, positions: np.ndarray, scores: np.ndarray, count: int) -> None:
    """Raises ValueFault unless the picks are `count` images of the subset with finite scores."""
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


def _label(cycle: Cycle, state: LoopState) -> StageEnd:
    """Asks the oracle for this cycle's picks; an image joins L when its label has come."""
    picks = np.flatnonzero(state.picked_in == cycle.number)
    answers = cycle.setup.oracle.answer(picks)
    labels, labelled_in = state.labels.copy(), state.labelled_in.copy()
    labels[picks] = answers
    labelled_in[picks[answers >= 0]] = cycle.number + 1
    metrics = {"asked": len(picks), "answered": int((answers >= 0).sum())}
    return StageEnd(state.replace(labels=labels, labelled_in=labelled_in), metrics, None)
