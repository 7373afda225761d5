"""The methods: each is a row of choices, ranking loss x adversary x value x pick.

Another one needs no change here: `METHODS["mine"] = Method(name="mine", ...)` in a config file or a
script; `tavaal_jax.check_method(METHODS["mine"])` tries it on tiny inputs.
"""

from typing import NamedTuple

from tavaal_jax.algorithm import losses, picks, values
from tavaal_jax.algorithm.adversary import tavaal, vaal
from tavaal_jax.algorithm.adversary_like import AdversaryFactory
from tavaal_jax.algorithm.feature_picks.herding import max_herding, uherding
from tavaal_jax.algorithm.feature_picks.mixing import alfa_mix, drop_query
from tavaal_jax.algorithm.feature_picks.typicality import typiclust
from tavaal_jax.algorithm.losses import RankingLoss
from tavaal_jax.algorithm.picks import Pick
from tavaal_jax.algorithm.sraal import sraal
from tavaal_jax.algorithm.values import Value


class Method(NamedTuple):
    """A method: its training and its choice of images."""

    name: str
    value: Value
    """`(view, key) -> [] or a tree of arrays`: computed from each image, see `values`."""
    pick: Pick
    """`(values, count, key, labelled=None) -> positions, scores`, see `picks`."""
    ranking_loss: RankingLoss | None = None
    """`(R(x) [B], l [B]) -> []`: loss of the Ranker; None: the method has no Ranker."""
    adversary: AdversaryFactory | None = None
    """`(config, problem, shape, axis_name) -> AdversaryLike`; None: the method has none."""
    compares: bool = False
    """Whether `pick` gets the values of L, too."""
    dropout: bool = False
    """Whether T is trained with dropout."""
    sees_labels: bool = False
    """Whether `pick` gets the labels of L with their values, as `picks.Labelled`."""
    needs_labels: bool = True
    """False: `pick` takes embeddings `[M, E]` and works without L, so that it can choose the first
    images, too: `first_by`."""
    takes_maps: bool = True
    """Whether it can be used where labels are maps."""


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
        Method("bald", values.bald, picks.largest, dropout=True),
        Method("power_margin", values.power_margin, picks.largest),
        Method("power_bald", values.power_bald, picks.largest, dropout=True),
        Method("typiclust", values.direction, typiclust, compares=True, needs_labels=False),
        Method("max_herding", values.direction, max_herding, compares=True, needs_labels=False),
        Method(
            "uherding", values.embedding_and_prediction, uherding, compares=True,
            sees_labels=True,
        ),
        Method("drop_query", values.disagreement, drop_query),
        Method(
            "alfa_mix", values.mixing, alfa_mix, compares=True, sees_labels=True,
            takes_maps=False,
        ),
    )
}  # fmt: skip

SHIPPED = tuple(METHODS.values())
"""Methods of this package; others are checked before anything is trained."""
BASELINE = "random"
"""Method that all others are compared with."""
ON_FEATURES = "uherding"
"""Best of ours on features of photos, see benchmarks/studies/features/README.md."""
ABLATION = ("vaal", "learning_loss", "learning_loss_v2", "vaal_learning_loss", "tavaal")
"""Methods of Figure 6, TA-VAAL and what it is made of."""
CLAIMS = (
    ("picks_boundary_distance", "tavaal", "vaal"),
    ("picks_boundary_distance", "tavaal", "random"),
    ("picks_spread", "tavaal", "learning_loss"),
    ("picks_spread", "tavaal", "random"),
)
"""Figure 1's claims, nearer to the boundary than VAAL, farther apart than learning loss: (column of
diagnostics.csv, method, method it is compared with)."""
