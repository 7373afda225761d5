"""Published weights of DINOv2 in our vision transformer, by the names of three libraries.

Files differ in their names and in how their table of positions, one for each patch of the images
of the training, is made one of another size. Three rules are in use; features differ by up to 0.8
where one is taken for another.
"""

import math
import re
from typing import Literal, cast

import numpy as np

from tavaal_jax.models.pretrained import LEAVES, Names, Tensors, Tree, filled, fitting
from tavaal_jax.models.vit import ViT

Layout = Literal["timm", "facebook", "transformers"]
Rule = Literal["antialiased", "cubic", "facebook"]
"""How positions are resampled: Keys' cubic kernel in all of them.

"antialiased": a = -0.5, stretched where the table shrinks. "cubic": a = -0.75, as it is.
"facebook": likewise, for a table that is a tenth of a row larger.
"""
_SPECIAL: dict[Layout, tuple[str, str, str]] = {
    "timm": ("cls_token", "pos_embed", "reg_token"),
    "facebook": ("cls_token", "pos_embed", "register_tokens"),
    "transformers": (
        "embeddings.cls_token", "embeddings.position_embeddings", "embeddings.register_tokens",
    ),
}  # fmt: skip
"""Names of class token, positions and registers."""
_MASK_TOKENS = ("mask_token", "embeddings.mask_token")


def load(tensors: Tensors, network: ViT, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Put a file's values into the `params` of a ViT: `-> params, batch_stats`.

    The last layer stays as it is. Raises ValueError for the first tensor that is missing, too much
    or does not fit. A file is Facebook's where it has their `mask_token`, which timm's lack.
    """
    given = _body(tensors)
    layout = layout_of(given)
    token_name, table_name, registers_name = _SPECIAL[layout]
    special, size = {token_name, table_name, *_MASK_TOKENS}, network.size
    token = fitting(given, token_name, "token", (1, 1, size.features))[0]
    patches, offset = _table(given, table_name, size.features)
    registers = {}
    if network.registers:
        shape = (1, network.registers, size.features)
        registers["registers"] = fitting(given, registers_name, "token", shape)[0]
        special.add(registers_name)
    rest = {n: x for n, x in given.items() if n not in special}
    if layout == "transformers":
        rest = _joined(rest, size.depth, size.features)
    leaves = LEAVES | {"gamma": "lambda1" if layout == "transformers" else "gamma"}
    names = _names(layout, size.depth, size.gated)
    params, stats = filled(rest, names, params, stats, leaves)
    rows, columns = np.shape(cast(np.ndarray, params["positions"]))[:2]
    positions = resampled(patches, rows, columns, rule_of(layout, bool(network.registers)))
    return {**params, **registers, "class_token": token + offset, "positions": positions}, stats


def registers_of(tensors: Tensors) -> int:
    """How many registers a file has."""
    given = _body(tensors)
    name = _SPECIAL[layout_of(given)][2]
    return given[name].shape[1] if name in given and given[name].ndim > 1 else 0


def layout_of(given: Tensors) -> Layout:
    """The library whose names a file of weights has."""
    if "embeddings.cls_token" in given:
        return "transformers"
    return "facebook" if {"mask_token", "register_tokens"} & set(given) else "timm"


def rule_of(layout: Layout, has_registers: bool) -> Rule:
    """How the library that wrote a file resamples its positions."""
    if layout == "timm" or has_registers:
        return "antialiased"
    return "facebook" if layout == "facebook" else "cubic"


def _body(tensors: Tensors) -> dict[str, np.ndarray]:
    """A file's tensors without prefixes and last layers."""
    found = {}
    for name, tensor in tensors.items():
        plain = re.sub(r"^(module\.|dinov2\.|dinov2_with_registers\.)+", "", name)
        if plain.partition(".")[0] not in ("head", "classifier"):
            found[plain] = np.asarray(tensor)
    return found


def _table(given: Tensors, name: str, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the patches `[g, g, F]`, and what is added to the class token, `[F]`."""
    shape = given[name].shape if name in given else ()
    count = shape[1] if len(shape) == 3 else 0
    side = math.isqrt(count)
    extra = count - side**2  # 1: the first is the class token's
    if side < 1 or extra > 1 or shape != (1, count, features):
        found = list(shape) if name in given else "missing"
        raise ValueError(
            f"{name} is {found}, and the network needs [1, n, {features}], where n is a square or"
            " one more"
        )
    positions = given[name][0].astype(np.float32)
    offset = positions[0] if extra else np.zeros(features, np.float32)
    return positions[extra:].reshape(side, side, features), offset


def _names(layout: Layout, depth: int, gated: bool) -> Names:
    """The file's names of layers."""
    hf = layout == "transformers"
    names: Names = {("patches",): "patch_embed.proj", ("norm",): "norm"}
    block, attention, scale = "blocks", ("attn.qkv", "attn.proj"), "ls"
    mlp = ("w12", "w3") if gated and layout == "facebook" else ("fc1", "fc2")
    if hf:
        names = {("patches",): "embeddings.patch_embeddings.projection", ("norm",): "layernorm"}
        block, attention = "encoder.layer", ("attention.attention.qkv", "attention.output.dense")
        scale = "layer_scale"
        mlp = ("weights_in", "weights_out") if gated else mlp
    parts = {
        "norm1": "norm1", "norm2": "norm2", "scale1": f"{scale}1", "scale2": f"{scale}2",
        "qkv": attention[0], "proj": attention[1], "fc1": f"mlp.{mlp[0]}", "fc2": f"mlp.{mlp[1]}",
    }  # fmt: skip
    return names | {
        (f"block{number}", ours): f"{block}.{number}.{theirs}"
        for number in range(depth)
        for ours, theirs in parts.items()
    }


def _joined(given: Tensors, depth: int, features: int) -> dict[str, np.ndarray]:
    """A file of transformers' with query, key and value as one layer, as the others have them."""
    given = dict(given)
    for number in range(depth):
        place = f"encoder.layer.{number}.attention.attention"
        for kind, shape in (("weight", (features, features)), ("bias", (features,))):
            names = [f"{place}.{part}.{kind}" for part in ("query", "key", "value")]
            parts = [fitting(given, name, "as it is", shape) for name in names]
            for name in names:
                del given[name]
            given[f"{place}.qkv.{kind}"] = np.concatenate(parts)
    return given


def resampled(positions: np.ndarray, rows: int, columns: int, rule: Rule) -> np.ndarray:
    """Table of positions for other images: `[g, h, F] -> [rows, columns, F]`."""
    if positions.shape[:2] == (rows, columns):
        return positions
    down, across = (
        _weights(old, new, rule)
        for old, new in zip(positions.shape[:2], (rows, columns), strict=True)
    )
    out = np.einsum("yh,hwf,xw->yxf", down, positions, across, optimize=True)
    return out.astype(np.float32)


def _weights(old: int, new: int, rule: Rule) -> np.ndarray:
    """Weight of each of `old` positions in each new one: `[new, old]`."""
    scale = old / (new + 0.1) if rule == "facebook" else old / new
    weights = np.zeros((new, old))
    for row, centre in enumerate((np.arange(new) + 0.5) * scale):
        if rule == "antialiased":
            stretch = max(scale, 1.0)
            first = max(int(centre - 2 * stretch + 0.5), 0)
            last = min(int(centre + 2 * stretch + 0.5), old)
            near = _cubic((np.arange(first, last) + 0.5 - centre) / stretch, -0.5)
            weights[row, first:last] = near / near.sum()
        else:
            base = int(np.floor(centre - 0.5))
            for place in range(base - 1, base + 3):  # Beyond the edge is the edge's.
                weights[row, np.clip(place, 0, old - 1)] += _cubic(centre - 0.5 - place, -0.75)
    return weights


def _cubic(x: np.ndarray | float, a: float) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
