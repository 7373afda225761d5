"""The dilated residual network: size, output strides, upsampling, dropout of its head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import scenes
from tavaal_jax import models
from tavaal_jax.models import drn

SMALL = {"widths": (4, 4, 4, 6, 6, 8, 8, 10), "blocks": (1,) * 8}


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def abstract(network, images):
    init = lambda key: network.init(key, images, train=False)
    variables = jax.eval_shape(init, jax.random.key(0))
    return variables, jax.eval_shape(lambda v: network.apply(v, images, train=False), variables)


def test_drn_d_22_has_the_published_size():
    variables, output = abstract(models.DRN(19), jnp.zeros((2, 412, 412, 3)))
    params = variables["params"]
    assert count(params) == 15_890_499
    # With ImageNet's last layer, as the published tables count.
    assert count(params) - count(params["last"]) + 512 * 1000 + 1000 == 16_393_752
    assert output.logits.shape == (2, 412, 412, 19)
    assert output.embedding.shape == (2, 512)
    assert output.features.shape == (2, 52, 52, 512)
    assert [t.shape[1:] for t in output.taps] == [
        (103, 103, 64),
        (52, 52, 128),
        (52, 52, 256),
        (52, 52, 512),
    ]


@pytest.mark.parametrize(
    ("strides", "height", "width"),
    [((1, 2, 2, 2), 5, 6), ((1, 2, 2, 1), 9, 12), ((1, 1, 1, 1), 33, 47), ((2, 2, 2, 2), 3, 3)],
)
def test_logits_have_the_images_size_whatever_the_strides(strides, height, width):
    network = models.DRN(3, **SMALL, strides=strides)
    _, output = abstract(network, jnp.zeros((1, 33, 47, 3)))
    assert output.features.shape == (1, height, width, 10)
    assert output.logits.shape == (1, 33, 47, 3)


def test_the_config_builds_it():
    config = scenes.get_config()
    config.task.update(widths=(8, 8, 16, 16, 32, 32, 32, 32), strides=(1, 2, 2, 1))
    network = models.build_learner(config, 11, (48, 96, 3))
    variables, output = abstract(network, jnp.zeros((1, 48, 96, 3)))
    assert count(variables["params"]) == 62_739
    assert output.features.shape == (1, 12, 24, 32)


def test_kernels_start_as_the_released_codes():
    network = models.DRN(32, (4, 4, 4, 64, 4, 4, 4, 64), (1,) * 8)
    init = lambda key: network.init(key, jnp.zeros((1, 16, 16, 3)), train=False)
    params = jax.jit(init)(jax.random.key(0))["params"]
    for level in ("levels_4_0", "levels_8_0"):
        kernel = params[level]["Conv_0"]["kernel"]
        np.testing.assert_allclose(kernel.std(), (2 / (9 * 64)) ** 0.5, rtol=0.05)
    np.testing.assert_allclose(params["last"]["kernel"].std(), (2 / 32) ** 0.5, rtol=0.05)
    assert not params["last"]["bias"].any()


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_upsampling_is_the_transposed_convolution_of_its_definition(stride, rng):
    logits = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    found = drn.upsample(jnp.asarray(logits), stride, (5 * stride - stride // 2, 7 * stride))
    expected = np.zeros((2, 6 * stride, 8 * stride, 3))
    taps = np.arange(2 * stride)
    window = 1 - np.abs(taps / stride - (2 * stride - 1) / (2 * stride))
    window = window if stride > 1 else np.array([1.0, 0.0])
    for i in range(5):
        for j in range(7):
            seen = np.outer(window, window)[..., None] * logits[:, i, j][:, None, None]
            y, x = i * stride, j * stride
            expected[:, y : y + 2 * stride, x : x + 2 * stride] += seen
    expected = expected[:, stride // 2 :, stride // 2 :][:, : found.shape[1], : found.shape[2]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    inside = slice(stride, -stride)
    bilinear = jax.image.resize(logits, (2, 5 * stride, 7 * stride, 3), "bilinear")
    rows = found.shape[1]
    np.testing.assert_allclose(
        found[:, inside, inside], bilinear[:, :rows][:, inside, inside], atol=1e-5
    )
