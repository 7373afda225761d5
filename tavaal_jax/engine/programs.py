"""Compiled programs of a method: `algorithm`'s pure functions, looped or mapped over a data set.

Values and metrics are written for one example.
"""

import functools
from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from tavaal_jax.algorithm.adversary_like import AdversaryLike
from tavaal_jax.algorithm.learner import LearnerOutput
from tavaal_jax.algorithm.methods import BASELINE, METHODS, Method
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import (
    AdversaryVariables,
    Array,
    ArrayTree,
    Condition,
    Example,
    LearnerState,
)
from tavaal_jax.algorithm.values import View
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.engine import compilation, devices, steps
from tavaal_jax.engine.components import Components, load_pretrained
from tavaal_jax.engine.components import build as build_components
from tavaal_jax.engine.steps import Networks, StepData
from tavaal_jax.models import portable

Given = ParamSpec("Given")
Result = TypeVar("Result")
Normalise = Callable[[jax.Array], jax.Array]
"""Makes network input of stored images."""


class TaskVariables(NamedTuple):
    """Arguments of T's and R's inference that all images share."""

    learner: LearnerState
    normalise: Normalise


class ScoreVariables(NamedTuple):
    """Arguments of a method's value that all images share."""

    learner: LearnerState
    adversary: AdversaryVariables
    normalise: Normalise
    key: jax.Array
    """Key of the cycle's values; an image's index is folded in."""


class Inference(NamedTuple):
    """Outputs of T and R that later stages need: for one image, or arrays `[N, ...]`."""

    predicted: Array | None
    """R(x) `[]`; None without a Ranker."""
    condition: Condition


class PoolExample(NamedTuple):
    """An image to be scored, or arrays `[N, ...]` of all; its label is not among the fields."""

    image: Array
    number: Array
    """Index of the image."""
    inferred: Inference
    thumbnail: Array | None = None


class Scored(NamedTuple):
    """A method's value of an image; with an adversary also its score, for diagnostics."""

    value: ArrayTree
    score: Array | None


class Programs(NamedTuple):
    """All that runs on the devices for a method."""

    init: Callable[[jax.Array, ArrayLike], Networks]
    """`(trial's key, cycle) -> networks`: fresh weights."""
    shapes: Callable[[], Networks]
    """Shapes of what `init` returns; computes nothing."""
    train: dict[str, devices.TrainProgram[Networks, StepData]]
    """A program per training stage, see `devices.train_program`."""
    solve: Callable[[LearnerState, Normaliser, Example, Array], tuple[LearnerState, Metrics]]
    """`(state, normaliser, stored examples [n, ...], weights [n]) -> state, metrics`: T is trained
    at once, see `Learner.solve`."""
    evaluate: devices.MapProgram[TaskVariables, Example, Array]
    """The problem's counts of each image, `[n, ...]`."""
    needs_inference: bool
    """Whether there is a Ranker, or an adversary with a condition."""
    infer: devices.MapProgram[TaskVariables, Array, Inference]
    """Inference on stored images."""
    losses: devices.MapProgram[TaskVariables, Example, Array]
    """Task losses `[n]`, for diagnostics, from true labels; nan for a map without labelled pixels.
    """
    values: devices.MapProgram[ScoreVariables, PoolExample, Scored]
    """Scores the method's candidates."""
    adversary: AdversaryLike | None
    """The method's adversary."""
    classify: Callable[[LearnerState, Normaliser, Array], jax.Array]
    """`(state, normaliser, stored images [n, ...]) -> classes [n]`."""


def build(config: ConfigDict, method: Method, shape: tuple[int, ...], problem: Problem) -> Programs:
    """The programs of a method; each is compiled when it is first called."""
    components = build_components(config, method, shape, problem)

    def bind(
        function: Callable[Concatenate[Components, Given], Result],
    ) -> Callable[Given, Result]:
        return functools.partial(function, components)

    chunk = config.score_batch_size
    fresh = functools.partial(_init, components, shape)
    compiled = jax.jit(fresh, compiler_options=compilation.quick_options())
    fill = load_pretrained(components, config)

    def init(key: jax.Array, cycle: ArrayLike) -> Networks:
        networks: Networks = compiled(key, cycle)
        assert networks.learner is not None
        filled: Networks = jax.block_until_ready(networks._replace(learner=fill(networks.learner)))
        return filled

    return Programs(
        init=init,
        shapes=lambda: jax.eval_shape(compiled, jax.random.key(0), 0),
        train={
            "task": devices.train_program(bind(steps.task_step), "train_task"),
            "joint": devices.train_program(bind(steps.joint_step), "train_joint"),
            "adversary": devices.train_program(bind(steps.adversary_step), "train_adversary"),
        },
        solve=jax.jit(bind(_solve), compiler_options=compilation.quick_options()),
        evaluate=devices.map_program(bind(_evaluate_one), "evaluate", chunk),
        needs_inference=method.ranking_loss is not None or _has_condition(components),
        infer=devices.map_program(bind(_infer_one), "inspect", chunk),
        losses=devices.map_program(bind(_loss_of_one), "losses", chunk),
        values=devices.map_program(bind(_value_of_one), "value", chunk),
        adversary=components.adversary,
        classify=devices.blocking_on_cpu(jax.jit(bind(_classify))),
    )


def _has_condition(components: Components) -> bool:
    return components.adversary is not None and components.adversary.condition_of is not None


def check_pretrained(config: ConfigDict, shape: tuple[int, ...], problem: Problem) -> None:
    """Raises UserError where `task.pretrained` is for another network.

    Computes nothing and starts no device: those may belong to workers.
    """
    components = build_components(config, METHODS[BASELINE], shape, problem)
    fill = load_pretrained(components, config)

    def filled() -> LearnerState:
        learner = _init(components, shape, jax.random.key(0), jnp.int32(0)).learner
        assert learner is not None
        return fill(learner)

    with portable(True):
        jax.eval_shape(filled)


def _init(
    components: Components, shape: tuple[int, ...], key: jax.Array, cycle: ArrayLike
) -> Networks:
    images, number = jnp.zeros((1, *shape), jnp.float32), jnp.asarray(cycle)
    adversary = components.adversary
    return Networks(
        components.learner.init(key, images, number),
        None if adversary is None else adversary.init(key, images, number),
    )


def _solve(
    components: Components,
    state: LearnerState,
    normalise: Normaliser,
    examples: Example,
    weights: Array,
) -> tuple[LearnerState, Metrics]:
    images = jax.vmap(normalise)(examples.image)
    return components.learner.solve(state, images, examples.label, weights)


# One example each


def _evaluate_one(components: Components, variables: TaskVariables, example: Example) -> jax.Array:
    state, normalise = variables
    logits = components.learner.predict(state, normalise(example.image)[None]).logits[0]
    return components.learner.problem.counts(logits, example.label)


def _loss_of_one(components: Components, variables: TaskVariables, example: Example) -> jax.Array:
    state, normalise = variables
    logits = components.learner.predict(state, normalise(example.image)[None]).logits
    label = steps.visible(jax.tree.map(lambda x: x[None], example.label))[0]
    problem = components.learner.problem
    loss, weights = problem.image_losses(logits, label)[0], problem.weights(label)
    return loss if weights is None else jnp.where(weights[0] > 0, loss, jnp.nan)


def _infer_one(components: Components, variables: TaskVariables, image: jax.Array) -> Inference:
    state, normalise = variables
    output = components.learner.infer(state, normalise(image)[None])
    inferred = Inference(output.predicted, _condition(components, output))
    of_one: Inference = jax.tree.map(lambda x: x[0], inferred)
    return of_one


def _condition(components: Components, output: LearnerOutput) -> Condition:
    if components.adversary is None or components.adversary.condition_of is None:
        return None
    return components.adversary.condition_of(output)


def _value_of_one(
    components: Components, variables: ScoreVariables, candidate: PoolExample
) -> Scored:
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
    components: Components, state: LearnerState, normalise: Normaliser, images: Array
) -> jax.Array:
    return jnp.argmax(components.learner.predict(state, jax.vmap(normalise)(images)).logits, -1)
