"""The methods: each is a row of choices, ranking loss x adversary x value x pick.

Another one needs no change here: `METHODS["mine"] = Method(name="mine", ...)` in a config file or a
script.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tavaal_jax.algorithm import losses, picks, values
from tavaal_jax.algorithm.adversary import Adversary, tavaal, vaal
from tavaal_jax.algorithm.learner import RankingLoss
from tavaal_jax.algorithm.sraal import sraal


class Method(NamedTuple):
    """How a method trains and picks."""

    name: str
    value: Callable[..., Any]
    """`(view, key) -> [] or tree`: what is computed of one image to pick by, see `values`."""
    pick: Callable[..., picks.Picks]
    """`(values, count, key, labelled=None) -> positions, scores`, see `picks`."""
    ranking_loss: RankingLoss | None = None
    """Loss of the Ranker `(R(x) [B], l [B]) -> []`; None: the method has no Ranker."""
    adversary: Callable[..., Adversary] | None = None
    """`(config, problem, shape, axis_name) -> Adversary`; None: the method has none."""
    compares: bool = False
    """Whether `pick` gets the values of L, too."""
    dropout: bool = False
    """Whether T drops units in training."""


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("random", values.uniform, picks.smallest),
        Method("mc_dropout", values.mc_dropout, picks.largest, dropout=True),
        Method("coreset", values.embedding, picks.core_set, compares=True),
        Method("learning_loss", values.predicted_loss, picks.largest, losses.margin),
        Method("learning_loss_v2", values.predicted_loss, picks.largest, losses.ranking),
        Method("vaal", values.discriminator, picks.smallest, adversary=vaal),
        Method(
            "vaal_learning_loss", values.discriminator, picks.smallest,
            losses.margin, tavaal,
        ),
        Method("tavaal", values.discriminator, picks.smallest, losses.ranking, tavaal),
        Method("sraal", values.discriminator, picks.smallest, adversary=sraal),
        Method("least_confidence", values.least_confidence, picks.largest),
        Method("margin", values.margin, picks.smallest),
        Method("entropy", values.entropy, picks.largest),
        Method("badge", values.gradient_embedding, picks.badge),
    )
}  # fmt: skip

SHIPPED = tuple(METHODS.values())
"""Those that are tested; others are tried before anything is trained."""
BASELINE = "random"
"""What every method is compared with."""
PARTS = ("vaal", "learning_loss", "learning_loss_v2", "vaal_learning_loss", "tavaal")
"""What TA-VAAL is made of: the ablation of Figure 6."""
CLAIMS = (
    ("picks_boundary_distance", "tavaal", "vaal"),
    ("picks_boundary_distance", "tavaal", "random"),
    ("picks_spread", "tavaal", "learning_loss"),
    ("picks_spread", "tavaal", "random"),
)
"""Figure 1: nearer to the boundary than VAAL, wider spread than learning loss: (column of
diagnostics.csv, method, the one it is compared with)."""
