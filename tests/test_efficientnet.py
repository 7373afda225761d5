"""EfficientNet-Lite: depthwise convolution as `lax` has it, the network as a plain computation.

That the published weights give the published features is in test_backbones.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tavaal_jax import config as configs
from tavaal_jax.models import NETWORKS, Dropout, efficientnet, network_checks, pretrained
from tavaal_jax.models.efficientnet import EfficientNetLite, Stage
from tavaal_jax.ops import convolution, depthwise

TINY = (Stage(1, 3, 1, 1, 4), Stage(2, 3, 2, 3, 6), Stage(1, 5, 2, 2, 5), Stage(1, 5, 1, 2, 7))
WIDTH = 9  # of the last convolution


def net(**changes):
    return EfficientNetLite(3, TINY, WIDTH, **changes)


# height, width, window, stride
SHAPES = [(7, 10, 3, 1), (7, 8, 3, 2), (8, 7, 5, 2), (2, 1, 5, 2)]


def value_and_gradients(function):
    def both(images, kernel):
        value, pull = jax.vjp(function, images, kernel)
        return value, *pull(value)

    return both


@pytest.mark.parametrize("shape", SHAPES)
def test_depthwise_is_laxs_and_so_are_its_gradients(shape, rng):
    height, width, window, stride = shape
    images = jnp.asarray(rng.standard_normal((2, height, width, 6)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((window, window, 1, 6)), jnp.float32)

    def reference(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (stride, stride), "SAME", feature_group_count=6,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    ours = lambda images, kernel: depthwise.conv(images, kernel, stride)
    expected, *gradients = jax.jit(value_and_gradients(reference))(images, kernel)
    found, *others = jax.jit(value_and_gradients(ours))(images, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for x, y in zip(others, gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
    with convolution.portable(True):
        elsewhere = jax.jit(lambda x, y: depthwise.conv(x, y, stride))
        assert "feature_group_count = 6" in elsewhere.lower(images, kernel).as_text()
        np.testing.assert_allclose(elsewhere(images, kernel), expected, atol=1e-5)
    half = jax.eval_shape(ours, images.astype(jnp.bfloat16), kernel)
    assert half.dtype == jnp.bfloat16


# The network in NumPy, from a file's tensors


def tensors(network=None, names="package"):
    """A file of the tiny network's, under the names of the packages on PyPI or timm's."""
    network = network or net()
    random = np.random.default_rng(0)
    found = {}

    def layer(name, norm, shape):
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        found[f"{name}.weight"] = (scale * random.standard_normal(shape)).astype(np.float32)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            low, high = (0.5, 1.5) if kind in ("weight", "running_var") else (-0.5, 0.5)
            found[f"{norm}.{kind}"] = random.uniform(low, high, shape[0]).astype(np.float32)
        found[f"{norm}.num_batches_tracked"] = np.array(3)

    package = names == "package"
    layer(*(("_conv_stem", "_bn0") if package else ("conv_stem", "bn1")), (32, 3, 3, 3))
    channels, number = 32, 0
    for place, stage in enumerate(network.stages):
        for block in range(stage.repeats):
            inner, expands = stage.expansion * channels, stage.expansion > 1
            window = (inner, 1, stage.window, stage.window)
            name = f"_blocks.{number}" if package else f"blocks.{place}.{block}"
            first = 1 if package or expands else 0
            if expands:
                theirs = ("_expand_conv", "_bn0") if package else ("conv_pw", "bn1")
                layer(*(f"{name}.{n}" for n in theirs), (inner, channels, 1, 1))
            theirs = ("_depthwise_conv", "_bn1") if package else ("conv_dw", f"bn{1 + first}")
            layer(*(f"{name}.{n}" for n in theirs), window)
            last = "conv_pwl" if expands else "conv_pw"
            theirs = ("_project_conv", "_bn2") if package else (last, f"bn{2 + first}")
            layer(*(f"{name}.{n}" for n in theirs), (stage.features, inner, 1, 1))
            channels, number = stage.features, number + 1
    last = ("_conv_head", "_bn1") if package else ("conv_head", "bn2")
    layer(*last, (network.features, channels, 1, 1))
    head = "_fc" if package else "classifier"
    found[f"{head}.weight"] = np.ones((1000, network.features), np.float32)
    found[f"{head}.bias"] = np.ones(1000, np.float32)
    return found


def convolved(x, kernel, stride, padding):
    """`[H, W, C], [F, C, k, k] -> [H', W', F]`, window by window."""
    window = kernel.shape[2]
    x = np.pad(x, (*padding, (0, 0)))
    rows, columns = ((n - window) // stride + 1 for n in x.shape[:2])
    out = np.zeros((rows, columns, len(kernel)))
    for i in range(rows):
        for j in range(columns):
            part = x[i * stride : i * stride + window, j * stride : j * stride + window]
            if kernel.shape[1] == 1 and x.shape[2] > 1:
                out[i, j] = np.einsum("ijc,cij->c", part, kernel[:, 0])
            else:
                out[i, j] = np.einsum("ijc,fcij->f", part, kernel)
    return out


def plain(given, image):
    """The embedding of one image, from tensors of the packages' names."""

    def layer(x, name, norm, stride=1, relu=True):
        kernel = given[f"{name}.weight"].astype(np.float64)
        pads = []
        for n in x.shape[:2]:
            total = max((-(-n // stride) - 1) * stride + kernel.shape[2] - n, 0)
            pads.append((total // 2, total - total // 2))
        scale, bias, mean, variance = (
            given[f"{norm}.{kind}"] for kind in ("weight", "bias", "running_mean", "running_var")
        )
        x = (convolved(x, kernel, stride, pads) - mean) / np.sqrt(variance + 1e-3) * scale + bias
        return np.clip(x, 0, 6) if relu else x

    x, number = layer(image, "_conv_stem", "_bn0", 2), 0
    for stage in TINY:
        for block in range(stage.repeats):
            name, y = f"_blocks.{number}", x
            stride = stage.stride if block == 0 else 1
            if stage.expansion > 1:
                y = layer(y, f"{name}._expand_conv", f"{name}._bn0")
            y = layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride)
            y = layer(y, f"{name}._project_conv", f"{name}._bn2", relu=False)
            x = x + y if stride == 1 and x.shape[2] == stage.features else y
            number += 1
    return layer(x, "_conv_head", "_bn1").mean((0, 1))


def filled(given, **changes):
    network, image = net(**changes), jnp.zeros((1, 16, 16, 3))
    init = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), image)
    empty = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), shapes)
    params, stats = pretrained.efficientnet(given, network, empty["params"], empty["batch_stats"])
    return network, {"params": params, "batch_stats": stats}


@pytest.mark.parametrize("names", ["package", "timm"])
def test_features_are_those_of_a_plain_computation(names):
    images = np.random.default_rng(1).standard_normal((2, 19, 24, 3)).astype(np.float32)
    network, variables = filled(tensors(names=names))
    found = jax.jit(functools.partial(network.apply, train=False))(variables, images)
    expected = [plain(tensors(), image) for image in images]
    np.testing.assert_allclose(found.embedding, expected, atol=1e-5)
    kernel = variables["params"]["Dense_0"]["kernel"]
    assert np.all(np.asarray(kernel) == 0.5)  # fresh, not the file's


@pytest.mark.parametrize("names", ["package", "timm"])
def test_a_wrong_file_is_named(names):
    given = tensors(names=names)
    name = next(n for n in given if "depthwise" in n or "conv_dw" in n)
    for change, line in (
        (None, f"{name} is missing: the network needs one of [32, 1, 3, 3]"),
        (np.zeros((32, 1, 5, 5)), f"{name} is [32, 1, 5, 5], and the network needs [32, 1, 3, 3]"),
    ):
        wrong = {n: x for n, x in {**given, name: change}.items() if x is not None}
        with pytest.raises(ValueError, match="the network needs") as error:
            filled(wrong)
        assert line in str(error.value)
    prefix = "_blocks.5" if names == "package" else "blocks.4.0"
    with pytest.raises(ValueError, match=r"bn1.bias \[7\] has no place in the network"):
        filled({**given, f"{prefix}.bn1.bias": np.zeros(7)})


@pytest.mark.parametrize("place", ["head", pytest.param("stages", marks=pytest.mark.slow)])
def test_it_does_what_a_task_network_has_to(place):
    build = lambda axis_name: net(axis_name=axis_name, dropout=Dropout(place))
    found = network_checks.check_shapes(build(None), (16, 12, 3), 3, maps=False)
    assert found.taps == ((8, 6, 4), (4, 3, 6), (2, 2, 7))
    assert (found.embedding, found.drops) == (WIDTH, True)
    network_checks.check_values(build, (16, 12, 3))


def test_rows_have_the_published_sizes():
    # Of the packages on PyPI, with their 1,000 classes.
    parameters = {"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072}
    config = configs.default()
    for name, count in parameters.items():
        network = NETWORKS[f"efficientnet_{name}"].build(config, 1000, (224, 224, 3), None)
        init = functools.partial(network.init, train=False)
        with convolution.portable(True):
            shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count
    assert efficientnet.scaled(1.0, 1.0) == efficientnet.STAGES
