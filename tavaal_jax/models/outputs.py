"""What every task learner takes and returns, so that any network that does can be the learner."""

from typing import NamedTuple

import jax


class Dropout(NamedTuple):
    """Where a learner drops units, for calls that come with dropout keys; others drop none."""

    place: str = "head"
    """"head": before the last layer; "stages": after each stage (ResNet) or hidden layer (MLP)."""
    rate: float = 0.5


class TaskOutput(NamedTuple):
    """Output of a task learner T."""

    logits: jax.Array
    """`[B, K]`"""
    taps: tuple[jax.Array, ...]
    """Input of the Ranker: feature maps `[B, H', W', C']` or features `[B, C']`."""
    embedding: jax.Array
    """Penultimate features `[B, E]`."""
