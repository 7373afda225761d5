"""Protocols of an adversary and of the function that builds it, for those of others, too."""

from collections.abc import Callable
from typing import Protocol

import jax
from ml_collections import ConfigDict

from tavaal_jax.algorithm import optim
from tavaal_jax.algorithm.learner import LearnerOutput
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import AdversaryVariables, Condition, PoolBatch


class AdversaryLike(Protocol):
    """Interface of an adversary; its methods are pure functions of arrays."""

    @property
    def condition_of(self) -> Callable[[LearnerOutput], Condition] | None:
        """Makes the condition on images, arrays `[B, ...]`, from T's and R's outputs for them.

        None: there is no condition. `B` is any number; an image's condition depends on it alone.
        """

    def initial_condition(self, keys: jax.Array) -> Condition:
        """Condition in the first epoch of Algorithm 1: `keys [B] -> [B, ...]`, as `condition_of`.

        Called only where there is a `condition_of`.
        """

    def init(
        self, key: jax.Array, images: jax.Array, cycle: int | jax.Array = 0
    ) -> AdversaryVariables:
        """Draws fresh weights for a cycle, all a tree of arrays.

        `images [1, ...]`, normalised, give the shapes.
        """

    def step(
        self,
        state: AdversaryVariables,
        labelled: PoolBatch,
        unlabelled: PoolBatch,
        mean: optim.Mean = optim.alone,
    ) -> tuple[AdversaryVariables, Metrics]:
        """Trains once on both pools' halves of a batch; metrics are scalars.

        `mean` averages gradients and metrics over devices, each of which has a part of the batch.
        """

    def score(
        self, state: AdversaryVariables, images: jax.Array, condition: Condition = None
    ) -> jax.Array:
        """Scores normalised images in evaluation mode, `[B, ...] -> [B]`: equation (7) or its like.

        The smallest score is the least like L.
        """


class AdversaryFactory(Protocol):
    """Builds a method's adversary for images of `shape` without a batch: `[H, W, C]` or `[F]`.

    `axis_name` is that of the devices, for BatchNorm's statistics; None outside of `pmap`.
    """

    def __call__(
        self,
        config: ConfigDict,
        problem: Problem,
        shape: tuple[int, ...],
        axis_name: str | None = None,
        /,
    ) -> AdversaryLike:
        """A new adversary; weights come from its `init`."""
