"""CPU formulations against `lax`: values and gradients, every shape in use, odd sizes included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tavaal_jax.ops import convolution

# height, width, C, F, window, stride, padding
SHAPES = [
    (8, 8, 3, 5, 3, 1, 1),
    (7, 5, 4, 6, 3, 1, 1),
    (8, 8, 4, 6, 3, 2, 1),
    (7, 9, 4, 6, 3, 2, 1),
    (8, 8, 4, 6, 1, 1, 0),
    (8, 8, 4, 6, 1, 2, 0),
    (7, 7, 4, 6, 1, 2, 0),
    (8, 8, 3, 5, 4, 2, 1),
    (4, 4, 8, 16, 4, 2, 1),
    (9, 9, 3, 5, 4, 2, 1),
]


def reference(images, kernel, stride, padding):
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def assert_same_value_and_gradients(function, expected, *arguments):
    value, pull = jax.vjp(function, *arguments)
    expected_value, expected_pull = jax.vjp(expected, *arguments)
    np.testing.assert_allclose(value, expected_value, rtol=2e-5, atol=2e-5)
    gradient = jax.random.normal(jax.random.key(2), value.shape)
    for a, b in zip(pull(gradient), expected_pull(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cached", [1, 10**9])  # one image a chunk, all images in one
def test_conv_equals_lax(shape, cached, monkeypatch):
    monkeypatch.setattr(convolution, "_CACHED_BYTES", cached)
    height, width, channels, features, window, stride, padding = shape
    images = jax.random.normal(jax.random.key(0), (6, height, width, channels))
    kernel = jax.random.normal(jax.random.key(1), (window, window, channels, features))
    assert_same_value_and_gradients(
        lambda x, w: convolution.conv(x, w, stride, padding),
        lambda x, w: reference(x, w, stride, padding),
        images,
        kernel,
    )


@pytest.mark.parametrize("size", [2, 4, 5])
def test_conv_transpose_equals_lax_and_is_the_transpose_of_conv(size):
    images = jax.random.normal(jax.random.key(0), (6, size, size, 5))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5))
    assert_same_value_and_gradients(
        lambda x, w: convolution.conv_transpose(x, w, 2, 1),
        lambda x, w: convolution._lax_conv_transpose(x, w, 2, 1),
        images,
        kernel,
    )
    shape = jax.ShapeDtypeStruct((6, 2 * size, 2 * size, 3), jnp.float32)
    transpose = jax.linear_transpose(lambda x: reference(x, kernel, 2, 1), shape)
    expected = transpose(images)[0]
    out = convolution.conv_transpose(images, kernel, 2, 1)
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)


def test_conv_under_vmap_and_in_a_loop():
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 3))
    each = jax.vmap(lambda image: convolution.conv(image[None], kernel, 2, 1)[0])(images)
    np.testing.assert_allclose(each, reference(images, kernel, 2, 1), rtol=2e-5, atol=2e-5)

    def descend(conv):
        gradient = jax.grad(lambda w: jnp.sum(conv(images, w, 1, 1) ** 2))
        return lax.fori_loop(0, 3, lambda _, w: w - 1e-5 * gradient(w), kernel)

    np.testing.assert_allclose(descend(convolution.conv), descend(reference), rtol=1e-4, atol=1e-5)
