"""Shapes, sizes and initialisers of the networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from configs import cifar10, digits, fashion_mnist, moons, scenes, smoke
from tavaal_jax import models
from tavaal_jax.models import layers
from tavaal_jax.models.vae import stage_widths


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def abstract(module, *arguments, **flags):
    init = lambda *a: module.init(jax.random.key(0), *a, **flags)
    return jax.eval_shape(init, *arguments)


def test_resnet_18_is_the_usual_one_for_cifar():
    learner = models.build_learner(cifar10.get_config(), 10, (32, 32, 3))
    images = jnp.zeros((2, 32, 32, 3))
    variables = abstract(learner, images, train=False)
    assert count(variables["params"]) == 11_173_962
    output = jax.eval_shape(lambda v: learner.apply(v, images, train=False), variables)
    assert output.logits.shape == (2, 10)
    assert output.embedding.shape == (2, 512)
    assert [t.shape[1:] for t in output.taps] == [
        (32, 32, 64),
        (16, 16, 128),
        (8, 8, 256),
        (4, 4, 512),
    ]


@pytest.mark.parametrize(("classes", "size"), [(1000, 11_689_512), (102, 11_228_838)])
def test_resnet_18_with_the_stem_for_imagenet(classes, size):
    config = cifar10.get_config()
    config.task.stem = "imagenet"
    learner = models.build_learner(config, classes, (224, 224, 3))
    images = jnp.zeros((2, 224, 224, 3))
    variables = abstract(learner, images, train=False)
    assert count(variables["params"]) == size
    output = jax.eval_shape(lambda v: learner.apply(v, images, train=False), variables)
    assert output.logits.shape == (2, classes)
    assert [t.shape[1] for t in output.taps] == [56, 28, 14, 7]


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 2)])
def test_max_pool_equals_lax(size, rng):
    images = rng.normal(size=(2, *size, 3)).astype(np.float32)

    def expected(x):
        pads = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)

    gradient = rng.normal(size=jax.eval_shape(expected, images).shape).astype(np.float32)

    @jax.jit
    def both(images, gradient):
        of = [jax.vjp(function, images) for function in (layers.max_pool, expected)]
        return [(value, pull(gradient)[0]) for value, pull in of]

    (value, slope), (expected_value, expected_slope) = both(images, gradient)
    np.testing.assert_array_equal(value, expected_value)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-6)


def test_mlp_taps_its_middle_layer():
    learner = models.build_learner(moons.get_config(), 2, (2,))
    points = jnp.ones((3, 2))
    variables = abstract(learner, points, train=False)
    assert len(variables["params"]) == 3
    output = jax.eval_shape(lambda v: learner.apply(v, points, train=False), variables)
    assert output.logits.shape == (3, 2)
    assert [t.shape for t in output.taps] == [(3, 32)]


@pytest.mark.parametrize("place", ["head", "stages"])
@pytest.mark.parametrize(
    "config",
    [moons, smoke, pytest.param(scenes, marks=pytest.mark.slow)],
    ids=lambda c: c.__name__,
)
def test_the_head_alone_makes_the_logits_of_the_features(config, place, rng):
    """So that Monte-Carlo dropout before it need not repeat what comes before."""
    shape = {moons: (3, 2), smoke: (3, 8, 8, 1), scenes: (3, 21, 30, 3)}[config]
    config = config.get_config()
    config.mc_dropout.place = place
    network = models.build_learner(config, 4, shape[1:])
    images = jnp.asarray(rng.normal(size=shape).astype(np.float32))
    first, second = jax.random.split(jax.random.key(1), (2, 3))

    @jax.jit
    def both(images):
        variables = network.init(jax.random.key(0), images, train=False)
        whole = network.apply(variables, images, train=False, dropout_keys=second)
        keys = first if place == "head" else second
        features = network.apply(variables, images, train=False, dropout_keys=keys).features
        size = images.shape[1:3]
        return whole, network.apply(variables, features, second, size, method="head")

    whole, alone = both(images)
    np.testing.assert_allclose(alone, whole.logits, rtol=1e-5, atol=1e-6)
    assert alone.dtype == jnp.float32


def test_ranker_by_hand():
    taps = (jnp.full((1, 2, 2, 1), 3.0), jnp.array([[1.0, 5.0]]))
    ranker = models.Ranker(2)
    params = abstract(ranker, taps)["params"]
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), params)
    # relu(3 + 1) twice, relu(1 + 5 + 1) twice, then their sum plus 1.
    found = jax.jit(ranker.apply)({"params": params}, taps)
    np.testing.assert_allclose(found, [2 * 4 + 2 * 7 + 1])
    single = models.Ranker(0)
    params = abstract(single, taps)["params"]
    assert count(params) == 1 + 2 + 1


@pytest.mark.parametrize(
    ("config", "shape", "size"),
    [
        (cifar10, (32, 32, 3), 32),
        (fashion_mnist, (28, 28, 1), 32),
        (digits, (8, 8, 1), 8),
        (cifar10, (3, 2, 4), 4),
        (cifar10, (224, 224, 3), 64),
    ],
)
def test_vae_of_any_size_and_channels(config, shape, size):
    autoencoder = models.build_vae(config.get_config(), shape)
    assert autoencoder.size == size
    images, noise = jnp.zeros((2, size, size, shape[2])), jnp.zeros((2, autoencoder.latent))
    arguments = (images, noise, jnp.zeros((2, 1)))
    variables = abstract(autoencoder, *arguments, train=False)
    decoded, mean, log_variance = jax.eval_shape(
        lambda v: autoencoder.apply(v, *arguments, train=False), variables
    )
    assert decoded.shape == images.shape
    assert mean.shape == log_variance.shape == noise.shape


def test_vae_stages_follow_the_size():
    assert stage_widths(32, (128, 256, 512, 1024)) == (128, 256, 512, 1024)
    assert stage_widths(64, (128, 256, 512, 1024)) == (128, 256, 512, 1024, 1024)
    assert stage_widths(8, (32, 64)) == (32, 64)
    assert stage_widths(4, (32, 64)) == (32,)
    autoencoder = models.build_vae(cifar10.get_config(), (32, 32, 3))
    arguments = (jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 64)), jnp.zeros((2, 1)))
    params = abstract(autoencoder, *arguments, train=False)["params"]
    assert params["down_3"]["kernel"].shape == (4, 4, 512, 1024)
    assert params["expand"]["kernel"].shape == (65, 16 * 1024)
    assert params["up_0"]["kernel"].shape == (4, 4, 1024, 512)
    assert "up_3" not in params


def test_decoder_and_discriminator_see_the_rank():
    config = digits.get_config()
    config.vae.update(widths=(4, 4), latent=32)
    autoencoder = models.build_vae(config, (8, 8, 1))
    discriminator = models.build_discriminator(config)
    key, rank = jax.random.key(0), np.zeros((3, 1), np.float32)
    images, latent = jnp.ones((3, 8, 8, 1)), jnp.ones((3, 32))
    variables, params = jax.jit(
        lambda rank: (
            autoencoder.init(key, images, latent, rank, train=False),
            discriminator.init(key, latent, rank),
        )
    )(rank)

    @jax.jit
    def both(rank):
        decoded = autoencoder.apply(variables, latent, rank, train=False, method="decode")
        return decoded, discriminator.apply(params, latent, rank)

    for of_one, of_other in zip(both(rank), both(rank + 1), strict=True):
        assert (np.asarray(of_one) != of_other).any()
    assert len(params["params"]) == 5
    without = abstract(discriminator, latent, None)["params"]
    assert without["Dense_0"]["kernel"].shape == (32, 64)


def test_initialisers_have_the_released_codes_spread():
    shape, fan_in = (3, 3, 64, 128), 9 * 64
    key = jax.random.key(0)
    uniform = np.asarray(layers.pytorch_uniform(key, shape))
    assert np.abs(uniform).max() <= fan_in**-0.5
    np.testing.assert_allclose(uniform.std(), (1 / (3 * fan_in)) ** 0.5, rtol=0.02)
    normal = np.asarray(layers.he_normal(key, shape))
    np.testing.assert_allclose(normal.std(), (2 / fan_in) ** 0.5, rtol=0.02)
    assert np.abs(normal).max() > 3 * (2 / fan_in) ** 0.5  # not truncated
    bias = np.asarray(layers.pytorch_bias(fan_in)(key, (1000,)))
    np.testing.assert_allclose(bias.std(), (1 / (3 * fan_in)) ** 0.5, rtol=0.05)


def test_the_vae_starts_as_the_released_code():
    """He normal where its weight_init reaches; PyTorch's default, +-1/sqrt(fan_in), elsewhere."""
    config = digits.get_config()
    config.vae.update(widths=(64, 128), latent=32, image_size=8)
    network = models.build_vae(config, (8, 8, 3))
    init = jax.jit(functools.partial(network.init, train=False))
    inputs = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 32)), jnp.zeros((1, 1))
    params = jax.device_get(init(jax.random.key(0), *inputs))["params"]

    def assert_he_normal(layer, fan_in):
        kernel = params[layer]["kernel"]
        np.testing.assert_allclose(kernel.std(), (2 / fan_in) ** 0.5, rtol=0.05)
        assert np.abs(kernel).max() > fan_in**-0.5
        assert not np.any(params[layer].get("bias", 0))

    def assert_uniform(values, fan_in):
        assert np.abs(values).max() <= fan_in**-0.5
        np.testing.assert_allclose(values.std(), (1 / (3 * fan_in)) ** 0.5, rtol=0.35)

    assert_he_normal("down_0", 16 * 3)
    assert_he_normal("down_1", 16 * 64)
    assert_he_normal("expand", 33)
    for name in ("mean", "log_variance"):
        assert_uniform(params[name]["kernel"], 4 * 128)
        assert_uniform(params[name]["bias"], 4 * 128)
    # PyTorch takes a transposed convolution's output channels for the input's.
    assert_uniform(params["up_0"]["kernel"], 16 * 64)
    assert_uniform(params["to_image"]["kernel"], 3)
    assert params["to_image"]["bias"].shape == (3,)
    assert np.abs(params["to_image"]["bias"]).max() <= 3**-0.5


@pytest.mark.slow
def test_bfloat16_networks_keep_float32_parameters_and_outputs():
    config = digits.get_config()
    config.dtype = "bfloat16"
    learner = models.build_learner(config, 10, (8, 8, 1))
    images = jnp.ones((2, 8, 8, 1))
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm mixes both types.
        variables = learner.init(jax.random.key(0), images, train=False)
        output = learner.apply(variables, images, train=False)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert output.taps[0].dtype == jnp.bfloat16
    assert output.logits.dtype == jnp.float32


def test_dropout_is_each_examples_own(rng):
    x = jnp.asarray(rng.normal(size=(6, 4, 4, 5)).astype(np.float32))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(6))
    dropped = jax.jit(lambda x, keys, layer: layers.dropout(x, keys, 0.3, layer), static_argnums=2)
    whole = dropped(x, keys, 1)
    parts = [dropped(x[i : i + 2], keys[i : i + 2], 1) for i in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    kept = np.asarray(whole != 0)
    assert abs(kept.mean() - 0.7) < 0.06
    np.testing.assert_allclose(np.asarray(whole)[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
    assert (np.asarray(whole) != dropped(x, keys, 2)).any()
    assert layers.dropout(x, None, 0.3, layer=1) is x
