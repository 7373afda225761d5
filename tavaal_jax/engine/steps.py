"""A training step of each stage, on this device's part of a batch, which it gathers once.

`key` is that of the cycle's training.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import (
    Batch,
    Example,
    LearnerState,
    PoolBatch,
    Schedule,
    Stream,
    derive,
    example_keys,
)
from tavaal_jax.data.plans import CropOrigins, Examples, IndexPlan
from tavaal_jax.data.pool import LabelMaps, Normaliser, Resident
from tavaal_jax.engine import devices
from tavaal_jax.engine.components import Components

Metrics = dict[str, jax.Array]


class Gathered(NamedTuple):
    """A step's examples."""

    labelled: Examples
    unlabelled: Examples | None


def gather(data: tuple[Resident, Any], plan: IndexPlan) -> Gathered:
    """The examples that `plan` names, of `(pool, what the adversary is told of it or None)`.

    Where a plan holds the examples themselves, the pool is not looked at.
    """
    pool, condition = data

    def at(rows: Any) -> Examples:
        if isinstance(rows, Examples):
            return rows
        everything = Examples(pool.images, pool.labels, condition, pool.thumbnails)
        return jax.tree.map(lambda x: x[rows], everything)

    return Gathered(at(plan.labelled), None if plan.unlabelled is None else at(plan.unlabelled))


def visible(label: Any) -> tuple[jax.Array, jax.Array]:
    """What T, and what an adversary, is given for labels: of maps the map, and pixels per class."""
    return label.visible() if isinstance(label, LabelMaps) else (label, label)


# Where windows begin: drawn from these keys here, or beforehand where a host cuts them.


def _augmentation_keys(key: jax.Array, step: jax.Array, positions: Any) -> jax.Array:
    return example_keys(derive(key, Stream.AUGMENTATION, step), positions)


def _window_keys(key: jax.Array, step: jax.Array, number: int, positions: Any) -> jax.Array:
    """Of what R sees of L (`number` 0) and U (1)."""
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
    """Of the windows of `steps [n]`, `positions [n, B]`, for each of the adversary's updates.

    `shape` is that of the stored images.
    """

    def of_step(key: jax.Array, step: jax.Array, positions: jax.Array, first: bool) -> CropOrigins:
        at = jax.vmap(lambda key: problem.crop_origin(shape, key))
        seen = [at(_window_keys(key, step, number, positions)) for number in range(2)]
        crop_keys = lambda key: jax.random.split(key)[0]
        trained = jax.vmap(crop_keys)(_augmentation_keys(key, step, positions))
        return CropOrigins(at(trained) if first else None, *seen)

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
    state: Any,
    data: Any,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Any, Metrics]:
    """T and R."""
    labelled = gather(data, plan).labelled
    batch = batch_of(components, labelled, data[0].normalise, key, schedule, plan)
    return components.learner.step(state, batch, schedule, devices.mean)


def batch_of(
    components: Components,
    labelled: Examples,
    normalise: Normaliser,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> Batch:
    """Augmented and normalised examples, every one with keys of its own."""
    keys = _augmentation_keys(key, schedule.step, plan.positions)
    examples = Example(labelled.image, visible(labelled.label)[0])
    augmented = jax.vmap(components.learner.problem.augment)(examples, keys)
    drop = None
    if components.method.dropout:
        drop = example_keys(derive(key, Stream.DROPOUT, schedule.step), plan.positions)
    return Batch(jax.vmap(normalise)(augmented.image), augmented.label, drop)


def joint_step(
    components: Components,
    state: Any,
    data: Any,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Any, Metrics]:
    """Algorithm 1: ranks, then T and R, then the VAE, then D; the last two again as planned."""
    learner_state, adversary_state = state
    examples, normalise = gather(data, plan), data[0].normalise
    batch = batch_of(components, examples.labelled, normalise, key, schedule, plan)
    learned, task_metrics = components.learner.step(learner_state, batch, schedule, devices.mean)

    def update(state: Any, examples: Gathered, key: jax.Array) -> tuple[Any, Metrics]:
        condition = joint_condition(
            components, learner_state, examples, normalise, key, schedule, plan
        )
        halves = pool_batches(components, examples, condition, normalise, key, schedule, plan)
        assert components.adversary is not None
        return components.adversary.step(state, *halves, devices.mean)

    adversary_state, metrics = update(adversary_state, examples, key)
    if plan.more is not None:

        def again(state: Any, row: tuple[Any, jax.Array]) -> tuple[Any, Metrics]:
            more, number = row
            examples = gather(data, plan._replace(**more._asdict()))
            return update(state, examples, derive(key, Stream.UPDATES, number))

        rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), plan.more)
        numbers = jnp.arange(len(jax.tree.leaves(rows)[0]))
        adversary_state, others = lax.scan(again, adversary_state, (rows, numbers))
        join = lambda first, rest: (first + jnp.sum(rest, 0)) / (1 + len(rest))
        metrics = jax.tree.map(join, metrics, others)
    return (learned, adversary_state), {**task_metrics, **metrics}


def joint_condition(
    components: Components,
    state: LearnerState,
    examples: Gathered,
    normalise: Normaliser,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Any, Any]:
    """r of both pools: U(0, 1) in the first epoch, then the Ranker's, on plain images.

    Of images that T sees in windows R has one, too, drawn anew.
    """
    adversary = components.adversary
    assert adversary is not None
    if adversary.condition_of is None:
        return None, None
    condition_of = adversary.condition_of

    def first() -> Any:
        keys = (derive(key, Stream.FIRST_RANKS, schedule.step, number) for number in range(2))
        condition = [adversary.initial_condition(example_keys(k, plan.positions)) for k in keys]
        return jax.tree.map(lambda *halves: jnp.concatenate(halves), *condition)

    def ranker_crop(given: Examples | None, number: int) -> jax.Array:
        assert given is not None
        if given.ranker_crop is not None:
            return jax.vmap(normalise)(given.ranker_crop)
        problem, shape = components.learner.problem, given.image.shape[1:]
        keys = _window_keys(key, schedule.step, number, plan.positions)
        cut = lambda image, key: normalise(problem.window(image, problem.crop_origin(shape, key)))
        return jax.vmap(cut)(given.image, keys)

    images = [ranker_crop(given, number) for number, given in enumerate(examples)]

    def later() -> Any:
        return condition_of(components.learner.infer(state, jnp.concatenate(images)))

    condition = lax.cond(schedule.first_epoch, first, later)
    half = len(plan.positions)
    return jax.tree.map(lambda x: x[:half], condition), jax.tree.map(lambda x: x[half:], condition)


def adversary_step(
    components: Components,
    state: Any,
    data: Any,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[Any, Metrics]:
    """Second phase of the released code: the VAE, then D, with constant ranks."""
    examples = gather(data, plan)
    assert components.adversary is not None
    assert examples.unlabelled is not None
    condition = examples.labelled.condition, examples.unlabelled.condition
    halves = pool_batches(components, examples, condition, data[0].normalise, key, schedule, plan)
    return components.adversary.step(state, *halves, devices.mean)


def pool_batches(
    components: Components,
    examples: Gathered,
    condition: tuple[Any, Any],
    normalise: Normaliser,
    key: jax.Array,
    schedule: Schedule,
    plan: IndexPlan,
) -> tuple[PoolBatch, PoolBatch]:
    """L's and U's halves of a batch, in this order."""
    latent_key = derive(key, Stream.LATENT, schedule.step)
    keys = [example_keys(derive(latent_key, number), plan.positions) for number in range(2)]
    known = visible(examples.labelled.label)[1]
    labels = known, components.learner.problem.unknown(known)

    def picture(given: Examples | None) -> jax.Array:
        assert given is not None
        images = given.image if given.thumbnail is None else given.thumbnail
        return jax.vmap(normalise)(images)

    labelled, unlabelled = (
        PoolBatch(picture(given), *rest)
        for given, *rest in zip(examples, condition, keys, labels, strict=True)
    )
    return labelled, unlabelled
