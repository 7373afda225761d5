"""The parts of a method, built from a config."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm.adversary_like import AdversaryLike
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import LearnerState
from tavaal_jax.engine import devices
from tavaal_jax.errors import UserError
from tavaal_jax.models import networks, weights


@dataclasses.dataclass(frozen=True)
class Components:
    """The parts of a method, built for images of one shape."""

    method: Method
    learner: Learner
    adversary: AdversaryLike | None
    passes: int
    measure: str


def load_pretrained(
    components: Components, config: ConfigDict
) -> Callable[[LearnerState], LearnerState]:
    """A function that puts the weights of `task.pretrained` into a fresh T, except for its head.

    It raises UserError for a file that does not fit; one that cannot be read raises it here.
    """
    published = networks.find(config.task.network).published
    if not config.task.pretrained or published is None:
        return lambda state: state
    tensors, network = weights.read(config.task.pretrained), components.learner.network

    def filled(state: LearnerState) -> LearnerState:
        try:
            learner = state.params["learner"]
            params, stats = published.load(tensors, network, learner, state.stats)
        except ValueError as error:
            raise UserError(f"task.pretrained is {config.task.pretrained}: {error}") from error
        params, stats = jax.tree.map(jnp.asarray, (params, stats))
        return state.replace(params={**state.params, "learner": params}, stats=stats)

    return filled


def build(
    config: ConfigDict, method: Method, shape: tuple[int, ...], problem: Problem
) -> Components:
    """Build T and R, and the adversary, of a method for a problem with images of `shape`."""
    learner = Learner(
        models.build_learner(config, problem.classes, shape, devices.AXIS),
        None if method.ranking_loss is None else models.build_ranker(config),
        method.ranking_loss,
        problem,
        learners.Settings.of(config),
        networks.find(config.task.network).solved,
    )
    adversary = None
    if method.adversary is not None:
        adversary = method.adversary(config, problem, shape, devices.AXIS)
    dropout = config.mc_dropout
    return Components(method, learner, adversary, dropout.passes, dropout.measure)
