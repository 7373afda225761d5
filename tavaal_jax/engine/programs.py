"""What is compiled for a method: the pure functions of `algorithm`, fed, mapped and looped.

Scores and metrics are written for one example and mapped over a pool.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tavaal_jax.algorithm.adversary import Adversary
from tavaal_jax.algorithm.learner import LearnerOutput
from tavaal_jax.algorithm.methods import BASELINE, METHODS, Method
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import Array, Example, LearnerState
from tavaal_jax.algorithm.values import View
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.engine import compilation, devices, steps
from tavaal_jax.engine.components import Components, load_pretrained
from tavaal_jax.engine.components import build as build_components
from tavaal_jax.models import portable


class Programs(NamedTuple):
    """All that runs on the devices for a method."""

    init: Callable[[jax.Array, Any], tuple[LearnerState, Any]]
    """`(trial's key, cycle) -> learner state, adversary state or None`, fresh."""
    shapes: Callable[[], tuple[LearnerState, Any]]
    """Those of what `init` gives; computes nothing."""
    train: dict[str, devices.Train]
    """By stage, see `devices.train_program`; its data is `(Resident, told [N, ...] or None)`."""
    evaluate: devices.Map
    """`((learner state, normaliser), Example, indices) -> counts [n, ...]`."""
    needs_inference: bool
    """Whether there is a Ranker, or an adversary that is told of images."""
    infer: devices.Map
    """`((learner state, normaliser), images, indices) -> Inspected [n]`."""
    losses: devices.Map
    """`((learner state, normaliser), Example, indices) -> [n]`: for diagnostics, sees labels.

    nan for a map in which no pixel has a label.
    """
    values: devices.Map
    """`((learner, adversary state, normaliser, key), Candidate, indices) -> Valued [n]`."""
    adversary: Adversary | None
    """The method's."""
    classify: Callable[..., jax.Array]
    """`(learner state, normaliser, stored images [n, ...]) -> classes [n]`."""


class Inference(NamedTuple):
    """What T and R say of an image, as far as others need it."""

    predicted: jax.Array | None
    """R(x) `[]`."""
    condition: Any
    """What the adversary is told."""


class PoolExample(NamedTuple):
    """What is mapped over to pick from it: arrays `[N, ...]`. Labels are not among them."""

    image: Array
    number: Array
    inferred: Inference
    thumbnail: Array | None = None


class Scored(NamedTuple):
    """What is picked by, and the adversary's score for diagnostics (None without one)."""

    value: Any
    score: jax.Array | None


def build(config: ConfigDict, method: Method, shape: tuple[int, ...], problem: Problem) -> Programs:
    """The programs of a method; each is compiled when it is first called."""
    components = build_components(config, method, shape, problem)

    def bind(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(function, components)

    def map_over(function: Callable[..., Any], name: str) -> devices.Map:
        return devices.map_program(bind(function), name, config.score_batch_size)

    by_stage = {
        "task": steps.task_step,
        "joint": steps.joint_step,
        "adversary": steps.adversary_step,
    }
    fresh = functools.partial(_init, components, shape)
    compiled = jax.jit(fresh, compiler_options=compilation.quickly())
    fill = load_pretrained(components, config)

    def init(key: jax.Array, cycle: Any) -> tuple[LearnerState, Any]:
        learner, adversary = compiled(key, cycle)
        made_now: tuple[LearnerState, Any] = jax.block_until_ready((fill(learner), adversary))
        return made_now

    return Programs(
        init=init,
        shapes=functools.partial(jax.eval_shape, fresh, jax.random.key(0), 0),
        train={
            stage: devices.train_program(bind(step), f"train_{stage}")
            for stage, step in by_stage.items()
        },
        evaluate=map_over(_evaluate_one, "evaluate"),
        needs_inference=method.ranking_loss is not None
        or (components.adversary is not None and components.adversary.condition_of is not None),
        infer=map_over(_infer_one, "inspect"),
        losses=map_over(_loss_of_one, "losses"),
        values=map_over(_value_of_one, "value"),
        adversary=components.adversary,
        classify=devices.waited_for(jax.jit(bind(_classify))),
    )


def check_pretrained(config: ConfigDict, shape: tuple[int, ...], problem: Problem) -> None:
    """Raises UserError where `task.pretrained` is for another network.

    Computes nothing and starts no device: those may belong to workers.
    """
    components = build_components(config, METHODS[BASELINE], shape, problem)
    fill = load_pretrained(components, config)
    with portable(True):
        jax.eval_shape(lambda: fill(_init(components, shape, jax.random.key(0), jnp.int32(0))[0]))


def check_value(
    config: ConfigDict, method: Method, shape: tuple[int, ...], problem: Problem, thumbnail: int
) -> None:
    """Raises what a method's value would raise when the pool is scored, after a training.

    `thumbnail` is the side of what the VAE sees of larger images, else 0. Like `check_pretrained`
    it computes nothing and starts no device.
    """
    components = build_components(config, method, shape, problem)

    def one(image: jax.Array, small: jax.Array | None) -> Scored:
        key = jax.random.key(0)
        learner, adversary = _init(components, shape, key, jnp.int32(0))
        inferred = _infer_one(components, (learner, lambda x: x), image)
        candidate = PoolExample(image, jnp.int32(0), inferred, small)
        return _value_of_one(components, (learner, adversary, lambda x: x, key), candidate)

    def like(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    small = like(thumbnail, thumbnail, shape[-1]) if thumbnail else None
    with portable(True):
        jax.eval_shape(one, like(*shape), small)


def _init(
    components: Components, shape: tuple[int, ...], key: jax.Array, cycle: jax.Array
) -> tuple[LearnerState, Any]:
    images = jnp.zeros((1, *shape))
    adversary = components.adversary
    return (
        components.learner.init(key, images, cycle),
        None if adversary is None else adversary.init(key, images, cycle),
    )


# One example each


def _evaluate_one(components: Components, variables: Any, example: Example) -> jax.Array:
    state, normalise = variables
    logits = components.learner.predict(state, normalise(example.image)[None]).logits[0]
    return components.learner.problem.counts(logits, example.label)


def _loss_of_one(components: Components, variables: Any, example: Example) -> jax.Array:
    state, normalise = variables
    logits = components.learner.predict(state, normalise(example.image)[None]).logits
    label = steps.visible(jax.tree.map(lambda x: x[None], example.label))[0]
    problem = components.learner.problem
    loss, weights = problem.image_losses(logits, label)[0], problem.weights(label)
    return loss if weights is None else jnp.where(weights[0] > 0, loss, jnp.nan)


def _infer_one(components: Components, variables: Any, image: jax.Array) -> Inference:
    state, normalise = variables
    said = components.learner.infer(state, normalise(image)[None])
    return jax.tree.map(lambda x: x[0], Inference(said.predicted, _condition(components, said)))


def _condition(components: Components, said: LearnerOutput) -> Any:
    if components.adversary is None or components.adversary.condition_of is None:
        return None
    return components.adversary.condition_of(said)


def _value_of_one(components: Components, variables: Any, candidate: PoolExample) -> Scored:
    learner_state, adversary_state, normalise, key = variables
    view = View(
        normalise(candidate.image),
        components.learner,
        learner_state,
        components.adversary,
        adversary_state,
        *candidate.inferred,
        components.passes,
        components.measure,
        None if candidate.thumbnail is None else normalise(candidate.thumbnail),
    )
    value = components.method.value(view, jax.random.fold_in(key, candidate.number))
    return Scored(value, None if components.adversary is None else view.score)


def _classify(
    components: Components, state: LearnerState, normalise: Normaliser, images: jax.Array
) -> jax.Array:
    return jnp.argmax(components.learner.predict(state, jax.vmap(normalise)(images)).logits, -1)
