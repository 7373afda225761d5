"""What every task learner returns, so that any network that returns it can be the learner."""

from typing import NamedTuple

import jax


class TaskOutput(NamedTuple):
    """Output of a task learner T."""

    logits: jax.Array
    """`[B, K]`"""
    taps: tuple[jax.Array, ...]
    """Input of the Ranker: feature maps `[B, H', W', C']` or features `[B, C']`."""
    embedding: jax.Array
    """Penultimate features `[B, E]`."""
