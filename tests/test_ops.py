"""CPU formulations against `lax`: values and gradients, every shape in use, odd sizes included."""

from concurrent import futures

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tavaal_jax.ops import convolution, matrix, patches, winograd

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
    # wide enough for Winograd
    (8, 8, 16, 32, 3, 1, 1),
    (7, 5, 16, 17, 3, 1, 1),
    (4, 4, 32, 16, 3, 1, 1),
    (1, 1, 16, 16, 3, 1, 1),
    (5, 6, 16, 16, 3, 1, 0),
    (8, 8, 16, 32, 4, 2, 1),
    (7, 10, 17, 19, 4, 2, 1),
    (2, 2, 16, 32, 4, 2, 1),
    (8, 8, 16, 24, 2, 1, 0),
    (9, 7, 16, 16, 6, 2, 2),
    (7, 7, 16, 16, 4, 2, 0),  # the last row and column are met by no window
    # wider than two strides
    (9, 12, 3, 5, 7, 1, 3),
    (10, 9, 3, 5, 7, 2, 3),
]


def reference(images, kernel, stride, padding, dilation=1):
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def value_and_gradients(function):
    """One program: `(gradient of the value, *arguments) -> value, gradients`."""

    def both(gradient, *arguments):
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(gradient)

    return jax.jit(both)


def assert_same_value_and_gradients(function, expected, *arguments):
    shape = jax.eval_shape(expected, *arguments).shape
    gradient = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    value, *gradients = value_and_gradients(function)(gradient, *arguments)
    expected_value, *expected_gradients = value_and_gradients(expected)(gradient, *arguments)
    np.testing.assert_allclose(value, expected_value, rtol=2e-5, atol=2e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-4)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def forget():
    """Constants of a module are part of what was traced; others may trace theirs again then."""
    jax.clear_caches()
    chex.clear_trace_counter()


ALL_AT_ONCE, ONE_BY_ONE = 10**9, 1


@pytest.fixture(scope="module")
def most_bytes(request):
    """Bytes of images that are worked on together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "_CACHED_BYTES", request.param)
        patch.setattr(winograd, "_MOST_BYTES", request.param)
        forget()
        yield
    forget()


@pytest.mark.usefixtures("most_bytes")
@pytest.mark.parametrize(
    ("shape", "most_bytes"),
    [(shape, ALL_AT_ONCE) for shape in SHAPES]
    + [(shape, ONE_BY_ONE) for shape in (SHAPES[3], SHAPES[8], SHAPES[11], SHAPES[16])],
    indirect=["most_bytes"],
)
def test_conv_equals_lax(shape):
    height, width, channels, features, window, stride, padding = shape
    images = normal(0, 6, height, width, channels)
    kernel = normal(1, window, window, channels, features)
    assert_same_value_and_gradients(
        lambda x, w: convolution.conv(x, w, stride, padding),
        lambda x, w: reference(x, w, stride, padding),
        images,
        kernel,
    )


@pytest.mark.parametrize("padding", [0, 1, 2])  # in dilations; 1 keeps the size
@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize(("size", "channels"), [((9, 9), (3, 5)), ((11, 14), (16, 17))])
def test_dilated_conv_equals_lax(channels, size, dilation, padding):
    images, kernel = normal(0, 2, *size, channels[0]), normal(1, 3, 3, *channels)
    padding = padding * dilation
    assert_same_value_and_gradients(
        lambda x, w: convolution.conv(x, w, 1, padding, dilation),
        lambda x, w: reference(x, w, 1, padding, dilation),
        images,
        kernel,
    )


@pytest.mark.parametrize(("stride", "padding"), [(2, 2), (1, 1)])
def test_dilation_with_a_stride_or_another_padding_is_refused(stride, padding):
    with pytest.raises(ValueError, match="give stride 1 and a padding that is a multiple of"):
        convolution.conv(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 3)), stride, padding, 2)


@pytest.mark.parametrize(
    ("size", "channels"), [(2, (5, 3)), (5, (5, 3)), (2, (16, 17)), (4, (32, 16)), (5, (16, 17))]
)
def test_conv_transpose_equals_lax_and_is_the_transpose_of_conv(size, channels):
    images, kernel = normal(0, 6, size, size, channels[0]), normal(1, 4, 4, *channels)
    assert_same_value_and_gradients(
        lambda x, w: convolution.conv_transpose(x, w, 2, 1),
        lambda x, w: convolution._lax_conv_transpose(x, w, 2, 1),
        images,
        kernel,
    )
    shape = jax.ShapeDtypeStruct((6, 2 * size, 2 * size, channels[1]), jnp.float32)
    forward = kernel.swapaxes(2, 3)
    transpose = jax.linear_transpose(lambda x: reference(x, forward, 2, 1), shape)
    expected = transpose(images)[0]
    out = convolution.conv_transpose(images, kernel, 2, 1)
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("channels", [3, 16])
def test_conv_under_vmap_and_in_a_loop(channels):
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, channels))
    each = jax.vmap(lambda image: convolution.conv(image[None], kernel, 2, 1)[0])(images)
    np.testing.assert_allclose(each, reference(images, kernel, 2, 1), rtol=2e-5, atol=2e-5)

    def descend(conv):
        gradient = jax.grad(lambda w: jnp.sum(conv(images, w, 1, 1) ** 2))
        return lax.fori_loop(0, 3, lambda _, w: w - 1e-5 * gradient(w), kernel)

    np.testing.assert_allclose(descend(convolution.conv), descend(reference), rtol=1e-4, atol=1e-5)


# Image side, C, F, window, stride of all convolutions of ResNet-18 and the VAE at 32 and 28 pixels.
IN_USE = [
    (32, 3, 64, 3, 1), (32, 64, 64, 3, 1), (28, 1, 64, 3, 1), (28, 64, 64, 3, 1),
    (32, 64, 128, 3, 2), (16, 128, 128, 3, 1), (7, 256, 256, 3, 1), (7, 256, 512, 3, 2),
    (32, 3, 128, 4, 2), (16, 128, 256, 4, 2), (8, 256, 512, 4, 2), (4, 512, 1024, 4, 2),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shape", IN_USE)
def test_no_less_accurate_than_lax_at_full_width(shape):
    """Against float64: our largest error is at most four times `lax`'s, a few float32 roundings."""
    side, channels, features, window, stride = shape
    random = np.random.default_rng(0)
    images = random.normal(size=(2, side, side, channels))
    kernel = random.normal(size=(window, window, channels, features))
    with jax.enable_x64(True):
        exact, pull = jax.vjp(lambda x, w: reference(x, w, stride, 1), images, kernel)
        gradient = random.normal(size=exact.shape)
        exact = [np.asarray(x) for x in (exact, *pull(jnp.asarray(gradient)))]

    def errors(function):
        value, pull = jax.vjp(function, jnp.float32(images), jnp.float32(kernel))
        results = (value, *pull(jnp.float32(gradient)))
        pairs = zip(results, exact, strict=True)
        return [np.abs(r - e).max() / np.abs(e).max() for r, e in pairs]

    ours = errors(lambda x, w: convolution.conv(x, w, stride, 1))
    theirs = errors(lambda x, w: reference(x, w, stride, 1))
    for our, their in zip(ours, theirs, strict=True):
        assert our <= max(4 * their, 1e-6)
        assert our < 1e-5


@pytest.mark.parametrize("most_bytes", [ALL_AT_ONCE, ONE_BY_ONE])
@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
@pytest.mark.parametrize(
    ("room", "native", "window", "stride"),
    [
        (winograd, False, 4, 2), (winograd, True, 4, 2), (winograd, True, 3, 1),
        (patches, False, 3, 1), (patches, True, 3, 2),
    ],
)  # fmt: skip
def test_bfloat16_sums_in_float32(room, native, window, stride, operation, most_bytes, monkeypatch):
    """bfloat16 has 8 bits: a rounding of factors and result (0.004 each), not one per addition.

    Winograd also rounds its tiles where products of bfloat16 are native.
    """
    monkeypatch.setattr(matrix, "_multiplies_bfloat16", lambda: native)
    for each in (winograd, patches):
        monkeypatch.setattr(each, "_CACHED_BYTES", most_bytes)
    forget()
    apply = {
        "conv": reference, "conv_transpose": convolution._lax_conv_transpose,
    }[operation]  # fmt: skip
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 256))
    kernel = jax.random.normal(jax.random.key(1), (window, window, 256, 16))
    images, kernel = images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    exact, exact_pull = jax.vjp(
        lambda x, w: apply(x, w, stride, 1), jnp.float32(images), jnp.float32(kernel)
    )
    ours = jax.jit(lambda x, w: getattr(room, operation)(x, w, stride, 1))
    value, pull = jax.vjp(ours, images, kernel)
    gradient = jax.random.normal(jax.random.key(2), value.shape).astype(jnp.bfloat16)
    results = zip(
        (value, *pull(gradient)), (exact, *exact_pull(jnp.float32(gradient))), strict=True
    )
    for result, expected in results:
        assert result.dtype == jnp.bfloat16
        error = jnp.abs(jnp.float32(result) - expected).max() / jnp.abs(expected).max()
        assert error < (0.012 if room is winograd and native else 0.005)


def test_gpu_and_tpu_get_lax_convolutions(monkeypatch):
    monkeypatch.setattr(convolution, "on_cpu", lambda: False)
    images, kernel = jnp.ones((2, 8, 8, 32)), jnp.ones((4, 4, 32, 32))
    text = str(jax.make_jaxpr(lambda x, w: convolution.conv(x, w, 2, 1))(images, kernel))
    assert "conv_general_dilated" in text
    assert "dot_general" not in text
    dilated = jax.make_jaxpr(lambda x, w: convolution.conv(x, w, 1, 2, 2))(images, kernel)
    assert "rhs_dilation=(2, 2)" in str(dilated)
    assert "reshape" not in str(dilated)


def by_lax(function, *arguments):
    return "conv_general_dilated" in str(jax.make_jaxpr(function)(*arguments))


def test_a_portable_program_has_lax_convolutions_and_takes_any_batch():
    kernel = jnp.ones((3, 3, 16, 16))

    @jax.jit
    def function(images):
        x = convolution.conv(images, kernel, 1, 1)
        x = convolution.conv(x, kernel, 1, 2, dilation=2)
        return convolution.conv_transpose(x, jnp.ones((4, 4, 16, 16)), 2, 1)

    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, 8, 8, 16), jnp.float32)
    with convolution.portable(True):
        exported = jax.export.export(function, platforms=("cpu", "cuda", "tpu"))(images)
    assert exported.out_avals[0].shape == (batch, 16, 16, 16)
    image = normal(0, 3, 8, 8, 16)
    expected = function(image)
    # Kernels of ones sum up to numbers that cancel: rounding is that of the largest.
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(exported.call(image), expected, rtol=1e-5, atol=atol)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere they are always lax")
def test_what_was_traced_before_is_not_taken_for_a_portable_program():
    images, kernel = normal(0, 2, 8, 8, 16), normal(1, 3, 3, 16, 16)
    inner = jax.jit(lambda x: convolution.conv(x, kernel, 1, 1))
    outer = jax.jit(lambda x: inner(x) + 1)
    before = outer(images)
    assert not by_lax(outer, images)
    with convolution.portable(True):
        assert by_lax(inner, images)
        assert by_lax(outer, images)
        np.testing.assert_allclose(outer(images), before, rtol=1e-4, atol=1e-4)
        assert by_lax(lambda x: inner(x), images)  # noqa: PLW0108
    assert not by_lax(inner, images)
    assert not by_lax(outer, images)
    np.testing.assert_array_equal(outer(images), before)


def test_portable_is_for_the_thread_that_asks_for_it():
    with convolution.portable(True), futures.ThreadPoolExecutor(1) as pool:
        assert convolution.portable.value
        assert not pool.submit(lambda: convolution.portable.value).result()
    assert not convolution.portable.value
