"""Everything that changes during a trial, what a step is given, and how random keys are derived."""

import enum
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jax.typing import ArrayLike

Array = Any
"""jax.Array in a program, np.ndarray outside."""
Params = dict[str, Any]


class LearnerState(struct.PyTreeNode):
    """Task learner T and Ranker R."""

    params: Params
    """Of `learner`, and of `ranker` where the method has one."""
    stats: Params
    """T's BatchNorm running statistics; empty for a learner without BatchNorm."""
    optimiser: Any


class AdversaryState(struct.PyTreeNode):
    """VAE and discriminator D."""

    vae_params: Params
    vae_stats: Params
    vae_optimiser: Any
    discriminator_params: Params
    discriminator_optimiser: Any


class LoopState(struct.PyTreeNode):
    """One trial at one moment: all that is needed to continue it to the same result."""

    cycle: int
    """Cycle under way; equals the number of cycles when the trial is finished."""
    stage: str
    """Stage of the cycle under way, by name."""
    step: int
    """Finished steps of this stage."""
    labels: np.ndarray
    """int32 `[N]`: class that an oracle has named, 0 where it has given a map; -1 for no answer."""
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
    learner: Any
    """LearnerState; None before the first weights are drawn."""
    adversary: Any
    """State of the method's adversary; None for a method without one."""

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
    condition: Any
    """What the adversary is told of each image, arrays `[B, ...]`; None: nothing."""
    keys: jax.Array
    """A key per example `[B]`, for the latents' noise."""
    labels: jax.Array | None = None
    """`[B]`, -1 where nobody has said: everywhere in U; of maps the pixels per class `[B, K]`."""
    weights: jax.Array | None = None
    """Of what `labels` say, in a mean: `[B]`, of mean 1 over all devices; None: all are alike."""


class Schedule(NamedTuple):
    """What changes from step to step and is the same for all examples: scalars, or rows `[n]`."""

    step: Array
    """int32: number of the step in its stage."""
    learning_rate: Array
    """Of T and R."""
    ranker_active: Array
    """bool: False once the Ranker is frozen or cut off from T."""
    first_epoch: Array
    """bool: Algorithm 1 draws ranks from U(0, 1) in the first epoch."""


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
    VALUES = 9
    AUGMENTATION = 10
    LATENT = 11
    FIRST_RANKS = 12
    DROPOUT = 13
    PICKS = 14
    UPDATES = 15
    WINDOWS = 16


def derive(key: jax.Array, *numbers: ArrayLike) -> jax.Array:
    """The key of a place in the run: `numbers` (trial, stream, cycle, ...) folded in one by one."""
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def example_keys(key: jax.Array, positions: Array) -> jax.Array:
    """A key per example from its position in the whole batch, whatever the devices: `[B]`."""
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
