"""What is compiled for a method: the pure functions of `algorithm`, fed, mapped and looped.

A training step gathers its examples once. Scores and metrics are written for one example and mapped
over a pool.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm.adversary import Adversary
from tavaal_jax.algorithm.learner import Learner, Said
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import (
    Array,
    Batch,
    Example,
    Half,
    LearnerState,
    Schedule,
    Stream,
    derive,
    example_keys,
)
from tavaal_jax.algorithm.values import View
from tavaal_jax.data.plans import Plan
from tavaal_jax.data.pool import Normaliser, Resident
from tavaal_jax.engine import compilation, devices

Metrics = dict[str, jax.Array]


class Programs(NamedTuple):
    """All that runs on the devices for a method."""

    init: Callable[[jax.Array, Any], tuple[LearnerState, Any]]
    """`(trial's key, cycle) -> learner state, adversary state or None`, fresh."""
    train: dict[str, devices.Train]
    """By stage, see `devices.train_program`; its data is `(Resident, told [N, ...] or None)`."""
    evaluate: devices.Map
    """`((learner state, normaliser), Example, indices) -> counts [n, ...]`."""
    asks: bool
    """Whether there is a Ranker, or an adversary that is told of images."""
    inspect: devices.Map
    """`((learner state, normaliser), images, indices) -> Inspected [n]`."""
    losses: devices.Map
    """`((learner state, normaliser), Example, indices) -> [n]`: for diagnostics, sees labels."""
    values: devices.Map
    """`((learner, adversary state, normaliser, key), Candidate, indices) -> Valued [n]`."""
    classify: Callable[..., jax.Array]
    """`(learner state, normaliser, stored images [n, ...]) -> classes [n]`."""


class Inspected(NamedTuple):
    """What T and R say of an image, as far as others need it."""

    predicted: jax.Array | None
    """R(x) `[]`."""
    told: Any
    """What the adversary is told."""


class Candidate(NamedTuple):
    """What is mapped over to pick from it: arrays `[N, ...]`. Labels are not among them."""

    image: Array
    number: Array
    inspected: Inspected


class Valued(NamedTuple):
    """What is picked by, and the adversary's score for diagnostics (None without one)."""

    value: Any
    score: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a method is made of, built for images of one shape."""

    method: Method
    learner: Learner
    adversary: Adversary | None
    passes: int
    measure: str


def parts(config: Any, method: Method, shape: tuple[int, ...], classes: int) -> Parts:
    """T and R, and the adversary, of a method for images of `shape` and `classes` classes."""
    problem = Classification.of(config, classes)
    learner = Learner(
        models.build_learner(config, classes, devices.AXIS),
        None if method.ranking_loss is None else models.build_ranker(config),
        method.ranking_loss,
        problem,
        learners.Settings.of(config),
    )
    adversary = None
    if method.adversary is not None:
        adversary = method.adversary(config, problem, shape, devices.AXIS)
    dropout = config.mc_dropout
    return Parts(method, learner, adversary, dropout.passes, dropout.measure)


def build(config: Any, method: Method, shape: tuple[int, ...], classes: int) -> Programs:
    """The programs of a method; each is compiled when it is first called."""
    made = parts(config, method, shape, classes)

    def bind(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(function, made)

    def map_over(function: Callable[..., Any], name: str) -> devices.Map:
        return devices.map_program(bind(function), name, config.score_batch_size)

    steps = {"task": _task_step, "joint": _joint_step, "adversary": _adversary_step}
    init = functools.partial(_init, made, shape)
    return Programs(
        init=jax.jit(init, compiler_options=compilation.quickly()),
        train={
            stage: devices.train_program(bind(step), f"train_{stage}")
            for stage, step in steps.items()
        },
        evaluate=map_over(_evaluate_one, "evaluate"),
        asks=method.ranking_loss is not None
        or (made.adversary is not None and made.adversary.tell is not None),
        inspect=map_over(_inspect_one, "inspect"),
        losses=map_over(_loss_of_one, "losses"),
        values=map_over(_value_of_one, "value"),
        classify=jax.jit(bind(_classify)),
    )


def _init(
    made: Parts, shape: tuple[int, ...], key: jax.Array, cycle: jax.Array
) -> tuple[LearnerState, Any]:
    images = jnp.zeros((1, *shape))
    adversary = made.adversary
    return (
        made.learner.init(key, images, cycle),
        None if adversary is None else adversary.init(key, images, cycle),
    )


# Training: a step on this device's part of a batch; `key` is that of the cycle's training.


class _Gathered(NamedTuple):
    """A step's examples."""

    labelled: Example
    unlabelled: jax.Array | None
    told: tuple[Any, Any]
    """Constant for both pools, or None."""


def _gather(data: tuple[Resident, Any], plan: Plan) -> _Gathered:
    pool, told = data

    def at(tree: Any, indices: Any) -> Any:
        return jax.tree.map(lambda x: x[indices], tree)

    labelled = Example(*at((pool.images, pool.labels), plan.labelled))
    if plan.unlabelled is None:
        return _Gathered(labelled, None, (None, None))
    unlabelled = at(pool.images, plan.unlabelled)
    return _Gathered(labelled, unlabelled, (at(told, plan.labelled), at(told, plan.unlabelled)))


def _task_step(
    made: Parts, state: Any, data: Any, key: jax.Array, schedule: Schedule, plan: Plan
) -> tuple[Any, Metrics]:
    """T and R."""
    examples = _gather(data, plan).labelled
    batch = _batch(made, examples, data[0].normalise, key, schedule, plan)
    return made.learner.step(state, batch, schedule, devices.mean)


def _batch(
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


def _joint_step(
    made: Parts, state: Any, data: Any, key: jax.Array, schedule: Schedule, plan: Plan
) -> tuple[Any, Metrics]:
    """Algorithm 1: ranks, then T and R, then the VAE, then D; the last two again as planned."""
    learner_state, adversary_state = state
    examples, normalise = _gather(data, plan), data[0].normalise
    batch = _batch(made, examples.labelled, normalise, key, schedule, plan)
    learned, task_metrics = made.learner.step(learner_state, batch, schedule, devices.mean)

    def update(state: Any, examples: _Gathered, key: jax.Array) -> tuple[Any, Metrics]:
        images = tuple(map(jax.vmap(normalise), (examples.labelled.image, examples.unlabelled)))
        told = _joint_told(made, learner_state, images, key, schedule, plan)
        halves = _halves(images, told, examples.labelled.label, key, schedule, plan)
        assert made.adversary is not None
        return made.adversary.step(state, *halves, devices.mean)

    adversary_state, metrics = update(adversary_state, examples, key)
    if plan.more is not None:

        def again(state: Any, row: tuple[Any, jax.Array]) -> tuple[Any, Metrics]:
            more, number = row
            examples = _gather(data, plan._replace(**more._asdict()))
            return update(state, examples, derive(key, Stream.UPDATES, number))

        rows = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), plan.more)
        numbers = jnp.arange(len(rows.labelled))
        adversary_state, others = lax.scan(again, adversary_state, (rows, numbers))
        join = lambda first, rest: (first + jnp.sum(rest, 0)) / (1 + len(rest))
        metrics = jax.tree.map(join, metrics, others)
    return (learned, adversary_state), {**task_metrics, **metrics}


def _joint_told(
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


def _adversary_step(
    made: Parts, state: Any, data: Any, key: jax.Array, schedule: Schedule, plan: Plan
) -> tuple[Any, Metrics]:
    """Second phase of the released code: the VAE, then D, with constant ranks."""
    examples = _gather(data, plan)
    normalise = jax.vmap(data[0].normalise)
    images = (normalise(examples.labelled.image), normalise(examples.unlabelled))
    assert made.adversary is not None
    labels = examples.labelled.label
    labelled, unlabelled = _halves(images, examples.told, labels, key, schedule, plan)
    return made.adversary.step(state, labelled, unlabelled, devices.mean)


def _halves(
    images: tuple[jax.Array, ...], told: tuple[Any, Any], labels: jax.Array, key: jax.Array,
    schedule: Schedule, plan: Plan,
) -> tuple[Half, Half]:  # fmt: skip
    """L's and U's halves of a batch, in this order."""
    latent_key = derive(key, Stream.LATENT, schedule.step)
    keys = [example_keys(derive(latent_key, number), plan.positions) for number in range(2)]
    unknown = jnp.full_like(labels, -1)
    return Half(images[0], told[0], keys[0], labels), Half(images[1], told[1], keys[1], unknown)


# One example each


def _evaluate_one(made: Parts, variables: Any, example: Example) -> jax.Array:
    state, normalise = variables
    logits = made.learner.predict(state, normalise(example.image)[None]).logits[0]
    return made.learner.problem.counts(logits, example.label)


def _loss_of_one(made: Parts, variables: Any, example: Example) -> jax.Array:
    state, normalise = variables
    logits = made.learner.predict(state, normalise(example.image)[None]).logits
    return made.learner.problem.image_losses(logits, example.label[None])[0]


def _inspect_one(made: Parts, variables: Any, image: jax.Array) -> Inspected:
    state, normalise = variables
    said = made.learner.say(state, normalise(image)[None])
    return jax.tree.map(lambda x: x[0], Inspected(said.predicted, _told(made, said)))


def _told(made: Parts, said: Said) -> Any:
    if made.adversary is None or made.adversary.tell is None:
        return None
    return made.adversary.tell(said)


def _value_of_one(made: Parts, variables: Any, candidate: Candidate) -> Valued:
    learner_state, adversary_state, normalise, key = variables
    view = View(
        normalise(candidate.image), made.learner, learner_state, made.adversary, adversary_state,
        *candidate.inspected, made.passes, made.measure,
    )  # fmt: skip
    value = made.method.value(view, jax.random.fold_in(key, candidate.number))
    return Valued(value, None if made.adversary is None else view.score)


def _classify(
    made: Parts, state: LearnerState, normalise: Normaliser, images: jax.Array
) -> jax.Array:
    return jnp.argmax(made.learner.predict(state, jax.vmap(normalise)(images)).logits, -1)
