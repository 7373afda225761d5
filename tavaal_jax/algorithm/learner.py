"""Task learner T and Ranker R: total loss (2), a step of both, what they say of images."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from ml_collections import ConfigDict

from tavaal_jax.algorithm import losses, optim
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import Batch, LearnerState, Params, Schedule, Stream, derive
from tavaal_jax.models import TaskOutput

RankingLoss = Callable[..., jax.Array]
"""Loss of the Ranker from R(x) `[B]` and task losses `[B]`: `-> []`.

Where some images have no loss, there are weights of the pairs, too, see `losses.ranking`.
"""


class MissingComponent(AttributeError):
    """What a method asks for, and its row does not have."""


class LearnerOutput(NamedTuple):
    """What T and R say of images, in evaluation mode."""

    logits: jax.Array
    """`[B, K]`, or of pixels `[B, H, W, K]`."""
    embedding: jax.Array
    """T's penultimate features `[B, E]`."""
    predicted: jax.Array | None
    """R(x), the predicted loss `[B]`, not normalised; None without a Ranker."""


class Settings(NamedTuple):
    """How T and R are trained."""

    optimiser: optim.Optimiser
    loss_weight: float = 1.0
    """Weight of the ranking loss, equation (2)."""
    when_inactive: str = "detach"
    """What becomes of an inactive Ranker: "freeze", not updated; "detach", cut off from T."""

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Those of a config."""
        return cls(
            optim.Optimiser.of(config.task), config.ranker.loss_weight, config.ranker.when_inactive
        )


@dataclasses.dataclass(frozen=True)
class Learner:
    """T, and R where there is one; every method is a pure function of its arguments."""

    network: nn.Module
    ranker: nn.Module | None
    """None: T is trained as a plain classifier."""
    ranking_loss: RankingLoss | None
    """The Ranker's, which cannot be trained without one."""
    problem: Problem
    settings: Settings

    def init(self, key: jax.Array, images: jax.Array, cycle: int | jax.Array = 0) -> LearnerState:
        """Fresh weights for a cycle; T's are the same for every method.

        `images [1, ...]`, normalised, give the shapes.
        """
        variables = self.network.init(derive(key, Stream.LEARNER, cycle), images, train=False)
        params = {"learner": variables["params"]}
        if self.ranker is not None:
            output: Any = self.network.apply(variables, images, train=False)
            ranker_key = derive(key, Stream.RANKER, cycle)
            params["ranker"] = self.ranker.init(ranker_key, output.taps)["params"]
        optimiser = optim.transformation(self.settings.optimiser).init(params)
        return LearnerState(params, variables.get("batch_stats", {}), optimiser)

    def step(
        self,
        state: LearnerState,
        batch: Batch,
        schedule: Schedule,
        mean: optim.Mean = optim.alone,
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One update of T and R with equation (2): `-> state, metrics`.

        While the Ranker is not active it is not updated ("freeze") or does not reach into T
        ("detach").
        """
        chex.assert_equal_shape_prefix([batch.images, batch.labels], 1)
        chex.assert_rank([schedule.learning_rate, schedule.ranker_active], 0)
        params, optimiser, stats, metrics = optim.step(
            self.settings.optimiser,
            schedule.learning_rate,
            lambda params: self._total_loss(params, state.stats, batch, schedule, mean),
            state.params,
            state.optimiser,
            mean,
        )
        if self.ranker is not None and self.settings.when_inactive == "freeze":
            keep = lambda new, old: jnp.where(schedule.ranker_active, new, old)
            frozen = jax.tree.map(keep, params["ranker"], state.params["ranker"])
            params = {**params, "ranker": frozen}
        return LearnerState(params, stats, optimiser), metrics

    def _total_loss(
        self, params: Params, stats: Params, batch: Batch, schedule: Schedule, mean: optim.Mean
    ) -> tuple[jax.Array, tuple[Params, dict[str, jax.Array]]]:
        """Equation (2), T's new BatchNorm statistics, and the losses it is made of."""
        output, updated = self.network.apply(
            {"params": params["learner"], "batch_stats": stats},
            batch.images, train=True, dropout_keys=batch.keys, mutable=["batch_stats"],
        )  # fmt: skip
        image_losses = self.problem.image_losses(output.logits, batch.labels)
        weights, of_pairs = self._weights(batch.labels, mean)
        loss = jnp.mean(image_losses if weights is None else weights * image_losses)
        metrics = {"task_loss": loss}
        if self.ranker is not None and self.ranking_loss is not None:
            taps = output.taps
            if self.settings.when_inactive == "detach":
                taps = tuple(_connected_if(schedule.ranker_active, tap) for tap in taps)
            predicted: Any = self.ranker.apply({"params": params["ranker"]}, taps)
            metrics["ranking_loss"] = self.ranking_loss(predicted, image_losses, *of_pairs)
            loss = loss + self.settings.loss_weight * metrics["ranking_loss"]
        return loss, (updated.get("batch_stats", {}), metrics)

    def _weights(
        self, labels: jax.Array, mean: optim.Mean
    ) -> tuple[jax.Array | None, tuple[jax.Array, ...]]:
        """Of images and of pairs, of mean 1 over all devices' parts of the batch; None if equal."""
        weights = self.problem.weights(labels)
        if weights is None:
            return None, ()
        both = weights, losses.pair_weights(weights)
        shares = mean(tuple(map(jnp.mean, both)))
        of_images, of_pairs = (
            weights / jnp.where(share > 0, share, 1)
            for weights, share in zip(both, shares, strict=True)
        )
        return of_images, (of_pairs,)

    def predict(
        self, state: LearnerState, images: jax.Array, keys: jax.Array | None = None
    ) -> TaskOutput:
        """T in evaluation mode, `images [B, ...]`; with `keys [B]` it drops units all the same."""
        variables = {"params": state.params["learner"], "batch_stats": state.stats}
        output: Any = self.network.apply(variables, images, train=False, dropout_keys=keys)
        return TaskOutput(*output)

    def dropout_logits(
        self, state: LearnerState, images: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """A function `keys [B] -> logits` of T for `images [B, ...]`, with units dropped.

        Where they are dropped before T's last layer alone, all before it is done once.
        """
        dropout = getattr(self.network, "dropout", None)
        if dropout is None or dropout.place != "head":
            return lambda keys: self.predict(state, images, keys).logits
        variables = {"params": state.params["learner"], "batch_stats": state.stats}
        features, size = self.predict(state, images).features, images.shape[1:3]

        def logits(keys: jax.Array) -> jax.Array:
            return jnp.asarray(self.network.apply(variables, features, keys, size, method="head"))

        return logits

    def infer(self, state: LearnerState, images: jax.Array) -> LearnerOutput:
        """What T and R say of `images [B, ...]`."""
        output = self.predict(state, images)
        predicted: Any = None
        if self.ranker is not None:
            predicted = self.ranker.apply({"params": state.params["ranker"]}, output.taps)
        return LearnerOutput(output.logits, output.embedding, predicted)


def _connected_if(condition: jax.Array, x: jax.Array) -> jax.Array:
    """`x`, through which gradients flow only where the scalar `condition` holds."""
    return lax.stop_gradient(x) + condition.astype(x.dtype) * (x - lax.stop_gradient(x))
