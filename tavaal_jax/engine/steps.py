"""A training step of each stage, on this device's part of a batch, which it gathers once.

In all functions `key` is that of the cycle's training, and B the examples of this device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.algorithm.adversary_like import AdversaryLike
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import (
    AdversaryVariables,
    Array,
    Batch,
    Condition,
    Example,
    LearnerState,
    PoolBatch,
    Schedule,
    Stream,
    derive,
    example_keys,
)
from tavaal_jax.data.plans import CropOrigins, Examples, ExtraUpdates, IndexPlan
from tavaal_jax.data.pool import LabelMaps, Normaliser, Resident
from tavaal_jax.engine import devices
from tavaal_jax.engine.components import Components


class Networks(NamedTuple):
    """Weights and optimisers that a training stage updates; None: those it does not touch."""

    learner: LearnerState | None = None
    adversary: AdversaryVariables = None


StepData = tuple[Resident, Condition]
"""The training set, and the adversary's condition on each image `[N, ...]`."""
Conditions = tuple[Condition, Condition]
"""The adversary's conditions on the examples of L and of U, `[B, ...]` each."""


class Gathered(NamedTuple):
    """Examples of a step; `unlabelled` is None where the stage sees no U."""

    labelled: Examples
    unlabelled: Examples | None


def gather(data: StepData, plan: IndexPlan) -> Gathered:
    """Examples that `plan` names by index; where it holds the examples themselves, those."""
    pool, condition = data

    def at(rows: Examples | jax.Array) -> Examples:
        if isinstance(rows, Examples):
            return rows
        everything = Examples(pool.images, pool.labels, condition, pool.thumbnails)
        taken: Examples = jax.tree.map(lambda x: x[rows], everything)
        return taken

    return Gathered(at(plan.labelled), None if plan.unlabelled is None else at(plan.unlabelled))


def visible(label: LabelMaps | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels as T and as an adversary sees them: of maps the map, and the pixels per class."""
    return label.visible() if isinstance(label, LabelMaps) else (label, label)


# Where windows begin: drawn from these keys here, or beforehand where a host cuts them.


def _augmentation_keys(key: jax.Array, step: Array, positions: Array) -> jax.Array:
    return example_keys(derive(key, Stream.AUGMENTATION, step), positions)


def _window_keys(key: jax.Array, step: Array, number: int, positions: Array) -> jax.Array:
    """Keys of the windows that R sees of L (`number` 0) or U (1)."""
    return example_keys(derive(key, Stream.WINDOWS, step, number), positions)


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def crop_origins(
    problem: Problem,
    shape: tuple[int, ...],
    key: jax.Array,
    steps: jax.Array,
    positions: jax.Array,
    updates: int,
) -> list[CropOrigins]:
    """Corners of the windows of `steps [n]`, `positions [n, B]`, one entry per adversary update.

    `shape` is that of the stored images.
    """

    def of_step(key: jax.Array, step: jax.Array, positions: jax.Array, first: bool) -> CropOrigins:
        at = jax.vmap(lambda key: problem.crop_origin(shape, key))
        ranked = [at(_window_keys(key, step, number, positions)) for number in range(2)]
        crop_keys = lambda key: jax.random.split(key)[0]
        trained = jax.vmap(crop_keys)(_augmentation_keys(key, step, positions))
        return CropOrigins(at(trained) if first else None, *ranked)

    return [
        jax.vmap(
            functools.partial(
                of_step,
                derive(key, Stream.UPDATES, number - 1) if number else key,
                first=not number,
            )
        )(steps, positions)
        for number in range(updates)
    ]


def task_step(
    components: Components,
    state: Networks,
    data: StepData,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Networks, Metrics]:
    """One update of T and R."""
    assert state.learner is not None
    labelled = gather(data, plan).labelled
    batch = task_batch(components, labelled, data[0].normalise, key, schedule, plan)
    learner, metrics = components.learner.step(state.learner, batch, schedule, devices.mean)
    return Networks(learner=learner), metrics


def task_batch(
    components: Components,
    labelled: Examples,
    normalise: Normaliser,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> Batch:
    """Augmented and normalised examples of L; each is augmented by a key of its own."""
    keys = _augmentation_keys(key, schedule.step, plan.positions)
    examples = Example(labelled.image, visible(labelled.label)[0])
    augmented = jax.vmap(components.learner.problem.augment)(examples, keys)
    drop = None
    if components.method.dropout:
        drop = example_keys(derive(key, Stream.DROPOUT, schedule.step), plan.positions)
    return Batch(jax.vmap(normalise)(augmented.image), augmented.label, drop)


def joint_step(
    components: Components,
    state: Networks,
    data: StepData,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Networks, Metrics]:
    """Algorithm 1: ranks, then T and R, then the VAE, then D; the last two again as planned.

    Ranks are those of the Ranker from before the step, in further updates, too. Metrics of the
    adversary are means over its updates.
    """
    learner_state, adversary_state = state
    assert learner_state is not None
    examples, normalise = gather(data, plan), data[0].normalise
    batch = task_batch(components, examples.labelled, normalise, key, schedule, plan)
    learned, task_metrics = components.learner.step(learner_state, batch, schedule, devices.mean)

    def update(
        state: AdversaryVariables, examples: Gathered, key: jax.Array
    ) -> tuple[AdversaryVariables, Metrics]:
        conditions = joint_conditions(
            components, learner_state, examples, normalise, key, schedule, plan
        )
        halves = pool_batches(components, examples, conditions, normalise, key, schedule, plan)
        return _adversary(components).step(state, *halves, devices.mean)

    updated, metrics = update(adversary_state, examples, key)
    if plan.more is not None:

        def again(
            state: AdversaryVariables, row: tuple[ExtraUpdates, jax.Array]
        ) -> tuple[AdversaryVariables, Metrics]:
            more, number = row
            examples = gather(data, plan._replace(**more._asdict()))
            return update(state, examples, derive(key, Stream.UPDATES, number))

        rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), plan.more)
        numbers = jnp.arange(len(jax.tree.leaves(rows)[0]))
        updated, others = lax.scan(again, updated, (rows, numbers))
        join = lambda first, rest: (first + jnp.sum(rest, 0)) / (1 + len(rest))
        metrics = jax.tree.map(join, metrics, others)
    return Networks(learned, updated), {**task_metrics, **metrics}


def _adversary(components: Components) -> AdversaryLike:
    assert components.adversary is not None
    return components.adversary


def joint_conditions(
    components: Components,
    state: LearnerState,
    examples: Gathered,
    normalise: Normaliser,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> Conditions:
    """Ranks r of both pools: U(0, 1) in the first epoch, then the Ranker's, on plain images.

    Of images that T sees in windows R sees one, too, drawn anew.
    """
    adversary = _adversary(components)
    if adversary.condition_of is None:
        return None, None
    condition_of = adversary.condition_of

    def first() -> Condition:
        keys = (derive(key, Stream.FIRST_RANKS, schedule.step, number) for number in range(2))
        pools = [adversary.initial_condition(example_keys(k, plan.positions)) for k in keys]
        both: Condition = jax.tree.map(lambda *halves: jnp.concatenate(halves), *pools)
        return both

    def ranker_crop(given: Examples | None, number: int) -> jax.Array:
        assert given is not None
        if given.ranker_crop is not None:
            return jax.vmap(normalise)(given.ranker_crop)
        problem, shape = components.learner.problem, given.image.shape[1:]
        keys = _window_keys(key, schedule.step, number, plan.positions)
        cut = lambda image, key: normalise(problem.window(image, problem.crop_origin(shape, key)))
        return jax.vmap(cut)(given.image, keys)

    images = [ranker_crop(given, number) for number, given in enumerate(examples)]

    def later() -> Condition:
        return condition_of(components.learner.infer(state, jnp.concatenate(images)))

    condition = lax.cond(schedule.first_epoch, first, later)
    half = len(plan.positions)
    return jax.tree.map(lambda x: x[:half], condition), jax.tree.map(lambda x: x[half:], condition)


def adversary_step(
    components: Components,
    state: Networks,
    data: StepData,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Networks, Metrics]:
    """Second phase of the released code: the VAE, then D, with constant ranks."""
    examples = gather(data, plan)
    assert examples.unlabelled is not None
    conditions = examples.labelled.condition, examples.unlabelled.condition
    halves = pool_batches(components, examples, conditions, data[0].normalise, key, schedule, plan)
    updated, metrics = _adversary(components).step(state.adversary, *halves, devices.mean)
    return Networks(adversary=updated), metrics


def pool_batches(
    components: Components,
    examples: Gathered,
    conditions: Conditions,
    normalise: Normaliser,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[PoolBatch, PoolBatch]:
    """The adversary's halves of a batch, that of L and that of U."""
    latent_key = derive(key, Stream.LATENT, schedule.step)
    keys = [example_keys(derive(latent_key, number), plan.positions) for number in range(2)]
    known = visible(examples.labelled.label)[1]
    labels = known, components.learner.problem.unknown(known)

    def picture(given: Examples | None) -> jax.Array:
        assert given is not None
        images = given.image if given.thumbnail is None else given.thumbnail
        return jax.vmap(normalise)(images)

    labelled, unlabelled = (
        PoolBatch(picture(given), condition, *rest)
        for given, condition, *rest in zip(examples, conditions, keys, labels, strict=True)
    )
    return labelled, unlabelled
