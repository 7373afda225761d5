"""VAE and discriminator D, conditioned on the rank: losses (4) to (6), a step of both, score (7).

An adversary is a value: `METHODS` holds functions `(config, problem, shape, axis_name)` that return
one. A new one is a subclass, or anything else with the methods of :class:`Adversary`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from tavaal_jax import models
from tavaal_jax.algorithm import losses, optim
from tavaal_jax.algorithm.learner import LearnerOutput, MissingComponent
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import AdversaryState, Params, PoolBatch, Stream, derive

Metrics = dict[str, jax.Array]


class Rank(NamedTuple):
    """What the decoder and the discriminator see of R(x): `[B, 1]` each, or None."""

    decoder: jax.Array | None = None
    discriminator: jax.Array | None = None


class Settings(NamedTuple):
    """How VAE and D are trained."""

    vae: optim.Optimiser
    discriminator: optim.Optimiser
    beta: float = 1.0
    """Weight of KL, equation (4)."""
    adversarial_weight: float = 1.0
    """lambda, weight of equation (5)."""

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Those of a config."""
        vae, discriminator = config.vae, config.discriminator
        return cls(
            optim.Optimiser.of(vae),
            optim.Optimiser.of(discriminator),
            vae.beta,
            vae.adversarial_weight,
        )


class _Pass(NamedTuple):
    """What the VAE and D make of one pool's half of a batch."""

    reconstruction: jax.Array
    """Both terms of equation (4): `[]` each."""
    kl: jax.Array
    logits: jax.Array
    """D's `[B]`, on the means."""
    latent: jax.Array
    """Drawn, `[B, Z]`."""
    stats: Params


@dataclasses.dataclass(frozen=True)
class Adversary:
    """VAE and D; every method is a pure function of its arguments."""

    vae: nn.Module
    discriminator: nn.Module
    condition_of: Callable[[LearnerOutput], Any] | None
    """What it is told of images, from what T and R say of them: `-> [B, ...]`; None: nothing."""
    settings: Settings
    hidden: tuple[str, ...] = ()
    """Fields of `Rank` that are not shown, although it is told."""

    def initial_condition(self, keys: jax.Array) -> Any:
        """r ~ U(0, 1), Algorithm 1's ranks of the first epoch: `keys [B] -> [B, 1]`."""
        drawn = jax.vmap(jax.random.uniform)(keys)[:, None]
        return Rank(drawn, drawn)

    def rank(self, condition: Any) -> Rank:
        """What the decoder and D see of what it is told: all of it but what is `hidden`."""
        rank: Rank = (
            Rank() if condition is None else condition._replace(**dict.fromkeys(self.hidden))
        )
        return rank

    def init(self, key: jax.Array, images: jax.Array, cycle: int | jax.Array = 0) -> AdversaryState:
        """Fresh weights for a cycle; `images [1, ...]`, normalised, give the shapes."""
        noise = jnp.zeros((1, self.vae.latent))
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
        """Images as the VAE sees and rebuilds them, `[B, size, size, C]`; features stay."""
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
        """One update of the VAE with (4) + lambda (5), then one of D with (6)."""
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
        of_l = self._transductive(params, state.vae_stats, state, labelled)
        of_u = self._transductive(params, of_l.stats, state, unlabelled)
        adversarial = losses.adversarial(of_l.logits, of_u.logits)
        loss = of_l.reconstruction + of_u.reconstruction + self.settings.beta * (of_l.kl + of_u.kl)
        loss += self.settings.adversarial_weight * adversarial
        metrics = {
            "reconstruction": 0.5 * (of_l.reconstruction + of_u.reconstruction),
            "kl": 0.5 * (of_l.kl + of_u.kl),
            "adversarial_loss": adversarial,
        }
        annotation, more = self.annotation_loss(params, of_l.latent, labelled)
        return loss + annotation, (of_u.stats, {**metrics, **more})

    def annotation_loss(
        self, params: Params, latent: jax.Array, labelled: PoolBatch
    ) -> tuple[jax.Array | float, Metrics]:
        """What the VAE's loss has beside (4) and (5), from L's latents `[B, Z]`: here nothing."""
        del params, latent, labelled
        return 0.0, {}

    def _transductive(
        self, params: Params, stats: Params, state: AdversaryState, half: PoolBatch
    ) -> "_Pass":
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
        """Of the latents: `[B, Z]`."""
        return jax.vmap(lambda key: jax.random.normal(key, (self.vae.latent,)))(half.keys)

    def _latents(self, state: AdversaryState, half: PoolBatch) -> jax.Array:
        """Means of the latents after the VAE's update, `[B, Z]`.

        Only the encoder runs; the statistics this pass would update were just updated.
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
        """D's loss on latents `[B, Z]` of both pools, and how often it is right."""
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
        logits: Any = self.discriminator.apply({"params": params}, latent, rank.discriminator)
        return jnp.asarray(logits)

    def score(self, state: AdversaryState, images: jax.Array, condition: Any = None) -> jax.Array:
        """Equation (7): D's logits in evaluation mode, `images [B, ...] -> [B]`.

        `images` are normalised and not augmented; the smallest score looks least labelled.
        """
        variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
        latent, _ = self.vae.apply(variables, self.seen(images), train=False, method="encode")
        return self._judge(state.discriminator_params, latent, self.rank(condition))


def rank_of(said: LearnerOutput, raw_to_discriminator: bool = False) -> Rank:
    """Normalised ranks from R(x) `[B]`; D's may stay raw, as in the released code."""
    if said.predicted is None:
        raise MissingComponent("a rank needs a Ranker: give the method a ranking_loss")
    predicted = jax.lax.stop_gradient(said.predicted)[:, None]
    normalised = losses.normalised_rank(predicted)
    return Rank(normalised, predicted if raw_to_discriminator else normalised)


def vaal(
    config: ConfigDict, problem: Problem, shape: tuple[int, ...], axis_name: str | None = None
) -> Adversary:
    """VAAL's ("Variational adversarial active learning", Sinha et al., ICCV 2019): told nothing."""
    del problem
    return Adversary(
        models.build_vae(config, shape, axis_name), models.build_discriminator(config), None,
        Settings.of(config),
    )  # fmt: skip


def tavaal(
    config: ConfigDict, problem: Problem, shape: tuple[int, ...], axis_name: str | None = None
) -> Adversary:
    """The paper's: decoder and D are told the rank, unless the config hides it from one."""
    raw = config.rank_to_discriminator == "raw"
    shown = {"decoder": config.rank_to_decoder, "discriminator": config.rank_to_discriminator}
    hidden = tuple(name for name, how in shown.items() if how == "none")
    plain = vaal(config, problem, shape, axis_name)
    return dataclasses.replace(plain, condition_of=lambda said: rank_of(said, raw), hidden=hidden)
