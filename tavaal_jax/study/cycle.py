"""Algorithm 1's outer loop: a trial's cycles of train, evaluate, select, label, diagnose.

A generator over LoopState, without I/O: `trial` has its states recorded.
"""

from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.engine import devices
from tavaal_jax.models import networks
from tavaal_jax.study import first_images, stages
from tavaal_jax.study.context import Calls, Cycle
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
            end = yield from stages.run(cycle, stage, state)
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
