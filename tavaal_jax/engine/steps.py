"""A training step of each stage, on this device's part of a batch, which it gathers once.

`key` is that of the cycle's training.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.algorithm.state import (
    Batch,
    Example,
    Half,
    LearnerState,
    Schedule,
    Stream,
    derive,
    example_keys,
)
from tavaal_jax.data.plans import Given, Plan
from tavaal_jax.data.pool import Normaliser, Resident
from tavaal_jax.engine import devices
from tavaal_jax.engine.parts import Parts

Metrics = dict[str, jax.Array]


class Gathered(NamedTuple):
    """A step's examples."""

    labelled: Example
    unlabelled: jax.Array | None
    told: tuple[Any, Any]
    """Constant for both pools, or None."""


def gather(data: tuple[Resident, Any], plan: Plan) -> Gathered:
    """The examples that `plan` names, of `(pool, what the adversary is told of it or None)`.

    Where a plan holds the examples themselves, the pool is not looked at.
    """
    pool, told = data

    def at(rows: Any) -> Given:
        if isinstance(rows, Given):
            return rows
        return jax.tree.map(lambda x: x[rows], Given(pool.images, pool.labels, told))

    labelled = at(plan.labelled)
    examples = Example(labelled.image, labelled.label)
    if plan.unlabelled is None:
        return Gathered(examples, None, (None, None))
    unlabelled = at(plan.unlabelled)
    return Gathered(examples, unlabelled.image, (labelled.told, unlabelled.told))


def task_step(
    made: Parts, state: Any, data: Any, key: jax.Array, schedule: Schedule, plan: Plan
) -> tuple[Any, Metrics]:
    """T and R."""
    examples = gather(data, plan).labelled
    batch = batch_of(made, examples, data[0].normalise, key, schedule, plan)
    return made.learner.step(state, batch, schedule, devices.mean)


def batch_of(
    made: Parts, examples: Example, normalise: Normaliser, key: jax.Array, schedule: Schedule,
    plan: Plan,
) -> Batch:  # fmt: skip
    """Augmented and normalised examples, every one with keys of its own."""
    keys = example_keys(derive(key, Stream.AUGMENTATION, schedule.step), plan.positions)
    augmented = jax.vmap(made.learner.problem.augment)(examples, keys)
    drop = None
    if made.method.dropout:
        drop = example_keys(derive(key, Stream.DROPOUT, schedule.step), plan.positions)
    return Batch(jax.vmap(normalise)(augmented.image), augmented.label, drop)


def joint_step(
    made: Parts, state: Any, data: Any, key: jax.Array, schedule: Schedule, plan: Plan
) -> tuple[Any, Metrics]:
    """Algorithm 1: ranks, then T and R, then the VAE, then D; the last two again as planned."""
    learner_state, adversary_state = state
    examples, normalise = gather(data, plan), data[0].normalise
    batch = batch_of(made, examples.labelled, normalise, key, schedule, plan)
    learned, task_metrics = made.learner.step(learner_state, batch, schedule, devices.mean)

    def update(state: Any, examples: Gathered, key: jax.Array) -> tuple[Any, Metrics]:
        images = tuple(map(jax.vmap(normalise), (examples.labelled.image, examples.unlabelled)))
        told = joint_told(made, learner_state, images, key, schedule, plan)
        halves = halves_of(images, told, examples.labelled.label, key, schedule, plan)
        assert made.adversary is not None
        return made.adversary.step(state, *halves, devices.mean)

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


def joint_told(
    made: Parts, state: LearnerState, images: tuple[jax.Array, ...], key: jax.Array,
    schedule: Schedule, plan: Plan,
) -> tuple[Any, Any]:  # fmt: skip
    """r of both pools: U(0, 1) in the first epoch, then the Ranker's, on plain images."""
    adversary = made.adversary
    assert adversary is not None
    if adversary.tell is None:
        return None, None
    tell = adversary.tell

    def first() -> Any:
        keys = (derive(key, Stream.FIRST_RANKS, schedule.step, number) for number in range(2))
        told = [adversary.first_told(example_keys(k, plan.positions)) for k in keys]
        return jax.tree.map(lambda *halves: jnp.concatenate(halves), *told)

    def later() -> Any:
        return tell(made.learner.say(state, jnp.concatenate(images)))

    told = lax.cond(schedule.first_epoch, first, later)
    half = len(images[0])
    return jax.tree.map(lambda x: x[:half], told), jax.tree.map(lambda x: x[half:], told)


def adversary_step(
    made: Parts, state: Any, data: Any, key: jax.Array, schedule: Schedule, plan: Plan
) -> tuple[Any, Metrics]:
    """Second phase of the released code: the VAE, then D, with constant ranks."""
    examples = gather(data, plan)
    normalise = jax.vmap(data[0].normalise)
    images = (normalise(examples.labelled.image), normalise(examples.unlabelled))
    assert made.adversary is not None
    labels = examples.labelled.label
    labelled, unlabelled = halves_of(images, examples.told, labels, key, schedule, plan)
    return made.adversary.step(state, labelled, unlabelled, devices.mean)


def halves_of(
    images: tuple[jax.Array, ...], told: tuple[Any, Any], labels: jax.Array, key: jax.Array,
    schedule: Schedule, plan: Plan,
) -> tuple[Half, Half]:  # fmt: skip
    """L's and U's halves of a batch, in this order."""
    latent_key = derive(key, Stream.LATENT, schedule.step)
    keys = [example_keys(derive(latent_key, number), plan.positions) for number in range(2)]
    unknown = jnp.full_like(labels, -1)
    return Half(images[0], told[0], keys[0], labels), Half(images[1], told[1], keys[1], unknown)
