"""Everything that changes during a run, in frozen dataclasses, and how random keys are derived."""

import enum

import jax
import numpy as np
from flax import struct
from jax.typing import ArrayLike


class TaskState(struct.PyTreeNode):
    """Task learner T and Ranker R."""

    learner_params: dict
    learner_stats: dict
    """BatchNorm running statistics; empty for a learner without BatchNorm."""
    learner_optimiser: tuple
    ranker_params: dict | None
    """None for a method without a ranking loss."""
    ranker_optimiser: tuple | None


class VaalState(struct.PyTreeNode):
    """VAE and discriminator D."""

    vae_params: dict
    vae_stats: dict
    vae_optimiser: tuple
    discriminator_params: dict
    discriminator_optimiser: tuple


class LoopState(struct.PyTreeNode):
    """One run at one moment: all that is needed to continue it to the same result."""

    cycle: int
    """Cycle under way; equals the number of cycles when the run is finished."""
    stage: int
    """Index into the stages of this cycle."""
    step: int
    """Finished steps of this stage."""
    labelled_in: np.ndarray
    """int32 `[N]`: cycle from which on an image is labelled, -1 while it is not."""
    pick_rank: np.ndarray
    """int32 `[N]`: position among the picks of its cycle, 0 is the first; -1 if not picked."""
    pick_score: np.ndarray
    """float32 `[N]`: score with which it was picked."""
    results: np.ndarray
    """float32 `[cycles, metrics]`: value of each metric on the test set; NaN until evaluated."""
    task: TaskState
    vaal: VaalState | None
    """None for a method without VAE and discriminator."""

    @property
    def labelled(self) -> np.ndarray:
        """bool `[N]`: the labelled pool L of the cycle under way."""
        return (self.labelled_in >= 0) & (self.labelled_in <= self.cycle)


class Stream(enum.IntEnum):
    """What a key is for; the first number folded into a trial's key. Append, never renumber."""

    INITIAL = 0
    SUBSET = 1
    LEARNER = 2
    RANKER = 3
    VAE = 4
    DISCRIMINATOR = 5
    LABELLED_ORDER = 6
    UNLABELLED_ORDER = 7
    TRAINING = 8
    ACQUISITION = 9
    AUGMENTATION = 10
    LATENT = 11
    FIRST_RANKS = 12
    DROPOUT = 13


def derive(key: jax.Array, *numbers: ArrayLike) -> jax.Array:
    """The key of a place in the run: `numbers` (trial, stream, cycle, step, ...) folded in one by
    one."""
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """One key per example from its position in the whole batch, so that devices do not matter:
    `[B]`."""
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
