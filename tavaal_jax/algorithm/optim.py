"""Optimisers and schedules: gradient, mean over devices, step.

The learning rate is an argument of every step and not a part of the optimiser, so that one
compiled step serves all cycles, whose schedules have different lengths.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from tavaal_jax.algorithm.state import Params, Schedule

Tree = TypeVar("Tree")
Kept = TypeVar("Kept")
Metrics = dict[str, jax.Array]


class Mean(Protocol):
    """Averages a tree of arrays over the devices that share a batch."""

    def __call__(self, tree: Tree, /) -> Tree:
        """Mean of `tree` over devices."""


class Optimiser(NamedTuple):
    """Settings of an optimiser."""

    optimiser: str
    """"sgd" or "adam"."""
    learning_rate: float
    momentum: float = 0.9
    """SGD's."""
    weight_decay: float = 0.0
    """L2, added to the gradient."""

    @classmethod
    def of(cls, group: ConfigDict) -> "Optimiser":
        """Settings from a config's group with keys of these names."""
        return cls(*(group[name] for name in cls._fields))


def alone(tree: Tree) -> Tree:
    """The mean over a single device: the tree itself."""
    return tree


def transformation(settings: Optimiser) -> optax.GradientTransformation:
    """Gradient -> direction; SGD is PyTorch's, `v = momentum v + (g + weight_decay p)`."""
    decay = (
        optax.add_decayed_weights(settings.weight_decay)
        if settings.weight_decay
        else optax.identity()
    )
    if settings.optimiser == "sgd":
        return optax.chain(decay, optax.trace(decay=settings.momentum))
    return optax.chain(decay, optax.scale_by_adam())


def step(
    settings: Optimiser,
    learning_rate: jax.Array | float,
    loss: Callable[[Params], tuple[jax.Array, tuple[Kept, Metrics]]],
    params: Params,
    state: optax.OptState,
    mean: Mean,
) -> tuple[Params, optax.OptState, Kept, Metrics]:
    """Takes one step down `loss(params) -> [], (kept, metrics)`.

    Returns new params, optimiser state, kept and metrics. Gradients and metrics are averaged over
    devices; `kept` (BatchNorm statistics) already is.
    """
    gradients, (kept, metrics) = jax.grad(loss, has_aux=True)(params)
    gradients, metrics = mean((gradients, metrics))
    # Optax's Adam raises a float to an integer count, which strict promotion does not allow.
    with jax.numpy_dtype_promotion("standard"):
        direction, state = transformation(settings).update(gradients, state, params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)
    return params, state, kept, metrics


def schedule(config: ConfigDict, first: int, count: int, steps_per_epoch: int) -> Schedule:
    """Rows `first` to `first + count - 1` of a training stage's schedule, arrays `[count]`.

    The learning rate drops once, by `task.decay_factor` at `task.decay_at` of the epochs; the
    Ranker is active for `ranker.active_fraction` of them.
    """
    numbers = np.arange(first, first + count, dtype=np.int32)
    progress = (numbers // steps_per_epoch) / config.epochs
    factor = np.where(progress >= config.task.decay_at, config.task.decay_factor, 1.0)
    return Schedule(
        step=numbers,
        learning_rate=(config.task.learning_rate * factor).astype(np.float32),
        ranker_active=progress < config.ranker.active_fraction,
        first_epoch=numbers < steps_per_epoch,
    )
