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
    value: Callable
    """`(run, variables, candidate, key) -> [] or [E]`: what is computed of each image to pick by,
    see `acquisition`."""
    choose: Callable
    """`(values, labelled values, indices, count) -> positions, scores`: the picks, see
    `acquisition`."""
    looks_at_labelled: bool = False
    """Whether `choose` needs the values of L, too."""
    dropout: bool = False
    """Whether T drops units in training."""


METHODS = {
    method.name: method
    for method in (
        Method("random", None, None, acquisition.uniform, acquisition.smallest),
        Method(
            "mc_dropout", None, None, acquisition.mc_dropout, acquisition.largest, dropout=True
        ),
        Method(
            "coreset", None, None, acquisition.embedding, acquisition.core_set,
            looks_at_labelled=True,
        ),
        Method(
            "learning_loss", losses.margin, None,
            acquisition.predicted_loss, acquisition.largest,
        ),
        Method(
            "learning_loss_v2", losses.ranking, None,
            acquisition.predicted_loss, acquisition.largest,
        ),
        Method("vaal", None, "plain", acquisition.discriminator, acquisition.smallest),
        Method(
            "vaal_learning_loss", losses.margin, "ranked",
            acquisition.discriminator, acquisition.smallest,
        ),
        Method("tavaal", losses.ranking, "ranked", acquisition.discriminator, acquisition.smallest),
    )
}  # fmt: skip
