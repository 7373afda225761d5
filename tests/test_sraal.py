"""SRAAL's adversary: what the halves of its latent do, relabelled states, its step by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import smoke
from tavaal_jax.algorithm import losses
from tavaal_jax.algorithm.adversary import vaal
from tavaal_jax.algorithm.learner import LearnerOutput
from tavaal_jax.algorithm.problems import Classification, Segmentation
from tavaal_jax.algorithm.sraal import sraal
from tavaal_jax.algorithm.state import PoolBatch, derive, example_keys

KEY = derive(jax.random.key(0), 0)
SHAPE, CLASSES = (8, 8, 1), 10
IMAGES = jax.random.normal(jax.random.key(1), (16, *SHAPE))
LOGITS = jax.random.normal(jax.random.key(2), (16, CLASSES)) * 3


def built(**changes):
    config = smoke.get_config()
    config.sraal.hidden = (12,)
    config.update_from_flattened_dict(changes)
    return sraal(config, Classification.of(config, CLASSES), SHAPE)


def halves(adversary):
    keys = [example_keys(jax.random.key(number), jnp.arange(8)) for number in range(2)]
    condition = adversary.condition_of(LearnerOutput(LOGITS, jnp.zeros((16, 2)), None))
    labels = jnp.arange(8) % CLASSES
    return (
        PoolBatch(IMAGES[:8], condition[:8], keys[0], labels),
        PoolBatch(IMAGES[8:], condition[8:], keys[1], jnp.full(8, -1)),
    )


def begun(adversary):
    return jax.jit(lambda key: adversary.init(key, IMAGES[:1]))(KEY)


@functools.cache
def step():
    return jax.jit(built().step)


@functools.cache
def stepped():
    adversary = built()
    state, both = begun(adversary), halves(adversary)
    return adversary, state, both, *step()(state, *both)


def test_it_is_told_the_uncertainty_of_t_and_hides_it_from_the_networks():
    adversary = built()
    condition = adversary.condition_of(LearnerOutput(LOGITS, jnp.zeros((16, 2)), None))
    expected = [Classification(CLASSES).indicator(logits) for logits in LOGITS]
    np.testing.assert_allclose(condition, expected, rtol=1e-6)
    assert tuple(adversary.rank(condition)) == (None, None)
    keys = example_keys(KEY, jnp.arange(3))
    np.testing.assert_array_equal(adversary.initial_condition(keys), [1, 1, 1])


@pytest.mark.parametrize("latent", [5, *(pytest.param(z, marks=pytest.mark.slow) for z in (1, 4))])
def test_one_half_of_the_latent_is_decoded_and_the_other_classified(latent):
    adversary = built(**{"vae.latent": latent})
    state = begun(adversary)
    variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
    decode = jax.jit(
        lambda z: adversary.vae.apply(variables, z, None, train=False, method="decode")
    )
    classify = jax.jit(lambda z: adversary.vae.apply(variables, z, method="classify"))
    z = jax.random.normal(KEY, (2, latent))
    first = z.at[:, : latent // 2].add(1.0)
    second = z.at[:, (latent + 1) // 2 :].add(1.0)
    np.testing.assert_array_equal(decode(second), decode(z))
    np.testing.assert_array_equal(classify(first), classify(z))
    assert jnp.any(decode(z + 1) != decode(z))
    assert jnp.any(classify(z + 1) != classify(z))
    assert classify(z).shape == (2, CLASSES)


def test_metrics_are_those_of_the_equations():
    adversary, state, (labelled, unlabelled), after, metrics = stepped()

    @jax.jit
    def outputs(half, stats, params):
        variables = {"params": params, "batch_stats": stats}
        noise = jnp.stack([jax.random.normal(key, (4,)) for key in half.keys])
        (_, mean, log_variance), _ = adversary.vae.apply(
            variables, half.images, noise, None, train=True, mutable=["batch_stats"]
        )
        return mean, mean + jnp.exp(log_variance / 2) * noise

    latent = outputs(labelled, state.vae_stats, state.vae_params)[-1]
    logits = adversary.vae.apply({"params": state.vae_params}, latent, method="classify")
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labelled.labels).mean()
    np.testing.assert_allclose(metrics["latent_task_loss"], expected, rtol=1e-5)

    # D's loss, on latents after the VAE's update.
    judge = lambda half: adversary.discriminator.apply(
        {"params": state.discriminator_params},
        outputs(half, after.vae_stats, after.vae_params)[0],
        None,
    )
    of_l, of_u = judge(labelled), judge(unlabelled)
    d, u = jax.nn.sigmoid(of_u), unlabelled.condition
    soft = -jnp.mean(jnp.log(jax.nn.sigmoid(of_l)))
    soft -= jnp.mean(u * jnp.log(1 - d) + (1 - u) * jnp.log(d))
    np.testing.assert_allclose(metrics["discriminator_loss"], soft, rtol=1e-5)
    assert abs(soft - losses.discriminator(of_l, of_u)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_images_without_a_labelled_pixel_weigh_nothing_whatever_the_devices(parts):
    """The step of a map's classifier is that of the batch without them."""
    config = smoke.get_config()
    config.vae.update(widths=(4,), latent=4)
    adversary = sraal(config, Segmentation(CLASSES), SHAPE, "batch")
    state = begun(adversary)
    labelled, unlabelled = halves(built())
    pixels = jax.random.randint(KEY, (8, CLASSES), 0, 9).at[jnp.array([1, 2, 5])].set(0)
    both = labelled._replace(labels=pixels), unlabelled._replace(labels=jnp.zeros_like(pixels))
    both = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), both)
    mean = functools.partial(jax.lax.pmean, axis_name="batch")
    mapped = jax.vmap(lambda *both: adversary.step(state, *both, mean), axis_name="batch")
    metrics = jax.jit(mapped)(*both)[1]

    def latents(half):
        noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(half.keys)
        variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
        (_, centre, log_variance), _ = adversary.vae.apply(
            variables, half.images, noise, None, train=True, mutable=["batch_stats"]
        )
        logits = adversary.vae.apply(
            variables, centre + jnp.exp(log_variance / 2) * noise, method="classify"
        )
        return losses.share_cross_entropy(logits, half.labels.astype(jnp.float32))

    each = jax.jit(jax.vmap(latents, axis_name="batch"))(both[0]).ravel()
    known = each[np.array([0, 3, 4, 6, 7])]
    np.testing.assert_allclose(metrics["latent_task_loss"], known.mean(), rtol=1e-5)


def test_weight_of_the_class():
    _, state, both, _, metrics = stepped()
    loss = lambda s, eta: built(**{"sraal.eta": eta}).vae_loss(s.vae_params, s, *both)[0]
    difference = jax.jit(lambda s: loss(s, 3.0) - loss(s, 1.0))(state)
    np.testing.assert_allclose(difference, 2 * metrics["latent_task_loss"], rtol=1e-4)


def test_labels_of_u_and_uncertainty_of_l_change_nothing():
    _, state, (labelled, unlabelled), after, _ = stepped()
    labelled = labelled._replace(condition=1 - labelled.condition)
    unlabelled = unlabelled._replace(labels=jnp.full(8, 7))
    again, _ = step()(state, labelled, unlabelled)
    jax.tree.map(np.testing.assert_array_equal, again, after)


def test_without_uncertainty_and_class_d_is_trained_as_vaals():
    config = smoke.get_config()
    plain = vaal(config, Classification(CLASSES), SHAPE)
    assert plain.discriminator == built().discriminator
    logits = jax.random.normal(KEY, (2, 8))
    condition = jnp.ones(8)
    found = built().state_loss(*logits, halves(built())[1]._replace(condition=condition))
    np.testing.assert_allclose(found, losses.discriminator(*logits), rtol=1e-6)


@pytest.mark.slow
def test_the_class_can_be_told_from_the_latent_after_some_steps():
    adversary = built(**{"vae.latent": 8, "sraal.hidden": (64,), "vae.learning_rate": 1e-2})
    state = begun(adversary)
    both, train, seen = halves(adversary), jax.jit(adversary.step), []
    for _ in range(100):
        state, metrics = train(state, *both)
        seen.append(float(metrics["latent_task_loss"]))
    assert np.mean(seen[-10:]) < 0.5 * np.mean(seen[:10])
