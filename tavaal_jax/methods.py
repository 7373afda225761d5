"""The methods: each is a row of three choices (ranking loss, adversary, acquisition)."""

from collections.abc import Callable
from typing import NamedTuple

from tavaal_jax import acquisition, losses


class Method(NamedTuple):
    """How a method trains and picks."""

    name: str
    ranking_loss: Callable | None
    """Loss of the Ranker `(R(x) [B], l [B]) -> []`; None: the method has no Ranker."""
    adversary: str | None
    """VAE and discriminator: "plain" (VAAL), "ranked" (decoder and D see r), or None."""
    score: Callable
    """`(run, variables, candidate, key) -> []`: the score of one image, see `acquisition`."""
    smallest_first: bool
    """Whether the smallest scores are picked, else the largest."""


METHODS = {
    method.name: method
    for method in (
        Method("random", None, None, acquisition.uniform, smallest_first=True),
        Method("tavaal", losses.ranking, "ranked", acquisition.discriminator, smallest_first=True),
    )
}
