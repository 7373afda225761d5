"""Algorithm 1's outer loop: a trial's cycles of train, evaluate, select, label, diagnose.

A generator over LoopState, which does no I/O and reads no clock; it yields after every call to the
devices. `trial` has its states recorded.
"""

from collections.abc import Callable
from typing import cast

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm import picks as picking
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.engine import devices, sharded_picks
from tavaal_jax.engine.programs import TaskVariables
from tavaal_jax.models import networks
from tavaal_jax.study import diagnosis, first_images, training
from tavaal_jax.study.context import Calls, Cycle, Stage, StageEnd, ValueFault
from tavaal_jax.study.setup import Setup


def stage_names(config: ConfigDict, method: Method, cycle: int) -> tuple[str, ...]:
    """Names of a cycle's stages; the last cycle picks nothing and so trains no adversary.

    Where T is solved, that is a stage, and the others train what is left: a Ranker, an adversary.
    """
    is_last = cycle == config.cycles - 1
    last = ("select", "label", "diagnose") if config.diagnostics else ("select", "label")
    after = () if is_last else last
    has_adversary = method.adversary is not None and not is_last
    if has_adversary and config.schedule == "joint":
        first: tuple[str, ...] = ("joint",)
    else:
        first = ("task",)
        after = ("adversary", *after) if has_adversary else after
    if networks.find(config.task.network).solved:
        first = ("solve", *first) if "joint" in first or method.ranking_loss else ("solve",)
    return (*first, "evaluate", *after)


def expected_labelled(config: ConfigDict, cycle: int) -> int:
    """Size of L in a cycle if every pick is labelled at once, for estimates of time."""
    return config.initial + cycle * config.budget


# The loop


def start(setup: Setup, key: jax.Array) -> LoopState:
    """State before the first step of a trial with the key `key`."""
    return fresh(setup, key, blank(setup, key))


def blank(setup: Setup, key: jax.Array) -> LoopState:
    """State before the first step, without weights: the first images are labelled."""
    size = setup.size
    first = first_images.choose(setup, derive(key, Stream.INITIAL))
    answers = setup.oracle.answer(first)
    labels, labelled_in = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    labels[first] = answers
    labelled_in[first[answers >= 0]] = 0
    return with_labels(setup, labels, labelled_in)


def with_labels(setup: Setup, labels: np.ndarray, labelled_in: np.ndarray) -> LoopState:
    """State before any pick, without weights; `labelled_in` is the cycle each label is known from.

    Both are int32 `[N]`, -1 where there is no label.
    """
    config, size = setup.config, setup.size
    return LoopState(
        cycle=0,
        stage=stage_names(config, setup.method, 0)[0],
        step=0,
        labels=labels,
        labelled_in=labelled_in,
        picked_in=np.full(size, -1, np.int32),
        pick_rank=np.full(size, -1, np.int32),
        pick_score=np.zeros(size, np.float32),
        results=np.full((config.cycles, len(setup.problem.metrics)), np.nan, np.float32),
        counts=np.full(config.cycles, -1, np.int32),
        learner=None,
        adversary=None,
    )


def template(setup: Setup) -> LoopState:
    """Structure, shapes and shardings of a state, to restore one to; computes nothing."""
    config, size = setup.config, setup.size
    pool = jax.ShapeDtypeStruct((size,), np.int32)
    learner, adversary = devices.replicated_shapes(setup.programs.shapes())
    blank = lambda x: np.zeros(x.shape, x.dtype)
    results = np.zeros((config.cycles, len(setup.problem.metrics)), np.float32)
    return LoopState(
        0, "", 0, blank(pool), blank(pool), blank(pool), blank(pool), np.zeros(size, np.float32),
        results, np.zeros(config.cycles, np.int32), learner, adversary,
    )  # fmt: skip


def is_finished(setup: Setup, state: LoopState) -> bool:
    """Whether all cycles are done."""
    return state.cycle == setup.config.cycles


def advance(
    setup: Setup, key: jax.Array, state: LoopState, steps_per_call: Callable[[str], int]
) -> Calls[None]:
    """Continues from `state` to the end of the trial; yields after every call to the devices.

    `key` is the trial's. `steps_per_call(stage)` is the most training steps of the next call; it
    changes how often something is yielded, and nothing else. A yielded state's arrays are donated
    to the devices, and so deleted, when the generator goes on.
    """
    while not is_finished(setup, state):
        cycle = Cycle(setup, key, state, steps_per_call)
        order = stage_names(setup.config, setup.method, cycle.number)
        for stage in order[order.index(state.stage) :]:
            end = yield from run_stage(cycle, stage, state)
            if stage == order[-1]:
                state = _next_cycle(setup, key, end.state)
            else:
                state = end.state.replace(stage=order[order.index(stage) + 1], step=0)
            yield state, cycle.end_report(stage, end)


def _next_cycle(setup: Setup, key: jax.Array, state: LoopState) -> LoopState:
    """State at the start of the next cycle, with fresh weights; the last cycle's stay."""
    state = state.replace(cycle=state.cycle + 1, step=0)
    if is_finished(setup, state):
        return state.replace(stage="")
    first = stage_names(setup.config, setup.method, state.cycle)[0]
    return fresh(setup, key, state.replace(stage=first))


def fresh(setup: Setup, key: jax.Array, state: LoopState) -> LoopState:
    """State with the weights that its cycle starts from."""
    learner, adversary = devices.place(setup.programs.init(key, state.cycle))
    return state.replace(learner=learner, adversary=adversary)


# Stages


def run_stage(cycle: Cycle, stage: str, state: LoopState) -> Stage:
    """Runs one stage by name, yielding as `advance` does."""
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
