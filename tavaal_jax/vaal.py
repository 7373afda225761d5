"""VAE and discriminator D, conditioned on the rank: losses (4)-(6), train step, score (7)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from tavaal_jax import losses, optim, parallel
from tavaal_jax.state import Stream, VaalState, derive, example_keys


class Rank(NamedTuple):
    """What the decoder and the discriminator see of R(x): `[B, 1]` each, or None for VAAL."""

    decoder: jax.Array | None
    discriminator: jax.Array | None


class Pool(NamedTuple):
    """One pool's half of a batch: plain images `[B, ...]`, ranks, and the latents' noise `[B,
    Z]`."""

    images: jax.Array
    rank: Rank
    noise: jax.Array


def rank_of(run, predicted: jax.Array | None) -> Rank:
    """Normalised ranks from R(x) `[B]`; D's may stay raw, as in the released code."""
    if predicted is None:
        return Rank(None, None)
    chex.assert_rank(predicted, 1)
    predicted = jax.lax.stop_gradient(predicted)[:, None]
    normalised = losses.normalised_rank(predicted)
    raw = run.config.rank_to_discriminator == "raw"
    return Rank(normalised, predicted if raw else normalised)


def first_ranks(key: jax.Array, positions: jax.Array) -> Rank:
    """r ~ U(0, 1), Algorithm 1's ranks of the first epoch: `positions [B] -> [B, 1]`."""
    draw = jax.vmap(jax.random.uniform)(example_keys(key, positions))[:, None]
    return Rank(draw, draw)


def pools(run, data, key: jax.Array, batch: dict, ranks: tuple[Rank, Rank]) -> tuple[Pool, Pool]:
    """L's and U's halves of a step: `batch` has indices `labelled`, `unlabelled` and `positions`,
    `[B]`."""
    latent = run.networks.vae.latent

    def pool(name, number, rank):
        keys = example_keys(derive(key, number), batch["positions"])
        noise = jax.vmap(lambda k: jax.random.normal(k, (latent,)))(keys)
        return Pool(vae_images(run, data.plain(batch[name])), rank, noise)

    return pool("labelled", 0, ranks[0]), pool("unlabelled", 1, ranks[1])


def vae_images(run, images: jax.Array) -> jax.Array:
    """Images as the VAE sees and reconstructs them, `[B, size, size, C]`; features stay as they
    are."""
    if images.ndim == 2:
        return images
    size = run.networks.vae.size
    shape = (images.shape[0], size, size, images.shape[3])
    return images if images.shape == shape else jax.image.resize(images, shape, "bilinear")


def init(run, key: jax.Array, cycle, example: jax.Array) -> VaalState:
    """Fresh weights for a cycle; `example [1, ...]` gives the shapes."""
    vae, discriminator = run.networks.vae, run.networks.discriminator
    images, noise = vae_images(run, example), jnp.zeros((1, vae.latent))
    rank = jnp.zeros((1, 1)) if run.method.adversary == "ranked" else None
    variables = vae.init(derive(key, Stream.VAE, cycle), images, noise, rank, train=False)
    params, stats = variables["params"], variables.get("batch_stats", {})
    d_key = derive(key, Stream.DISCRIMINATOR, cycle)
    d_params = discriminator.init(d_key, noise, rank)["params"]
    return VaalState(
        params,
        stats,
        optim.optimiser(run.config.vae).init(params),
        d_params,
        optim.optimiser(run.config.discriminator).init(d_params),
    )


def train_step(run, state: VaalState, labelled: Pool, unlabelled: Pool) -> tuple[VaalState, dict]:
    """One update of the VAE with (4) + lambda (5), then one of D with (6)."""
    chex.assert_trees_all_equal_shapes(labelled, unlabelled)
    chex.assert_equal_shape_prefix([labelled.images, labelled.noise], 1)
    state, vae_metrics = _vae_step(run, state, labelled, unlabelled)
    state, discriminator_metrics = _discriminator_step(run, state, labelled, unlabelled)
    return state, {**vae_metrics, **discriminator_metrics}


def _vae_step(run, state, labelled, unlabelled):
    config, vae, discriminator = run.config.vae, run.networks.vae, run.networks.discriminator

    def transductive(params, stats, pool):
        """Equation (4) for one pool, with its own BatchNorm statistics, and D's logits."""
        (decoded, mean, log_variance), updated = vae.apply(
            {"params": params, "batch_stats": stats},
            pool.images, pool.noise, pool.rank.decoder, train=True, mutable=["batch_stats"],
        )  # fmt: skip
        reconstruction = losses.reconstruction(pool.images, decoded)
        kl = losses.kl_divergence(mean, log_variance)
        logits = discriminator.apply(
            {"params": state.discriminator_params}, mean, pool.rank.discriminator
        )
        return reconstruction, kl, logits, updated.get("batch_stats", {})

    def vae_loss(params):
        reconstruction_l, kl_l, logits_l, stats = transductive(params, state.vae_stats, labelled)
        reconstruction_u, kl_u, logits_u, stats = transductive(params, stats, unlabelled)
        adversarial = losses.adversarial(logits_l, logits_u)
        loss = reconstruction_l + reconstruction_u + config.beta * (kl_l + kl_u)
        metrics = {
            "reconstruction": 0.5 * (reconstruction_l + reconstruction_u),
            "kl": 0.5 * (kl_l + kl_u),
            "adversarial_loss": adversarial,
        }
        return loss + config.adversarial_weight * adversarial, (stats, metrics)

    gradients, (stats, metrics) = jax.grad(vae_loss, has_aux=True)(state.vae_params)
    gradients, metrics = parallel.mean((gradients, metrics))
    params, optimiser = optim.update(
        config, config.learning_rate, gradients, state.vae_optimiser, state.vae_params
    )
    return state.replace(vae_params=params, vae_stats=stats, vae_optimiser=optimiser), metrics


def _discriminator_step(run, state, labelled, unlabelled):
    config, vae, discriminator = (
        run.config.discriminator,
        run.networks.vae,
        run.networks.discriminator,
    )

    def latent(pool):
        # Only the encoder runs; the statistics this pass would update were just updated above.
        variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
        (mean, _), _ = vae.apply(
            variables, pool.images, train=True, mutable=["batch_stats"], method="encode"
        )
        return mean

    mean_l, mean_u = latent(labelled), latent(unlabelled)

    def discriminator_loss(params):
        logits_l = discriminator.apply({"params": params}, mean_l, labelled.rank.discriminator)
        logits_u = discriminator.apply({"params": params}, mean_u, unlabelled.rank.discriminator)
        metrics = {
            "discriminator_loss": losses.discriminator(logits_l, logits_u),
            "discriminator_accuracy": 0.5 * (jnp.mean(logits_l > 0) + jnp.mean(logits_u < 0)),
        }
        return metrics["discriminator_loss"], metrics

    gradients, metrics = jax.grad(discriminator_loss, has_aux=True)(state.discriminator_params)
    gradients, metrics = parallel.mean((gradients, metrics))
    params, optimiser = optim.update(
        config, config.learning_rate, gradients,
        state.discriminator_optimiser, state.discriminator_params,
    )  # fmt: skip
    return state.replace(discriminator_params=params, discriminator_optimiser=optimiser), metrics


def score(run, state: VaalState, images: jax.Array, predicted: jax.Array | None) -> jax.Array:
    """D's logit in evaluation mode: plain `images [B, ...]`, R(x) `[B]` or None `-> [B]`."""
    variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
    mean, _ = run.networks.vae.apply(
        variables, vae_images(run, images), train=False, method="encode"
    )
    rank = rank_of(run, predicted).discriminator
    return run.networks.discriminator.apply({"params": state.discriminator_params}, mean, rank)
