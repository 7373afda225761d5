"""Published weights, by upstream's names, in our networks: equal to PyTorch's, and what is refused.

`pretrained.npz` is written by `torch_models.py`, from weights that `drawn.py` draws on both sides.
"""

import functools
import pathlib

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tavaal_jax.models import DRN, ResNet, pretrained

GOLDEN = np.load(pathlib.Path(__file__).with_name("pretrained.npz"))
SIZES = {"resnet": (3, 75, 90, 3), "drn": (2, 76, 101, 3)}
CONVERT = {"resnet": pretrained.resnet, "drn": pretrained.drn}


def network(name, classes=None):
    if name == "drn":
        return DRN(classes or 19)
    return ResNet(classes or 10, (64, 128, 256, 512), (2, 2, 2, 2), stem="imagenet")


@functools.cache
def tensors(name):
    """A file with the names and shapes that PyTorch has."""
    names, shapes = GOLDEN[f"{name}.names"], GOLDEN[f"{name}.shapes"]
    read = lambda text: tuple(int(n) for n in text.split(",") if n)
    return {
        str(n): drawn.tensor(str(n), read(shape)) for n, shape in zip(names, shapes, strict=True)
    }


@functools.cache
def fresh(name, classes=None):
    """Parameters and statistics before any file, all of one value."""
    images = drawn.images(1, *SIZES[name][1:])
    init = lambda key: network(name, classes).init(key, images, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0))
    variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), shapes)
    return variables["params"], variables["batch_stats"]


def converted(name, given, classes=None):
    return CONVERT[name](given, network(name, classes), *fresh(name, classes))


LAST = {"resnet": ("Dense_0", "fc"), "drn": ("last", "seg")}


def with_head(name, params):
    """With the file's last layer, too, which a study leaves fresh."""
    (ours, theirs), given = LAST[name], tensors(name)
    kernel = np.moveaxis(given[f"{theirs}.weight"], (0, 1), (-1, -2))
    return {**params, ours: {"kernel": kernel, "bias": given[f"{theirs}.bias"]}}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("mode", ["evaluation", pytest.param("training", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["resnet", "drn"])
def test_logits_are_pytorchs(name, mode):
    params, stats = converted(name, tensors(name))
    assert jax.tree.structure((params, stats)) == jax.tree.structure(fresh(name))

    @jax.jit
    def logits(variables, images):
        train = mode == "training"
        apply = functools.partial(network(name).apply, variables, images, train=train)
        return apply(mutable=["batch_stats"])[0].logits

    variables = {"params": with_head(name, params), "batch_stats": stats}
    found = logits(variables, drawn.images(*SIZES[name]))
    expected = GOLDEN[f"{name}.{mode}"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(drawn.some(np.asarray(found)), expected, atol=1e-5 * scale)


def test_files_of_all_kinds_are_one():
    of_cityscapes = tensors("drn")
    params, stats = converted("drn", of_cityscapes)
    same(converted("drn", {f"module.{n}": x for n, x in of_cityscapes.items()}), (params, stats))
    old = {n: x for n, x in of_cityscapes.items() if "num_batches" not in n and n != "up.weight"}
    same(converted("drn", old), (params, stats))
    of_imagenet = {f"layer{n.removeprefix('base.')}": x for n, x in old.items() if "base" in n}
    of_imagenet |= {"fc.weight": np.zeros((19, 512, 1, 1)), "fc.bias": np.zeros(19)}
    same(converted("drn", of_imagenet), (params, stats))


@pytest.mark.parametrize("name", ["resnet", "drn"])
def test_the_last_layer_is_fresh_for_as_many_classes_and_for_others(name):
    last, params = LAST[name][0], converted(name, tensors(name))[0]
    same(params[last], fresh(name)[0][last])
    others, stats = converted(name, tensors(name), classes=7)
    same(stats, converted(name, tensors(name))[1])
    same(others, {**params, last: fresh(name, 7)[0][last]})
    without = {n: x for n, x in tensors(name).items() if not n.startswith(("fc", "seg"))}
    same(converted(name, without)[0], params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.0.downsample.1.running_var": None},
         "layer2.0.downsample.1.running_var is missing: the network needs one of [128]"),
        ({"conv1.weight": np.zeros((64, 3, 3, 3))},
         "conv1.weight is [64, 3, 3, 3], and the network needs [64, 3, 7, 7]"),
        ({"layer1.2.conv1.weight": np.zeros((64, 64, 3, 3))},
         "layer1.2.conv1.weight [64, 64, 3, 3] has no place in the network"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change, message):
    given = {n: x for n, x in {**tensors("resnet"), **change}.items() if x is not None}
    with pytest.raises(ValueError, match="network") as error:
        converted("resnet", given)
    assert message in str(error.value)
