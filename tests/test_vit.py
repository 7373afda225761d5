"""DINOv2's vision transformer: equal to timm and transformers, in all layouts, sizes and rules.

The references are `dinov2_tiny_*` of a folder that TAVAAL_JAX_FIXTURES names, made with timm 1.0.31
and transformers 5.24: width 32, two blocks, trained at 70 pixels. Without it the same network is
computed in NumPy, token by token, from weights under each library's names.
"""

import functools
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tavaal_jax
from tavaal_jax import config as configs
from tavaal_jax.errors import UserError
from tavaal_jax.models import NETWORKS, network_checks, vit, vit_weights
from tavaal_jax.models.vit import Size, ViT

TINY = Size(32, 2, 2)
FOLDER = os.environ.get("TAVAAL_JAX_FIXTURES")
LAYOUTS = ("timm", "timm_registers", "hf", "hf_registers")


@functools.cache
def fresh(registers, side, size=TINY):
    image = jnp.zeros((1, side, side, 3))
    init = functools.partial(ViT(1, size, registers).init, train=False)
    return jax.eval_shape(init, jax.random.key(0), image)["params"]


def filled(given, side, size=TINY):
    """The network and its parameters from a file."""
    network = ViT(1, size, vit_weights.registers_of(given))
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fresh(network.registers, side, size))
    return network, vit_weights.load(given, network, empty, {})[0]


def embedding(given, images, size=TINY):
    network, params = filled(given, images.shape[1], size)
    apply = jax.jit(functools.partial(network.apply, train=False))
    return np.asarray(apply({"params": params}, images).embedding)


@pytest.mark.skipif(not FOLDER, reason="TAVAAL_JAX_FIXTURES names no folder of references")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [56, 70, 98])
def test_features_are_those_of_other_libraries(layout, side):
    from safetensors import numpy as safetensors

    reference = np.load(pathlib.Path(FOLDER, "dinov2_tiny_reference.npz"))
    given = safetensors.load_file(pathlib.Path(FOLDER, f"dinov2_tiny_{layout}.safetensors"))
    found = embedding(given, reference[f"x{side}"])
    expected = reference[f"{layout}_{side}"][:, 0]
    print(f"{layout} at {side}: {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.skipif(not FOLDER, reason="TAVAAL_JAX_FIXTURES names no folder of references")
@pytest.mark.parametrize("rows", [7, 4])
def test_positions_are_facebooks(rows):
    from safetensors import numpy as safetensors

    reference = np.load(pathlib.Path(FOLDER, "dinov2_tiny_reference.npz"))
    given = safetensors.load_file(pathlib.Path(FOLDER, "dinov2_tiny_hf.safetensors"))
    table = given["embeddings.position_embeddings"][0, 1:].reshape(5, 5, 32)
    found = vit_weights.resampled(table, rows, rows, "facebook").reshape(rows**2, 32)
    print(f"{rows}: {np.abs(found - reference[f'facebook_positions_{rows}']).max():.1e}")
    np.testing.assert_allclose(found, reference[f"facebook_positions_{rows}"], atol=2e-6)


# Against NumPy


def layer_norm(x, weight, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight + bias


_erf = np.vectorize(math.erf)


def reference(given, images, heads, positions):
    """Embedding `[B, F]` from tensors of timm's names, and positions as `[g, g, F]`."""
    side, patch = images.shape[1], given["patch_embed.proj.weight"].shape[2]
    kernel = given["patch_embed.proj.weight"].astype(np.float64)
    linear = lambda x, n: x @ given[f"{n}.weight"].T.astype(float) + given[f"{n}.bias"]
    out = []
    for image in images:
        tokens = [given["cls_token"][0, 0], *given.get("reg_token", np.zeros((1, 0, 1)))[0]]
        for i in range(0, side, patch):
            for j in range(0, side, patch):
                window = image[i : i + patch, j : j + patch].transpose(2, 0, 1)
                token = np.tensordot(kernel, window, 3) + given["patch_embed.proj.bias"]
                tokens.append(token + positions[i // patch, j // patch])
        x = np.array(tokens, np.float64)
        for number in range(2):
            name = f"blocks.{number}"
            norm = lambda x, n: layer_norm(x, given[f"{n}.weight"], given[f"{n}.bias"])
            parts = np.split(linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv"), 3, -1)
            mixed = []
            for q, k, v in zip(*(np.split(part, heads, -1) for part in parts), strict=True):
                weights = np.exp(q @ k.T / np.sqrt(q.shape[1]))
                mixed.append(weights / weights.sum(-1, keepdims=True) @ v)
            mixed = linear(np.concatenate(mixed, -1), f"{name}.attn.proj")
            x = x + given[f"{name}.ls1.gamma"] * mixed
            hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
            if hidden.shape[1] == 4 * x.shape[1]:
                hidden = hidden * (1 + _erf(hidden / np.sqrt(2))) / 2
            else:
                gate, hidden = np.split(hidden, 2, -1)
                hidden = gate / (1 + np.exp(-gate)) * hidden
            x = x + given[f"{name}.ls2.gamma"] * linear(hidden, f"{name}.mlp.fc2")
        out.append(norm(x[0], "norm"))
    return np.array(out)


def tensors(size=TINY, registers=0, grid=3):
    """Of timm's names and shapes, as Facebook's but for two."""
    random = np.random.default_rng(0)
    f, inner = size.features, size.hidden
    shapes = {
        "cls_token": (1, 1, f), "pos_embed": (1, grid**2 + 1, f), "norm.weight": (f,),
        "norm.bias": (f,), "patch_embed.proj.weight": (f, 3, 14, 14), "patch_embed.proj.bias": (f,),
    }  # fmt: skip
    if registers:
        shapes["reg_token"] = (1, registers, f)
    for number in range(size.depth):
        layers = {
            "attn.qkv": (3 * f, f), "attn.proj": (f, f),
            "mlp.fc1": (inner * (2 if size.gated else 1), f), "mlp.fc2": (f, inner),
        }  # fmt: skip
        block = {f"{name}.weight": shape for name, shape in layers.items()}
        block |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
        vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma")
        block |= dict.fromkeys((*vectors, "ls2.gamma"), (f,))
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    scale = lambda shape: 0.5 if len(shape) < 2 else 1 / math.sqrt(math.prod(shape[1:]))
    return {
        name: (scale(shape) * random.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def facebooks(given):
    """With the names of Facebook's files."""
    swiglu = given["blocks.0.mlp.fc1.weight"].shape[0] != given["blocks.0.mlp.fc2.weight"].shape[1]
    names = {"reg_token": "register_tokens"}
    rename = lambda name: name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
    found = {names.get(n, rename(n) if swiglu else n): x for n, x in given.items()}
    return found | {"mask_token": np.ones((1, 32), np.float32)}


def transformers(given):
    """With the names of transformers' files."""
    swiglu = given["blocks.0.mlp.fc1.weight"].shape[0] != given["blocks.0.mlp.fc2.weight"].shape[1]
    pairs = {
        "pos_embed": "embeddings.position_embeddings", "reg_token": "embeddings.register_tokens",
        "cls_token": "embeddings.cls_token", "blocks.": "encoder.layer.", "attn.proj":
        "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma":
        "layer_scale2.lambda1", "patch_embed.proj": "embeddings.patch_embeddings.projection",
    }  # fmt: skip
    if swiglu:
        pairs |= {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
    found = {"embeddings.mask_token": np.ones((1, 32), np.float32)}
    for name, tensor in given.items():
        new = name
        for old, other in pairs.items():
            new = new.replace(old, other)
        new = f"layernorm.{new.removeprefix('norm.')}" if name.startswith("norm.") else new
        for part, one in (
            zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
            if ("attn.qkv" in name)
            else ()
        ):
            found[new.replace("attn.qkv", f"attention.attention.{part}")] = one
        if "attn.qkv" not in name:
            found[new] = tensor
    return found


KINDS = {
    "plain": (TINY, 0), "registers": (TINY, 4), "gated": (Size(32, 2, 2, gated=True), 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_a_plain_computation_whatever_the_names_are(kind):
    size, registers = KINDS[kind]
    given = tensors(size, registers)
    images = np.random.default_rng(1).standard_normal((2, 42, 42, 3)).astype(np.float32)
    table = given["pos_embed"][0]
    moved = {**given, "cls_token": given["cls_token"] + table[0]}
    expected = reference(moved, images, 2, table[1:].reshape(3, 3, 32))
    np.testing.assert_allclose(embedding(given, images, size), expected, atol=1e-5)
    params = filled(given, 42, size)[1]
    same = lambda other: jax.tree.map(
        np.testing.assert_array_equal, filled(other, 42, size)[1], params
    )
    same(facebooks(given))
    same(transformers(given))
    same({f"dinov2.{name}": x for name, x in transformers(given).items()})
    # timm's with registers has the class position in the class token.
    token = np.float32(given["cls_token"] + table[0])
    same({**given, "cls_token": token, "pos_embed": given["pos_embed"][:, 1:]})


@pytest.mark.parametrize("registers", [0, 4])
def test_each_library_resamples_positions_by_its_rule(registers):
    given = tensors(registers=registers)
    table = given["pos_embed"][0, 1:].reshape(3, 3, 32)
    for other, rule in (
        (given, "antialiased"),
        (facebooks(given), "antialiased" if registers else "facebook"),
        (transformers(given), "antialiased" if registers else "cubic"),
    ):
        found = filled(other, 70)[1]["positions"]
        np.testing.assert_array_equal(found, vit_weights.resampled(table, 5, 5, rule))


@pytest.mark.parametrize("rule", ["antialiased", "cubic", "facebook"])
def test_resampling_keeps_what_is_even_and_nearly_what_is_smooth(rule):
    even = np.full((5, 5, 2), 3.0, np.float32)
    for rows, columns in ((2, 5), (5, 5), (9, 3)):
        found = vit_weights.resampled(even, rows, columns, rule)
        np.testing.assert_allclose(found, np.full((rows, columns, 2), 3.0), rtol=1e-6)
    down = np.linspace(0, 1, 12, dtype=np.float32)[:, None, None] * np.ones((1, 12, 1), np.float32)
    fine = vit_weights.resampled(down, 24, 24, rule)
    assert np.all(np.diff(fine[2:-2, 0, 0]) > 0)


WRONG = {
    "missing": ("blocks.1.ls2.gamma", None, "blocks.1.ls2.gamma is missing: the network needs one"),
    "of another width": (
        "blocks.0.attn.qkv.weight", np.zeros((96, 16)),
        "blocks.0.attn.qkv.weight is [96, 16], and the network needs [96, 32]",
    ),
    "too deep": (
        "blocks.2.norm1.bias", np.zeros(32),
        "blocks.2.norm1.bias [32] has no place in the network",
    ),
    "without positions": (
        "pos_embed", None, "pos_embed is missing, and the network needs [1, n, 32], where n is a",
    ),
    "of oblong positions": ("pos_embed", np.zeros((1, 12, 32)), "pos_embed is [1, 12, 32], and"),
    "without a class": ("cls_token", None, "cls_token is missing: the network needs one of [1, 1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_file_is_named(fault):
    name, tensor, line = WRONG[fault]
    given = {n: x for n, x in {**tensors(), name: tensor}.items() if x is not None}
    with pytest.raises(ValueError, match=r"network needs|no place") as error:
        filled(given, 42)
    assert line in str(error.value)


def test_registers_need_a_network_that_has_them():
    given = tensors(registers=4)
    for network, message in (
        (ViT(1, TINY), r"reg_token \[1, 4, 32\] has no place"),
        (ViT(1, TINY, registers=8), r"reg_token is \[1, 4, 32\], and the network needs \[1, 8, 32"),
    ):
        with pytest.raises(ValueError, match=message):
            vit_weights.load(given, network, fresh(network.registers, 42), {})
    given = transformers(tensors())
    with pytest.raises(ValueError, match=r"embeddings.register_tokens is missing"):
        vit_weights.load(given, ViT(1, TINY, registers=4), fresh(4, 42), {})
    del given["encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(ValueError, match=r"layer.1.attention.attention.key.bias is missing"):
        filled(given, 42)


# As a network that is trained


@pytest.mark.parametrize("place", ["head", pytest.param("stages", marks=pytest.mark.slow)])
def test_it_does_what_a_task_network_has_to(place):
    build = lambda axis_name: ViT(
        4, Size(8, 4, 2), 1, axis_name, tavaal_jax.models.Dropout(place), patch=4
    )
    found = network_checks.check_shapes(build(None), (8, 12, 3), 4, maps=False)
    assert found.taps == ((2, 3, 8),) * 4
    assert (found.logits, found.embedding, found.drops) == ((4,), 8, True)
    network_checks.check_values(build, (8, 12, 3))


def test_rows_have_the_published_sizes():
    config = configs.default()
    # timm's, without the position of the class token, which is added to the token.
    for name, count in {"small": 22_056_192, "large": 304_367_616}.items():
        network = NETWORKS[f"dinov2_{name}"].build(config, 10, (518, 518, 3), None)
        init = functools.partial(network.init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 518, 518, 3)))
        found = sum(x.size for x in jax.tree.leaves(shapes["params"]))
        width = vit.SIZES[f"dinov2_{name}"].features
        assert found == count - width + 10 * (width + 1)


def test_a_row_asks_for_sides_that_patches_fill():
    config, row = configs.default(), NETWORKS["dinov2_small"]
    config.task.network = "dinov2_small"
    assert row.check(config, (224, 518, 3)) is None
    line = (
        "task.network is 'dinov2_small' and images are 100 x 224: give sides that are multiples"
        " of 14"
    )
    assert row.check(config, (224, 100, 3)) == line
    with pytest.raises(UserError, match=line):
        tavaal_jax.check_network(row, config, (224, 100, 3))
