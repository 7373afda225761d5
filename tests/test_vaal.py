"""The train step of VAE and D: what is updated by what, what the ranks do, and scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tavaal_jax.methods import METHODS
from tavaal_jax.state import derive

from configs import smoke
from tavaal_jax import losses, parallel, programs, vaal
from tavaal_jax.data import load

KEY = derive(jax.random.key(0), 0)
PLAIN = METHODS["tavaal"]._replace(adversary="plain")


@functools.cache
def prepared(method=METHODS["tavaal"], **changes):
    config = smoke.get_config()
    config.update(changes)
    dataset = load(config)
    return programs.prepare(config, method, dataset, dataset.on_device())


def pools(run, predicted):
    batch = {"labelled": jnp.arange(8), "unlabelled": jnp.arange(8, 16), "positions": jnp.arange(8)}
    ranks = [vaal.rank_of(run, p) for p in predicted]
    return vaal.pools(run, run.train, KEY, batch, tuple(ranks))


def one_step(run, state, labelled, unlabelled):
    step = lambda s: vaal.train_step(run, s, labelled, unlabelled)
    mapped = jax.vmap(step, axis_name=parallel.AXIS, in_axes=None, out_axes=0, axis_size=1)
    return jax.tree.map(lambda x: x[0], jax.jit(mapped)(state))


def start(run):
    return run.programs["init"](run.train, KEY, 0)["vaal"]


PREDICTED = (jnp.linspace(-2, 2, 8), jnp.linspace(3, -3, 8))


@functools.cache
def stepped():
    run = prepared()
    state = start(run)
    both = pools(run, PREDICTED)
    return run, state, both, *one_step(run, state, *both)


def test_metrics_are_equations_4_to_6():
    run, state, (labelled, unlabelled), after, metrics = stepped()
    networks, d_params = run.networks, {"params": state.discriminator_params}

    def outputs(pool, params, stats):
        variables = {"params": params, "batch_stats": stats}
        arguments = (pool.images, pool.noise, pool.rank.decoder)
        apply = lambda: networks.vae.apply(
            variables, *arguments, train=True, mutable=["batch_stats"]
        )
        # The axis of the devices, of size one.
        named = jax.vmap(
            lambda _: apply()[0], axis_name=parallel.AXIS, in_axes=0, out_axes=0, axis_size=1
        )
        return jax.tree.map(lambda x: x[0], named(jnp.zeros(1)))

    decoded, mean, log_variance = outputs(labelled, state.vae_params, state.vae_stats)
    decoded_u, mean_u, log_variance_u = outputs(unlabelled, state.vae_params, state.vae_stats)
    reconstruction = (
        losses.reconstruction(labelled.images, decoded)
        + losses.reconstruction(unlabelled.images, decoded_u)
    ) / 2
    kl = (
        losses.kl_divergence(mean, log_variance) + losses.kl_divergence(mean_u, log_variance_u)
    ) / 2
    judge = lambda m, pool: networks.discriminator.apply(d_params, m, pool.rank.discriminator)
    adversarial = losses.adversarial(judge(mean, labelled), judge(mean_u, unlabelled))
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["adversarial_loss"], adversarial, rtol=1e-5)

    # D learns on latents of the VAE after its update.
    _, mean, _ = outputs(labelled, after.vae_params, after.vae_stats)
    _, mean_u, _ = outputs(unlabelled, after.vae_params, after.vae_stats)
    expected = losses.discriminator(judge(mean, labelled), judge(mean_u, unlabelled))
    np.testing.assert_allclose(metrics["discriminator_loss"], expected, rtol=1e-4)


def test_both_pools_have_their_own_batch_statistics():
    _, state, _, after, _ = stepped()
    old = state.vae_stats["down_norm_0"]["mean"]
    new = after.vae_stats["down_norm_0"]["mean"]
    assert jnp.any(old != new)
    # Two updates of a running mean that starts at zero: 0.09 of L's and 0.1 of U's.
    labelled, unlabelled = stepped()[2]
    kernel = state.vae_params["down_0"]["kernel"]
    means = [
        jax.lax.conv_general_dilated(
            pool.images,
            kernel,
            (2, 2),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).mean((0, 1, 2))
        for pool in (labelled, unlabelled)
    ]
    np.testing.assert_allclose(new, 0.09 * means[0] + 0.1 * means[1], rtol=1e-4, atol=1e-6)


def test_noise_depends_on_the_position_and_differs_between_pools():
    run = prepared()
    labelled, unlabelled = pools(run, PREDICTED)
    assert jnp.any(labelled.noise != unlabelled.noise)
    assert len(np.unique(labelled.noise, axis=0)) == 8


def test_ranks_are_normalised_for_both_or_raw_for_the_discriminator():
    rank = vaal.rank_of(prepared(), jnp.array([0.0, 5.0]))
    np.testing.assert_allclose(rank.decoder[:, 0], jax.nn.sigmoid(jnp.array([0.0, 5.0])))
    np.testing.assert_array_equal(rank.decoder, rank.discriminator)
    raw = vaal.rank_of(prepared(rank_to_discriminator="raw"), jnp.array([0.0, 5.0]))
    np.testing.assert_array_equal(raw.discriminator[:, 0], [0.0, 5.0])
    np.testing.assert_array_equal(raw.decoder, rank.decoder)


def test_without_ranks_networks_see_latents_alone():
    run = prepared(PLAIN)
    state = start(run)
    assert state.discriminator_params["Dense_0"]["kernel"].shape[0] == run.config.vae.latent
    ranked = start(prepared())
    assert ranked.discriminator_params["Dense_0"]["kernel"].shape[0] == run.config.vae.latent + 1
    assert vaal.rank_of(run, None) == vaal.Rank(None, None)


def test_a_score_does_not_depend_on_its_neighbours():
    run, _, _, state, _ = stepped()
    images = run.train.plain(jnp.arange(12))
    predicted = jnp.linspace(-1, 1, 12)
    together = vaal.score(run, state, images, predicted)
    alone = [vaal.score(run, state, images[i : i + 1], predicted[i : i + 1])[0] for i in range(12)]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-4, atol=1e-6)


def test_a_score_is_the_logit_of_d():
    run, _, _, state, _ = stepped()
    images, predicted = run.train.plain(jnp.arange(3)), jnp.array([-1.0, 0.0, 1.0])
    variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
    mean, _ = run.networks.vae.apply(variables, images, train=False, method="encode")
    rank = jax.nn.sigmoid(predicted)[:, None]
    expected = run.networks.discriminator.apply({"params": state.discriminator_params}, mean, rank)
    np.testing.assert_allclose(vaal.score(run, state, images, predicted), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [8, 16])
def test_images_are_resized_to_what_the_vae_sees(size):
    config = smoke.get_config()
    config.vae.image_size = size
    dataset = load(config)
    run = programs.prepare(config, METHODS["tavaal"], dataset, dataset.on_device())
    images = vaal.vae_images(run, run.train.plain(jnp.arange(2)))
    assert images.shape == (2, size, size, 1)
