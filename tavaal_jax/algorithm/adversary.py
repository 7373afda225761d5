"""VAE and discriminator D, conditioned on the rank: losses (4) to (6), a step of both, score (7).

`METHODS` holds functions that build an adversary. A new adversary is a subclass of
:class:`Adversary`, or anything else that has what `adversary_like.AdversaryLike` lists.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from tavaal_jax import models
from tavaal_jax.algorithm import losses, optim
from tavaal_jax.algorithm.learner import LearnerOutput, MissingComponent
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import (
    AdversaryState,
    Condition,
    Params,
    PoolBatch,
    Stream,
    derive,
)


class Rank(NamedTuple):
    """Ranks given to the decoder and to D: `[B, 1]` each; None: hidden from it."""

    decoder: jax.Array | None = None
    discriminator: jax.Array | None = None


class Settings(NamedTuple):
    """Settings of VAE's and D's training."""

    vae: optim.Optimiser
    discriminator: optim.Optimiser
    beta: float = 1.0
    """Weight of KL, equation (4)."""
    adversarial_weight: float = 1.0
    """lambda, weight of equation (5)."""

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Settings from a whole config."""
        vae, discriminator = config.vae, config.discriminator
        return cls(
            optim.Optimiser.of(vae),
            optim.Optimiser.of(discriminator),
            vae.beta,
            vae.adversarial_weight,
        )


class _Pass(NamedTuple):
    """Outputs of VAE and D for one pool's half of a batch."""

    reconstruction: jax.Array
    """First term of equation (4): `[]`."""
    kl: jax.Array
    """Second term: `[]`."""
    logits: jax.Array
    """D's logits on the latents' means: `[B]`."""
    latent: jax.Array
    """Latents drawn, `[B, Z]`."""
    stats: Params


@dataclasses.dataclass(frozen=True)
class Adversary:
    """VAE and D, conditional on ranks or not; its methods are pure functions."""

    vae: nn.Module
    discriminator: nn.Module
    condition_of: Callable[[LearnerOutput], Condition] | None
    """See `AdversaryLike`; here of type `Rank`."""
    settings: Settings
    hidden: tuple[str, ...] = ()
    """Fields of `Rank` to be hidden."""

    def initial_condition(self, keys: jax.Array) -> Condition:
        """Ranks of Algorithm 1's first epoch, r ~ U(0, 1): `keys [B] -> [B, 1]`."""
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)[:, None]
        return Rank(drawn, drawn)

    def rank(self, condition: Condition) -> Rank:
        """Ranks for decoder and D, hidden ones set to None."""
        if condition is None:
            return Rank()
        assert isinstance(condition, Rank)
        return condition._replace(**dict.fromkeys(self.hidden))

    def init(self, key: jax.Array, images: jax.Array, cycle: int | jax.Array = 0) -> AdversaryState:
        """Draws fresh weights for a cycle; `images [1, ...]`, normalised, give the shapes."""
        noise = jnp.zeros((1, self.vae.latent), jnp.float32)
        rank = self.rank(None if self.condition_of is None else self.initial_condition(key[None]))
        variables = self.vae.init(
            derive(key, Stream.VAE, cycle), self.seen(images), noise, rank.decoder, train=False
        )
        params = variables["params"]
        d_key = derive(key, Stream.DISCRIMINATOR, cycle)
        d_params = self.discriminator.init(d_key, noise, rank.discriminator)["params"]
        return AdversaryState(
            params,
            variables.get("batch_stats", {}),
            optim.transformation(self.settings.vae).init(params),
            d_params,
            optim.transformation(self.settings.discriminator).init(d_params),
        )

    def seen(self, images: jax.Array) -> jax.Array:
        """Resizes images to the VAE's size, `-> [B, size, size, C]`; features `[B, F]` stay."""
        if images.ndim == 2:
            return images
        shape = (images.shape[0], self.vae.size, self.vae.size, images.shape[3])
        return images if images.shape == shape else jax.image.resize(images, shape, "bilinear")

    def step(
        self,
        state: AdversaryState,
        labelled: PoolBatch,
        unlabelled: PoolBatch,
        mean: optim.Mean = optim.alone,
    ) -> tuple[AdversaryState, Metrics]:
        """Updates the VAE once with (4) + lambda (5), then D once with (6)."""
        chex.assert_trees_all_equal_shapes(labelled, unlabelled)
        halves = labelled, unlabelled
        labelled, unlabelled = (half._replace(images=self.seen(half.images)) for half in halves)
        params, optimiser, stats, vae_metrics = optim.step(
            self.settings.vae,
            self.settings.vae.learning_rate,
            lambda params: self.vae_loss(params, state, labelled, unlabelled),
            state.vae_params,
            state.vae_optimiser,
            mean,
        )
        state = state.replace(vae_params=params, vae_stats=stats, vae_optimiser=optimiser)
        latents = self._latents(state, labelled), self._latents(state, unlabelled)
        params, optimiser, _, d_metrics = optim.step(
            self.settings.discriminator,
            self.settings.discriminator.learning_rate,
            lambda params: self.discriminator_loss(params, latents, labelled, unlabelled),
            state.discriminator_params,
            state.discriminator_optimiser,
            mean,
        )
        state = state.replace(discriminator_params=params, discriminator_optimiser=optimiser)
        return state, {**vae_metrics, **d_metrics}

    def vae_loss(
        self, params: Params, state: AdversaryState, labelled: PoolBatch, unlabelled: PoolBatch
    ) -> tuple[jax.Array, tuple[Params, Metrics]]:
        """Equation (4) for both pools, plus lambda (5)."""
        l_pass = self._transductive(params, state.vae_stats, state, labelled)
        u_pass = self._transductive(params, l_pass.stats, state, unlabelled)
        adversarial = losses.adversarial(l_pass.logits, u_pass.logits)
        reconstruction = l_pass.reconstruction + u_pass.reconstruction
        kl = l_pass.kl + u_pass.kl
        loss = reconstruction + self.settings.beta * kl
        loss += self.settings.adversarial_weight * adversarial
        metrics = {
            "reconstruction": 0.5 * reconstruction,
            "kl": 0.5 * kl,
            "adversarial_loss": adversarial,
        }
        annotation, more = self.annotation_loss(params, l_pass.latent, labelled)
        return loss + annotation, (u_pass.stats, {**metrics, **more})

    def annotation_loss(
        self, params: Params, latent: jax.Array, labelled: PoolBatch
    ) -> tuple[jax.Array | float, Metrics]:
        """Further term of the VAE's loss, from L's latents `[B, Z]`, and its metrics; here none."""
        del params, latent, labelled
        return 0.0, {}

    def _transductive(
        self, params: Params, stats: Params, state: AdversaryState, half: PoolBatch
    ) -> _Pass:
        """Equation (4) for one pool, with its own BatchNorm statistics, and D's logits."""
        rank, noise = self.rank(half.condition), self._noise(half)
        (decoded, mean, log_variance), updated = self.vae.apply(
            {"params": params, "batch_stats": stats},
            half.images, noise, rank.decoder, train=True, mutable=["batch_stats"],
        )  # fmt: skip
        return _Pass(
            losses.reconstruction(half.images, decoded),
            losses.kl_divergence(mean, log_variance),
            self._judge(state.discriminator_params, mean, rank),
            models.draw(mean, log_variance, noise),
            updated.get("batch_stats", {}),
        )

    def _noise(self, half: PoolBatch) -> jax.Array:
        """Standard normal noise of the latents: `[B, Z]`."""
        draw = lambda key: jax.random.normal(key, (self.vae.latent,), jnp.float32)
        return jax.vmap(draw)(half.keys)

    def _latents(self, state: AdversaryState, half: PoolBatch) -> jax.Array:
        """Means of the latents after the VAE's update, `[B, Z]`.

        Only the encoder runs; BatchNorm's statistics have just been updated and stay.
        """
        variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
        (latent, _), _ = self.vae.apply(
            variables, half.images, train=True, mutable=["batch_stats"], method="encode"
        )
        return latent

    def discriminator_loss(
        self,
        params: Params,
        latents: tuple[jax.Array, jax.Array],
        labelled: PoolBatch,
        unlabelled: PoolBatch,
    ) -> tuple[jax.Array, tuple[None, Metrics]]:
        """D's loss on latents `[B, Z]` of both pools, and its accuracy."""
        logits_l = self._judge(params, latents[0], self.rank(labelled.condition))
        logits_u = self._judge(params, latents[1], self.rank(unlabelled.condition))
        loss = self.state_loss(logits_l, logits_u, unlabelled)
        accuracy = 0.5 * (jnp.mean(logits_l > 0) + jnp.mean(logits_u < 0))
        return loss, (None, {"discriminator_loss": loss, "discriminator_accuracy": accuracy})

    def state_loss(
        self, labelled_logits: jax.Array, unlabelled_logits: jax.Array, unlabelled: PoolBatch
    ) -> jax.Array:
        """Equation (6): `logits [B], [B] -> []`."""
        del unlabelled
        return losses.discriminator(labelled_logits, unlabelled_logits)

    def _judge(self, params: Params, latent: jax.Array, rank: Rank) -> jax.Array:
        """D's logits `[B]`."""
        return jnp.asarray(self.discriminator.apply({"params": params}, latent, rank.discriminator))

    def score(
        self, state: AdversaryState, images: jax.Array, condition: Condition = None
    ) -> jax.Array:
        """Equation (7): D's logits in evaluation mode, `images [B, ...] -> [B]`.

        `images` are normalised and not augmented; the smallest score is the least like L.
        """
        variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
        latent, _ = self.vae.apply(variables, self.seen(images), train=False, method="encode")
        return self._judge(state.discriminator_params, latent, self.rank(condition))


def rank_of(output: LearnerOutput, raw_to_discriminator: bool = False) -> Rank:
    """Normalised ranks from R(x) `[B]`; D's may stay raw, as in the released code."""
    if output.predicted is None:
        raise MissingComponent("a rank needs a Ranker: give the method a ranking_loss")
    predicted = jax.lax.stop_gradient(output.predicted)[:, None]
    normalised = losses.normalised_rank(predicted)
    return Rank(normalised, predicted if raw_to_discriminator else normalised)


def vaal(
    config: ConfigDict, problem: Problem, shape: tuple[int, ...], axis_name: str | None = None
) -> Adversary:
    """VAAL's, without condition ("Variational adversarial active learning", ICCV 2019)."""
    del problem
    return Adversary(
        models.build_vae(config, shape, axis_name), models.build_discriminator(config), None,
        Settings.of(config),
    )  # fmt: skip


def tavaal(
    config: ConfigDict, problem: Problem, shape: tuple[int, ...], axis_name: str | None = None
) -> Adversary:
    """TA-VAAL's, conditional on the rank, which a config may hide from decoder or D."""
    raw = config.rank_to_discriminator == "raw"
    shown = {"decoder": config.rank_to_decoder, "discriminator": config.rank_to_discriminator}
    hidden = tuple(name for name, how in shown.items() if how == "none")
    plain = vaal(config, problem, shape, axis_name)
    return dataclasses.replace(
        plain, condition_of=lambda output: rank_of(output, raw), hidden=hidden
    )
