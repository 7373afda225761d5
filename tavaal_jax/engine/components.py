"""What a method is made of."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm.adversary import Adversary
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import LearnerState
from tavaal_jax.engine import devices
from tavaal_jax.errors import UserError
from tavaal_jax.models import pretrained, weights
from tavaal_jax.models.drn import DRN


@dataclasses.dataclass(frozen=True)
class Components:
    """What a method is made of, built for images of one shape."""

    method: Method
    learner: Learner
    adversary: Adversary | None
    passes: int
    measure: str


def load_pretrained(
    components: Components, config: ConfigDict
) -> Callable[[LearnerState], LearnerState]:
    """What puts T's body from the file that a config names into fresh weights; the head stays.

    Raises UserError where the file cannot be read.
    """
    if not config.task.pretrained:
        return lambda state: state
    tensors, network = weights.read(config.task.pretrained), components.learner.network
    fill: Any = pretrained.drn if isinstance(network, DRN) else pretrained.resnet

    def filled(state: LearnerState) -> LearnerState:
        try:
            params, stats = fill(tensors, network, state.params["learner"], state.stats)
        except ValueError as error:
            raise UserError(f"task.pretrained is {config.task.pretrained}: {error}") from error
        return state.replace(params={**state.params, "learner": params}, stats=stats)

    return filled


def build(
    config: ConfigDict, method: Method, shape: tuple[int, ...], problem: Problem
) -> Components:
    """T and R, and the adversary, of a method for a problem with images of `shape`."""
    learner = Learner(
        models.build_learner(config, problem.classes, devices.AXIS),
        None if method.ranking_loss is None else models.build_ranker(config),
        method.ranking_loss,
        problem,
        learners.Settings.of(config),
    )
    adversary = None
    if method.adversary is not None:
        adversary = method.adversary(config, problem, shape, devices.AXIS)
    dropout = config.mc_dropout
    return Components(method, learner, adversary, dropout.passes, dropout.measure)
