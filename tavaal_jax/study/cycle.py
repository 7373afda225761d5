"""One trial's cycles of train, evaluate, select, label, diagnose: Algorithm 1's outer loop.

A generator over LoopState: what it yields is written, shown and saved by `trial`.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine import devices
from tavaal_jax.study import stages
from tavaal_jax.study.context import Cycle, StageReport
from tavaal_jax.study.setup import Setup


def stage_names(config: ConfigDict, method: Method, cycle: int) -> tuple[str, ...]:
    """Names of a cycle's stages. The last cycle picks nothing and so trains no adversary."""
    if cycle == config.cycles - 1:
        return ("task", "evaluate")
    last = ("select", "label", "diagnose") if config.diagnostics else ("select", "label")
    if method.adversary is None:
        return ("task", "evaluate", *last)
    if config.schedule == "joint":
        return ("joint", "evaluate", *last)
    return ("task", "evaluate", "adversary", *last)


def expected_labelled(config: ConfigDict, cycle: int) -> int:
    """Size of L in a cycle if every pick is answered at once, for estimates alone."""
    return config.initial + cycle * config.budget


# The loop


def start(setup: Setup, key: jax.Array) -> LoopState:
    """The state before the first step of a trial, whose key is `key`."""
    return fresh(setup, key, blank(setup, key))


def blank(setup: Setup, key: jax.Array) -> LoopState:
    """The same without weights: the first images are labelled."""
    config, size = setup.config, setup.size
    first = plans.initial(derive(key, Stream.INITIAL), size, config.initial)
    answers = setup.oracle.answer(first)
    labels, labelled_in = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    labels[first] = answers
    labelled_in[first[answers >= 0]] = 0
    return with_labels(setup, labels, labelled_in)


def with_labels(setup: Setup, labels: np.ndarray, labelled_in: np.ndarray) -> LoopState:
    """Before any pick, without weights: labels, int32 `[N]`, and the cycle each is known from."""
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
    """A state's structure, shapes and shardings, to restore one to; computes nothing."""
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
) -> Iterator[tuple[LoopState, StageReport]]:
    """Continues from `state` to the end of the trial; yields after every call to the devices.

    `key` is the trial's. `steps_per_call(stage)` says how many training steps the next call may
    run; it changes when there is something to yield, and nothing else. A yielded state's arrays are
    given up (donated) when the generator goes on.
    """
    while not is_finished(setup, state):
        cycle = Cycle(setup, key, state, steps_per_call)
        order = stage_names(setup.config, setup.method, cycle.number)
        for stage in order[order.index(state.stage) :]:
            state, metrics, details = yield from stages.run(cycle, stage, state)
            if stage == order[-1]:
                state = _next_cycle(setup, key, state)
            else:
                state = state.replace(stage=order[order.index(stage) + 1], step=0)
            yield state, cycle.report(stage, metrics, details)


def _next_cycle(setup, key, state):
    """Every cycle starts from fresh weights; the last one's stay."""
    state = state.replace(cycle=state.cycle + 1, step=0)
    if is_finished(setup, state):
        return state.replace(stage="")
    first = stage_names(setup.config, setup.method, state.cycle)[0]
    return fresh(setup, key, state.replace(stage=first))


def fresh(setup: Setup, key: jax.Array, state: LoopState) -> LoopState:
    """A state with the weights that its cycle starts from."""
    learner, adversary = devices.place(setup.programs.init(key, state.cycle))
    return state.replace(learner=learner, adversary=adversary)
