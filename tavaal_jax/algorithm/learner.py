"""Task learner T and Ranker R: total loss (2), a training step of both, inference."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from ml_collections import ConfigDict

from tavaal_jax.algorithm import logistic, losses, optim
from tavaal_jax.algorithm.losses import RankingLoss
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import Batch, LearnerState, Params, Schedule, Stream, derive
from tavaal_jax.models import TaskOutput, linear


class MissingComponent(AttributeError):
    """Raised where a method uses a Ranker or an adversary that its row lacks."""


class LearnerOutput(NamedTuple):
    """Outputs of T and R for images, in evaluation mode."""

    logits: jax.Array
    """`[B, K]`, or per pixel `[B, H, W, K]`."""
    embedding: jax.Array
    """T's penultimate features `[B, E]`."""
    predicted: jax.Array | None
    """R(x), the predicted loss `[B]`, not normalised; None without a Ranker."""


class Settings(NamedTuple):
    """Settings of T's and R's training."""

    optimiser: optim.Optimiser
    loss_weight: float = 1.0
    """Weight of the ranking loss, equation (2)."""
    when_inactive: str = "detach"
    """Treatment of an inactive Ranker: "freeze", not updated; "detach", cut off from T."""

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Settings from a whole config."""
        return cls(
            optim.Optimiser.of(config.task), config.ranker.loss_weight, config.ranker.when_inactive
        )


@dataclasses.dataclass(frozen=True)
class Learner:
    """T, and R where the method has one; init, step and inference are pure functions."""

    network: nn.Module
    ranker: nn.Module | None
    """None: T is trained as a plain classifier."""
    ranking_loss: RankingLoss | None
    """The Ranker's loss; None where it is not trained any more."""
    problem: Problem
    settings: Settings
    solved: bool = False
    """Whether T is a `models.linear.Linear`, which `solve` trains, and steps leave as it is."""

    def init(self, key: jax.Array, images: jax.Array, cycle: int | jax.Array = 0) -> LearnerState:
        """Draws fresh weights for a cycle; T's are the same for every method.

        `images [1, ...]`, normalised, give the shapes.
        """
        variables = self.network.init(derive(key, Stream.LEARNER, cycle), images, train=False)
        params = {"learner": variables["params"]}
        if self.ranker is not None:
            output = TaskOutput(*self.network.apply(variables, images, train=False))
            ranker_key = derive(key, Stream.RANKER, cycle)
            params["ranker"] = self.ranker.init(ranker_key, output.taps)["params"]
        optimiser = optim.transformation(self.settings.optimiser).init(self._trained(params))
        return LearnerState(params, variables.get("batch_stats", {}), optimiser)

    def step(
        self,
        state: LearnerState,
        batch: Batch,
        schedule: Schedule,
        mean: optim.Mean = optim.alone,
    ) -> tuple[LearnerState, optim.Metrics]:
        """Updates T and R once with equation (2).

        While the Ranker is inactive it is not updated ("freeze"), or its gradient stops before T
        ("detach"). A T that is solved stays as it is.
        """
        chex.assert_equal_shape_prefix([batch.images, batch.labels], 1)
        chex.assert_rank([schedule.learning_rate, schedule.ranker_active], 0)
        params, optimiser, stats, metrics = optim.step(
            self.settings.optimiser,
            schedule.learning_rate,
            lambda params: self._total_loss(
                {**state.params, **params}, state.stats, batch, schedule, mean
            ),
            self._trained(state.params),
            state.optimiser,
            mean,
        )
        if self.ranker is not None and self.settings.when_inactive == "freeze":
            keep = lambda new, old: jnp.where(schedule.ranker_active, new, old)
            frozen = jax.tree.map(keep, params["ranker"], state.params["ranker"])
            params = {**params, "ranker": frozen}
        return LearnerState({**state.params, **params}, stats, optimiser), metrics

    def _trained(self, params: Params) -> Params:
        """The part of T's and R's weights that steps update."""
        return {name: x for name, x in params.items() if not self.solved or name != "learner"}

    def solve(
        self, state: LearnerState, images: jax.Array, labels: jax.Array, weights: jax.Array
    ) -> tuple[LearnerState, optim.Metrics]:
        """Trains a linear T to the minimum of its loss on L, with L2 of a strength chosen on L.

        `images [n, F]`, normalised, `labels [n]`, `weights [n]`, 0 for padding.
        """
        examples = logistic.Examples(images, labels, weights)
        head, choice = logistic.fit(examples, self.problem.classes)
        params = {**state.params, "learner": linear.params(*head)}
        metrics = {"inverse_regularisation": choice.strength}
        return state.replace(params=params), metrics | {
            "left_out_loss": choice.loss,
            "left_out_accuracy": choice.accuracy,
        }

    def _total_loss(
        self, params: Params, stats: Params, batch: Batch, schedule: Schedule, mean: optim.Mean
    ) -> tuple[jax.Array, tuple[Params, optim.Metrics]]:
        """Equation (2), with T's new BatchNorm statistics and both terms as metrics."""
        output, updated = self.network.apply(
            {"params": params["learner"], "batch_stats": stats},
            batch.images, train=True, dropout_keys=batch.keys, mutable=["batch_stats"],
        )  # fmt: skip
        image_losses = self.problem.image_losses(output.logits, batch.labels)
        weights, pair_weights = self._weights(batch.labels, schedule.class_weights, mean)
        loss = jnp.mean(image_losses if weights is None else weights * image_losses)
        metrics = {"task_loss": loss}
        if self.ranker is not None and self.ranking_loss is not None:
            taps = output.taps
            if self.settings.when_inactive == "detach":
                taps = tuple(_connected_if(schedule.ranker_active, tap) for tap in taps)
            predicted = jnp.asarray(self.ranker.apply({"params": params["ranker"]}, taps))
            metrics["ranking_loss"] = self.ranking_loss(predicted, image_losses, *pair_weights)
            loss = loss + self.settings.loss_weight * metrics["ranking_loss"]
        return loss, (updated.get("batch_stats", {}), metrics)

    def _weights(
        self, labels: jax.Array, class_weights: jax.Array | None, mean: optim.Mean
    ) -> tuple[jax.Array | None, tuple[jax.Array, ...]]:
        """Weights of images and of pairs, their means 1 over all devices; None and () if equal."""
        if class_weights is not None:
            each = class_weights[labels]
            return each / mean(jnp.mean(each)), ()
        weights = self.problem.weights(labels)
        if weights is None:
            return None, ()
        both = weights, losses.pair_weights(weights)
        shares = mean(tuple(map(jnp.mean, both)))
        image_weights, pair_weights = (
            weights / jnp.where(share > 0, share, 1)
            for weights, share in zip(both, shares, strict=True)
        )
        return image_weights, (pair_weights,)

    def predict(
        self, state: LearnerState, images: jax.Array, keys: jax.Array | None = None
    ) -> TaskOutput:
        """T's output for `images [B, ...]` in evaluation mode; `keys [B]` keep dropout on."""
        variables = {"params": state.params["learner"], "batch_stats": state.stats}
        return TaskOutput(*self.network.apply(variables, images, train=False, dropout_keys=keys))

    def dropout_logits(
        self, state: LearnerState, images: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Makes `keys [B] -> logits` of T with dropout for `images [B, ...]`.

        Where units are dropped before T's last layer alone, all layers before it run once.
        """
        dropout = getattr(self.network, "dropout", None)
        if dropout is None or dropout.place != "head":
            return lambda keys: self.predict(state, images, keys).logits
        variables = {"params": state.params["learner"], "batch_stats": state.stats}
        features, size = self.predict(state, images).features, images.shape[1:3]

        def logits(keys: jax.Array) -> jax.Array:
            return jnp.asarray(self.network.apply(variables, features, keys, size, method="head"))

        return logits

    def last_layer(
        self, state: LearnerState, images: jax.Array
    ) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """T's features `[B, ...]` before its last layer, and that layer, `features -> logits`.

        Raises MissingComponent for a network without the method `head`, see `TaskNetwork`.
        """
        if not hasattr(self.network, "head"):
            raise MissingComponent(
                f"T's network, of class {type(self.network).__name__}, has no method head, its last"
                " layer, which this method needs: give it one, or leave the method out"
            )
        variables = {"params": state.params["learner"], "batch_stats": state.stats}
        features, size = self.predict(state, images).features, images.shape[1:3]

        def layer(changed: jax.Array) -> jax.Array:
            return jnp.asarray(self.network.apply(variables, changed, None, size, method="head"))

        return jnp.asarray(features), layer

    def infer(self, state: LearnerState, images: jax.Array) -> LearnerOutput:
        """Runs T and R on `images [B, ...]` in evaluation mode."""
        output = self.predict(state, images)
        predicted = None
        if self.ranker is not None:
            variables = {"params": state.params["ranker"]}
            predicted = jnp.asarray(self.ranker.apply(variables, output.taps))
        return LearnerOutput(output.logits, output.embedding, predicted)


def _connected_if(condition: jax.Array, x: jax.Array) -> jax.Array:
    """`x`, through which gradients flow only where the scalar `condition` holds."""
    return lax.stop_gradient(x) + condition.astype(x.dtype) * (x - lax.stop_gradient(x))
