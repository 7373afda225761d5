"""What a method is made of."""

import dataclasses
from typing import Any

from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm.adversary import Adversary
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.engine import devices


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a method is made of, built for images of one shape."""

    method: Method
    learner: Learner
    adversary: Adversary | None
    passes: int
    measure: str


def build(config: Any, method: Method, shape: tuple[int, ...], problem: Problem) -> Parts:
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
    return Parts(method, learner, adversary, dropout.passes, dropout.measure)
