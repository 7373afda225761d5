"""State of a trial, inputs of a training step, and the derivation of random keys."""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import struct
from jax.typing import ArrayLike

Array = Any
"""jax.Array in a program, np.ndarray outside."""
Params = dict[str, Any]
"""Weights or BatchNorm statistics of a network, as Flax nests them."""
ArrayTree = jax.Array | np.ndarray | tuple["ArrayTree", ...] | Mapping[str, "ArrayTree"] | None
Condition = ArrayTree
"""Input of decoder and D beside an image, arrays `[B, ...]`; None: there is none.

TA-VAAL's is `adversary.Rank`, SRAAL's the uncertainties `[B]`.
"""
AdversaryVariables = Any
"""An adversary's weights and optimisers; `AdversaryState` for the shipped ones."""


class LearnerState(struct.PyTreeNode):
    """Task learner T and Ranker R."""

    params: Params
    """Weights of T under `learner`, and of R under `ranker` where the method has one."""
    stats: Params
    """T's BatchNorm running statistics; empty for a learner without BatchNorm."""
    optimiser: optax.OptState


class AdversaryState(struct.PyTreeNode):
    """VAE and discriminator D."""

    vae_params: Params
    vae_stats: Params
    vae_optimiser: optax.OptState
    discriminator_params: Params
    discriminator_optimiser: optax.OptState


class LoopState(struct.PyTreeNode):
    """One trial at one moment: all that is needed to continue it to the same result."""

    cycle: int
    """Cycle under way; equals the number of cycles when the trial is finished."""
    stage: str
    """Stage of the cycle under way, by name."""
    step: int
    """Finished steps of this stage."""
    labels: np.ndarray
    """int32 `[N]`: class from the oracle, 0 where its label is a map; -1: not labelled."""
    labelled_in: np.ndarray
    """int32 `[N]`: cycle from which on an image is in L, -1 while it is not."""
    picked_in: np.ndarray
    """int32 `[N]`: cycle in which an image was picked, -1 if it was not."""
    pick_rank: np.ndarray
    """int32 `[N]`: position among the picks of its cycle, 0 is the first; -1 if not picked."""
    pick_score: np.ndarray
    """float32 `[N]`: score with which it was picked."""
    results: np.ndarray
    """float32 `[cycles, metrics]`: value of each metric on the test set; NaN until evaluated."""
    counts: np.ndarray
    """int32 `[cycles]`: size of L at each evaluation; -1 until evaluated."""
    learner: LearnerState | None
    """T and R; None before the first weights are drawn."""
    adversary: AdversaryVariables
    """The adversary's; None for a method without one."""

    @property
    def labelled(self) -> np.ndarray:
        """The labelled pool L of the cycle under way: bool `[N]`."""
        return (self.labelled_in >= 0) & (self.labelled_in <= self.cycle)


class Example(NamedTuple):
    """An image and its label, or a batch of them."""

    image: Array
    """`[H, W, C]` in stored units, or features `[F]`."""
    label: Array
    """`[]`, or a label map `[H, W]` uint8."""


class Batch(NamedTuple):
    """Labelled examples for a step of T and R."""

    images: jax.Array
    """`[B, ...]`, augmented and normalised."""
    labels: jax.Array
    """`[B]`, or maps `[B, H, W]`."""
    keys: jax.Array | None = None
    """A key per example `[B]`, by which T drops units; None: it drops none."""


class PoolBatch(NamedTuple):
    """One pool's half of a batch for a step of the adversary."""

    images: jax.Array
    """`[B, ...]`, normalised, not augmented."""
    condition: Condition
    """Arrays `[B, ...]`; None for an adversary without a condition."""
    keys: jax.Array
    """A key per example `[B]`, for the latents' noise."""
    labels: jax.Array | None = None
    """`[B]`, -1 where not labelled: everywhere in U; for maps, pixels per class `[B, K]`."""
    weights: jax.Array | None = None
    """Weights of `labels` in a mean, `[B]`, their mean 1 over all devices; None: equal."""


class Schedule(NamedTuple):
    """Schedule of a step, the same for all examples: scalars, or rows `[n]` of several steps."""

    step: Array
    """int32: number of the step in its stage."""
    learning_rate: Array
    """T's and R's."""
    ranker_active: Array
    """bool: False once the Ranker is frozen or cut off from T."""
    first_epoch: Array
    """bool: Algorithm 1 draws ranks from U(0, 1) in the first epoch."""
    class_weights: Array | None = None
    """`[K]`, of the classes in T's loss; None: all are equal."""


class Stream(enum.IntEnum):
    """Purpose of a key, the first number folded into a trial's key. Append, never renumber."""

    INITIAL = 0
    SUBSET = 1
    LEARNER = 2
    RANKER = 3
    VAE = 4
    DISCRIMINATOR = 5
    LABELLED_ORDER = 6
    UNLABELLED_ORDER = 7
    TRAINING = 8
    VALUES = 9
    AUGMENTATION = 10
    LATENT = 11
    FIRST_RANKS = 12
    DROPOUT = 13
    PICKS = 14
    UPDATES = 15
    WINDOWS = 16


def derive(key: jax.Array, *numbers: ArrayLike) -> jax.Array:
    """Folds `numbers` (trial, stream, cycle, ...) into `key` one by one."""
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def example_keys(key: jax.Array, positions: Array) -> jax.Array:
    """Keys per example `[B]` from positions `[B]` in the whole batch, whatever the devices."""
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
