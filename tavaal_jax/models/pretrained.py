"""Published weights in our networks: PyTorch's tensors, by name, to parameters and statistics.

Names are torchvision's of ResNet and fyu/drn's of DRN, whose files come in two kinds: of ImageNet
(`layer3.0.conv1.weight`) and of Cityscapes (`base.3.0.conv1.weight`). Nothing is read here.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from tavaal_jax.models.drn import DRN, RESIDUAL
from tavaal_jax.models.resnet import ResNet

Tensors = Mapping[str, np.ndarray]
"""A file's tensors by name; a prefix `module.`, as DataParallel writes it, does not matter."""
Tree = dict[str, "Tree | jax.Array"]
"""Parameters or statistics of a network: arrays in nested dictionaries."""
Names = dict[tuple[str, ...], str]
"""The file's name of a layer, by the layer's path in our tree."""

# Our name of a layer's array -> the file's.
_LEAVES = {
    "kernel": "weight", "scale": "weight", "bias": "bias",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip


def resnet(tensors: Tensors, network: ResNet, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Put a file's values into `params, stats` of a ResNet: `-> params, batch_stats`.

    The last layer stays as it is in `params`, for whatever classes the file's is. Raises ValueError
    for the first tensor that is missing, too much or does not fit.
    """
    names: Names = {("Conv_0",): "conv1", ("BatchNorm_0",): "bn1"}
    stages = enumerate(network.blocks, 1)
    places = [f"layer{stage}.{block}" for stage, blocks in stages for block in range(blocks)]
    for number, theirs in enumerate(places):
        names |= _basic_block(f"BasicBlock_{number}", theirs)
    return _filled(_body(tensors), names, params, stats)


def drn(tensors: Tensors, network: DRN, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Put a file's values into `params, stats` of a DRN; see `resnet`."""
    names: Names = {}
    for level, blocks in enumerate((1, *network.blocks)):
        for block in range(blocks):
            ours = f"levels_{level}_{block}"
            if level in RESIDUAL:
                names |= _basic_block(ours, f"layer{level}.{block}")
            else:  # Each has a convolution, a BatchNorm and a ReLU there.
                names[ours, "Conv_0"] = f"layer{level}.{3 * block}"
                names[ours, "BatchNorm_0"] = f"layer{level}.{3 * block + 1}"
    return _filled(_body(tensors), names, params, stats)


def _basic_block(ours: str, theirs: str) -> Names:
    """Names of a block's layers; the shortcut's two only count where our tree has them."""
    layers = ("conv1", "conv2", "downsample.0"), ("bn1", "bn2", "downsample.1")
    return {
        (ours, f"{kind}_{number}"): f"{theirs}.{layer}"
        for kind, names in zip(("Conv", "BatchNorm"), layers, strict=True)
        for number, layer in enumerate(names)
    }


_HEADS = ("fc", "seg", "up")
"""The last layers: for images, for pixels, and the fixed one that enlarges these."""


def _body(tensors: Tensors) -> dict[str, np.ndarray]:
    """A file's tensors without prefixes, last layers and counters of batches."""
    found = {}
    for name, tensor in tensors.items():
        plain = re.sub(r"^base\.(\d+)\.", r"layer\1.", name.removeprefix("module."))
        if plain.partition(".")[0] not in _HEADS and not plain.endswith(".num_batches_tracked"):
            found[plain] = np.asarray(tensor)
    return found


def _filled(
    given: dict[str, np.ndarray], names: Names, params: Tree, stats: Tree
) -> tuple[Tree, Tree]:
    """Our trees with the `given` values, all of which have to be used."""
    trees = [traverse_util.flatten_dict(tree) for tree in (params, stats)]
    used = set()
    for tree in trees:
        for path, leaf in tree.items():
            *layer, kind = path
            if tuple(layer) in names:
                name = f"{names[tuple(layer)]}.{_LEAVES[kind]}"
                tree[path] = _fitting(given, name, kind, leaf.shape)
                used.add(name)
    for name, tensor in given.items():
        if name not in used:
            raise ValueError(
                f"{name} {list(tensor.shape)} has no place in the network: give the weights of"
                " one with the same blocks"
            )
    params, stats = (traverse_util.unflatten_dict(tree) for tree in trees)
    return params, stats


def _fitting(
    given: dict[str, np.ndarray], name: str, kind: str, shape: tuple[int, ...]
) -> jax.Array:
    """The tensor `name` in our layout, `shape`; a file's kernels are `[F, C, k, k]` or `[F, C]`."""
    theirs = (shape[-1], shape[-2], *shape[:-2]) if kind == "kernel" else shape
    if name not in given:
        raise ValueError(f"{name} is missing: the network needs one of {list(theirs)}")
    tensor = given[name]
    if tensor.shape != theirs:
        raise ValueError(f"{name} is {list(tensor.shape)}, and the network needs {list(theirs)}")
    if kind == "kernel":
        tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
    return jnp.asarray(tensor, jnp.float32)
