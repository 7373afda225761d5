"""Training stages: the plans of their steps, and the loop of calls to the devices."""

from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm import losses, optim
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.state import Example, LearnerState, LoopState, Stream, derive
from tavaal_jax.data import plans, pool
from tavaal_jax.data.feed import Reads, feed
from tavaal_jax.data.pool import Streamed
from tavaal_jax.engine import devices, processes, steps
from tavaal_jax.study.context import Cycle, Stage, StageEnd, StageReport

STEP_COST = {"task": 1, "joint": 4, "adversary": 3}
"""Cost of a step of each training stage, relative to a step of T, to estimate the time left."""
_SHORTEST = 32  # labelled images for which T is solved without padding
PlanSteps = Callable[[int, int], plans.IndexPlan]
"""`(first step, count) -> plan` of the examples that some steps see."""


def stage_cost(config: ConfigDict, size: int, labelled: int, stage: str) -> int:
    """Cost of all steps of a stage, see `STEP_COST`; 0 for stages without training."""
    return stage_steps(config, size, labelled, stage) * STEP_COST.get(stage, 0)


def stage_steps(config: ConfigDict, size: int, labelled: int, stage: str) -> int:
    """Training steps of a stage with `labelled` of `size` images in L; 0 for other stages."""
    if stage in ("task", "joint"):
        return config.epochs * (labelled // config.batch_size)
    if stage == "adversary":
        subset = min(config.subset or size, size - labelled)
        return max(1, (labelled + subset) * config.vae.epochs // config.batch_size)
    return 0


def solve(cycle: Cycle, state: LoopState) -> StageEnd:
    """Trains a linear T on L at once, on one device: whatever their number, to the same weights.

    L is padded to a power of two, so that few sizes are compiled.
    """
    setup, weights = cycle.setup, class_weights(cycle)
    indices = np.flatnonzero(cycle.labelled)
    length = max(_SHORTEST, 1 << (len(indices) - 1).bit_length())
    rows = np.resize(indices, length)
    labels = state.labels[rows].astype(np.int32)
    each = np.ones(length, np.float32) if weights is None else weights[labels]
    each[len(indices) :] = 0
    learner = state.learner
    assert learner is not None

    def on_one_device() -> tuple[LearnerState, Metrics]:
        given, normalise = jax.device_get((learner, setup.train.normalise))
        examples = Example(pool.on_host(setup.train.images, rows), labels)
        found = setup.programs.solve(given, normalise, examples, each)
        solved: tuple[LearnerState, Metrics] = jax.device_get(found)
        return solved

    solved, metrics = processes.by_first(on_one_device)
    shown = {name: value for name, value in metrics.items() if np.isfinite(value)}
    return StageEnd(state.replace(learner=devices.place(solved)), shown, None)


def class_weights(cycle: Cycle) -> np.ndarray | None:
    """Weights of the classes in T's loss, float32 `[K]`, from L; None: all are equal."""
    if not cycle.setup.config.task.class_weights:
        return None
    return losses.balanced_weights(
        np.asarray(cycle.labels)[cycle.labelled], cycle.setup.problem.classes
    )


def train(cycle: Cycle, stage: str, state: LoopState) -> Stage:
    """Runs the remaining steps of a training stage."""
    config, condition = cycle.setup.config, None
    if stage == "adversary":
        yield from cycle.infer(state, stage, cycle.labelled | _adversary_pool(cycle))
        condition = cycle.inferred.condition
    plan_steps, per_pass = _plans(cycle, stage)
    total = stage_steps(config, cycle.setup.available_size, int(cycle.labelled.sum()), stage)
    key = derive(cycle.key, Stream.TRAINING, cycle.number)
    networks, weights = _networks(stage, state), class_weights(cycle)
    ends, reads = (total, config.steps_per_call), _reads(cycle, stage)
    with feed(cycle.train, condition, plan_steps, ends, reads) as (data, plan_of, waited):
        while state.step < total:
            first = state.step
            count = min(
                cycle.steps_per_call(stage),
                config.steps_per_call,
                total - first,
                config.log_every_steps - first % config.log_every_steps,
                config.checkpoint_every_steps - first % config.checkpoint_every_steps,
            )
            schedule = optim.schedule(config, first, count, per_pass)
            if weights is not None:
                schedule = schedule._replace(class_weights=np.tile(weights, (count, 1)))
            fill = lambda rows: np.resize(rows, (config.steps_per_call, *rows.shape[1:]))
            schedule, plan = jax.tree.map(fill, (schedule, plan_of(first, count)))
            networks, metrics, agree = cycle.setup.programs.train[stage](
                networks, data, key, schedule, plan, count
            )
            updated = {k: v for k, v in networks._asdict().items() if v is not None}
            state = state.replace(step=first + count, **updated)
            yield (
                state,
                StageReport(
                    cycle.number, stage, state.step, metrics, count, agree=agree, waited=waited()
                ),
            )
    return StageEnd(state, {}, None)


def _plans(cycle: Cycle, stage: str) -> tuple[PlanSteps, int]:
    """The stage's planner, and the number of steps in a pass over L."""
    labelled, unlabelled, more = _streams(cycle, stage)
    size = cycle.setup.config.batch_size

    def plan(first: int, count: int) -> plans.IndexPlan:
        positions = np.tile(np.arange(size, dtype=np.int32), (count, 1))
        others = more(first, count)
        crop_origins, later = _crop_origins(cycle, stage, first, positions)
        return plans.IndexPlan(
            labelled.rows(first, count),
            None if unlabelled is None else unlabelled.rows(first, count),
            positions,
            None if others is None else others._replace(crop_origins=later),
            crop_origins,
        )

    return plan, labelled.steps_per_pass


def _crop_origins(
    cycle: Cycle, stage: str, first: int, positions: np.ndarray
) -> tuple[plans.CropOrigins | None, plans.CropOrigins | None]:
    """Corners of windows that the host cuts, for the steps' first update and for further ones.

    None where it cuts none.
    """
    setup, updates = cycle.setup, cycle.setup.config.vae.updates if stage == "joint" else 1
    if not isinstance(cycle.train, Streamed) or not _reads(cycle, stage).window:
        return None, None
    numbers = np.arange(first, first + len(positions), dtype=np.int32)
    key = derive(cycle.key, Stream.TRAINING, cycle.number)
    shape = cycle.train.images.shape[1:]
    drawn = steps.crop_origins(setup.problem, shape, key, numbers, positions, updates)
    now, *others = jax.device_get(drawn)
    if not others:
        return now, None
    return now, jax.tree.map(lambda *xs: np.stack(xs, 2), *others)


def _reads(cycle: Cycle, stage: str) -> Reads:
    """Fields of its examples that a stage needs, where they are read from a disk."""
    window, adversary = cycle.setup.problem.crop, cycle.setup.programs.adversary
    whole = cycle.train.thumbnails is None and not window
    pictures = {"image" if whole else "thumbnail"}
    if stage == "joint" and adversary is not None and adversary.condition_of is not None:
        pictures |= {"ranker_crop"} if window else {"image"}
    labelled = {"label"} | (pictures if stage != "task" else set())
    if stage != "adversary":
        labelled |= {"image", "map"}
    return Reads(frozenset(labelled), frozenset(pictures), window)


def _streams(
    cycle: Cycle, stage: str
) -> tuple[
    plans.IndexStream, plans.IndexStream | None, Callable[[int, int], plans.ExtraUpdates | None]
]:
    """Batches of L, of U where the stage sees it, and of both for further updates."""
    size, updates = cycle.setup.config.batch_size, cycle.setup.config.vae.updates
    once = lambda first, count: None

    def of_pool(stream: Stream, pool: np.ndarray, *numbers: int) -> plans.IndexStream:
        key = derive(cycle.key, stream, cycle.number, *numbers)
        return plans.IndexStream(key, pool, size)

    labelled = of_pool(Stream.LABELLED_ORDER, cycle.labelled)
    if stage == "task":
        return labelled, None, once
    pool = _adversary_pool(cycle)
    unlabelled = of_pool(Stream.UNLABELLED_ORDER, pool)
    if stage == "adversary" or updates == 1:
        return labelled, unlabelled, once
    others = of_pool(Stream.UPDATES, cycle.labelled, 0), of_pool(Stream.UPDATES, pool, 1)

    def more(first: int, count: int) -> plans.ExtraUpdates:
        groups = [stream.groups(first, count, updates - 1) for stream in others]
        return plans.ExtraUpdates(groups[0], groups[1])

    return labelled, unlabelled, more


def _adversary_pool(cycle: Cycle) -> np.ndarray:
    """Mask of the unlabelled images that the adversary trains on, bool `[N]`."""
    if cycle.setup.config.vae.unlabelled == "all":
        return cycle.unlabelled
    return cycle.mask(cycle.subset)


def _networks(stage: str, state: LoopState) -> steps.Networks:
    """The networks that a stage updates."""
    return steps.Networks(
        None if stage == "adversary" else state.learner,
        None if stage == "task" else state.adversary,
    )
