"""Functions as ONNX files: ONNX Runtime gives what JAX gives, for any number of images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import lax

from tavaal_jax import models
from tavaal_jax.engine.onnx_writer import graph
from tavaal_jax.engine.onnx_writer.program import onnx_program
from tavaal_jax.errors import UserError
from tavaal_jax.models.efficientnet import EfficientNetLite, Stage
from tavaal_jax.models.linear import Linear
from tavaal_jax.models.vit import Size, ViT


def session(content):
    onnx.checker.check_model(content, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(content, images):
    (found,) = session(content).run(["probabilities"], {"images": images})
    return found


def operators(content):
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


def assert_equal(function, shape, dtype="float32", atol=1e-5):
    """Returns the file, after it gave the same as the function for 1 and for 3 inputs."""
    content = onnx_program(function, shape, dtype, {})
    given = np.random.default_rng(0).uniform(-2, 2, (3, *shape)).astype(np.float32)
    if dtype == "uint8":
        given = (60 * given + 128).astype(np.uint8)
    expected = np.asarray(function(given), np.float32)
    assert np.ptp(expected, axis=0).max() > 1e-3  # Inputs matter.
    for count in (1, 3):
        found = run(content, given[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count], atol=atol, rtol=1e-5, strict=True)
    return content


def filled(network, shape):
    """Variables of an untrained network whose every layer matters."""
    rng = np.random.default_rng(1)
    with models.portable(True):
        init = functools.partial(network.init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, *shape)))

    def values(path, one):
        if path[-1].key == "kernel":
            scale = (1.5 / np.prod(one.shape[:-1])) ** 0.5
            return rng.normal(0, scale, one.shape).astype(np.float32)
        low = 0.5 if path[-1].key in ("var", "scale") else -0.4
        return rng.uniform(low, low + 1, one.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(values, shapes)


def probabilities(network, shape):
    """A network from uint8 images to probabilities."""
    variables = filled(network, shape)

    @jax.jit
    def function(images):
        values = (images.astype(jnp.float32) - 120) / 60
        return jax.nn.softmax(network.apply(variables, values, train=False).logits / 8)

    return function


def case(network, shape, *marks):
    return pytest.param(network, shape, marks=marks, id=type(network).__name__)


RESNET = models.ResNet(4, (4, 6), (1, 1)), (9, 8, 3)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        case(*RESNET),
        case(EfficientNetLite(4, (Stage(2, 5, 2, 2, 8),), 12), (19, 16, 3)),
        case(ViT(4, Size(8, 2, 2, gated=True), 4, patch=4), (8, 12, 3)),
        case(Linear(4, 6), (6,)),
        case(models.MLP(4, (8, 8)), (5, 4, 1), pytest.mark.slow),
        case(ViT(4, Size(8, 2, 2), patch=4), (8, 12, 3), pytest.mark.slow),
        case(
            models.ResNet(4, (4, 6), (1, 1), stem="imagenet", bottleneck=True), (33, 32, 3),
            pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_networks(network, shape):
    content = assert_equal(probabilities(network, shape), shape, "uint8")
    assert "Einsum" not in operators(content)


@pytest.mark.slow
def test_a_network_of_maps():
    network = models.DRN(3, widths=(4, 4, 4, 4, 4, 6, 6, 4), blocks=(1,) * 8)
    shape = (18, 23, 3)
    content = assert_equal(probabilities(network, shape), shape, "uint8", atol=1e-4)
    # Those of a product of matrices along the rows and along the columns, beside two.
    assert operators(content).count("Transpose") <= 5


def test_maps_are_turned_once():
    network, shape = RESNET
    content = onnx_program(probabilities(network, shape), shape, "uint8", {})
    assert operators(content).count("Transpose") == 1


VECTOR = np.arange(1, 5, dtype=np.float32)
ROW = VECTOR[None, None] / 4 - 1
FUNCTIONS = {
    "numbers": lambda x: jnp.tanh(x) + jnp.exp(-jnp.abs(x)) * jnp.sqrt(1 + x**2) - x**3 / 7,
    "logarithms": lambda x: jnp.log(2.5 + x) + jnp.log1p(jnp.square(x)) + jnp.expm1(x / 3),
    "errors": lambda x: lax.erf(x) + lax.erfc(x) + lax.rsqrt(3 + x) + jax.nn.sigmoid(x),
    "waves": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.floor(x) - jnp.ceil(x) + jnp.sign(x),
    "activations": lambda x: jax.nn.gelu(x) + jax.nn.silu(x) + jax.nn.elu(x) + jax.nn.softplus(x),
    "limits": lambda x: jnp.clip(x, -1, 0.5) + jnp.maximum(x, 0) + jnp.minimum(0.25, x),
    "limits by arrays": lambda x: jnp.maximum(x, ROW) + jnp.minimum(x, -x),
    "comparisons": lambda x: jnp.where((x > 0) & (x != 1) | ~(x >= -1), x, 2 - x),
    "equal": lambda x: jnp.where((x == ROW) | (x <= 1) & ~(x < -1), x, ROW),
    "constants": lambda x: x * jnp.sum(jnp.exp(-VECTOR)) + jnp.arange(4.0)[None, None],
    "reductions": lambda x: x.sum((1, 2)) + x.max(2).min(1) + x.mean((2, 1)),
    "a mean over no axis": lambda x: x.mean(axis=()) + x.sum(axis=()),
    "no number of images": lambda x: jnp.ones((x.shape[0], 3)) * x[:, :1, 0],
    "shapes": lambda x: jnp.concatenate(
        [x.swapaxes(1, 2).reshape(-1, 12), jnp.broadcast_to(VECTOR, (x.shape[0], 4))], 1
    ),
    "parts": lambda x: x[:, 1, 1:] + x[:, :, -1] + lax.slice_in_dim(x, 0, 3, 2, 1)[:, 1, :3],
    "splits": lambda x: jnp.multiply(*jnp.split(x, 2, axis=2)),
    "rows": lambda x: sum(row * n for n, row in enumerate(x.swapaxes(0, 1))),
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3.0),
    "largest": lambda x: x.argmax(2).astype(jnp.float32)[:, :, None] + x,
    "places": lambda x: x * jax.nn.one_hot(jnp.array([0, 2]), 4)[1][None, None],
    "products": lambda x: jnp.einsum("bij,bkj,j->bik", x, x * 2, VECTOR),
    "sums of two axes": lambda x: jnp.einsum("bij,ijk->bk", x, np.ones((3, 4, 2), np.float32) / 9),
    "products of many axes": lambda x: jnp.einsum("bij,bkl->bijkl", x, x),
    "calls": jax.checkpoint(jax.jit(lambda x: jnp.sum(x * x, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    assert_equal(jax.jit(FUNCTIONS[name]), (3, 4))


def test_a_function_with_a_gradient_of_its_own():
    @jax.custom_vjp
    def double(x):
        return x * 2

    double.defvjp(lambda x: (double(x), None), lambda saved, gradient: (gradient,))
    assert_equal(double, (2,))


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups, rng):
    kernel = rng.normal(size=(3, 2, 4 // groups, 6)).astype(np.float32)

    def function(x):
        return lax.conv_general_dilated(
            x, kernel, (1, 2), ((2, 1), (0, 3)), rhs_dilation=(2, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    assert_equal(function, (7, 8, 4), atol=1e-4)


def test_bfloat16_is_float32():
    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)

    def function(x):
        return (x.astype(jnp.bfloat16) @ weights.astype(jnp.bfloat16)).astype(jnp.float32)

    images = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    found = run(onnx_program(function, (4,), "float32", {}), images)
    rounded = weights.astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_allclose(found, images @ rounded, atol=1e-5)
    np.testing.assert_allclose(found, function(images), atol=0.05)


def test_what_a_file_has_beside_its_operators():
    content = onnx_program(lambda x: x / 2, (4, 5), "float32", {"class_names": ("é", "b")})
    (given,), (found,) = session(content).get_inputs(), session(content).get_outputs()
    assert (given.name, given.shape, given.type) == ("images", ["b", 4, 5], "tensor(float)")
    assert (found.name, found.shape, found.type) == ("probabilities", ["b", 4, 5], "tensor(float)")
    facts = session(content).get_modelmeta().custom_metadata_map
    assert facts == {"class_names": '["\\u00e9", "b"]'}
    model = onnx.load_model_from_string(content)
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)


def test_what_the_outputs_do_not_need_is_left_out():
    content = onnx_program(lambda x: (jnp.sort(x), x + 1)[1], (4,), "float32", {})
    assert operators(content) == ["Add", "Identity"]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (jnp.sort, "the network has sort, a primitive of JAX's, which cannot be written as ONNX"),
        (lambda x: lax.scan(lambda c, y: (c + y, None), x[:, 0], x.T)[0], "the network has scan"),
        (lambda x: x[1:], "a part of the images"),
        (lambda x: jnp.arange(x.shape[0]), "numbers up to b"),
        (
            lambda x: jnp.asarray(VECTOR).at[x.astype(int)].get(mode="promise_in_bounds"),
            "a gather by more than one index",
        ),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1))), "negative or interior padding"),
    ],
)
def test_what_is_not_known_is_named(function, why):
    with pytest.raises(UserError, match=why):
        onnx_program(function, (4,), "float32", {})


def test_a_file_of_more_than_two_gigabytes_is_refused(monkeypatch):
    monkeypatch.setattr(graph, "_LIMIT", 10**6)
    weights = np.ones((4, 10**5), np.float32)
    with pytest.raises(UserError, match=r"0\.0 GB of weights, and an ONNX file holds 2 GB"):
        onnx_program(lambda x: x @ weights, (4,), "float32", {})
