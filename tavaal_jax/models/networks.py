"""The networks for the task learner T, one row each.

Another one needs no change here: `NETWORKS["mine"] = Network(build)` in a config file or a script,
and `task.network = "mine"`. `tavaal_jax.check_network(row)` tries a row.
"""

import difflib
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from tavaal_jax.errors import UserError
from tavaal_jax.models import efficientnet, pretrained, vit, vit_weights
from tavaal_jax.models.drn import DRN
from tavaal_jax.models.efficientnet import EfficientNetLite
from tavaal_jax.models.layers import Dropout, TaskOutput
from tavaal_jax.models.linear import Linear
from tavaal_jax.models.mlp import MLP
from tavaal_jax.models.pretrained import Tensors, Tree
from tavaal_jax.models.resnet import ResNet
from tavaal_jax.models.vit import ViT


class TaskNetwork(Protocol):
    """Documents what the Flax module that `Network.build` returns must do.

    Its parameters are float32, in the collection `params`. Running statistics, such as BatchNorm's,
    are in `batch_stats`; no other collection is kept. In training they are those of the whole batch
    on all devices: give `axis_name` to BatchNorm. In evaluation the output for an image does not
    depend on the other images of the batch.

    An optional attribute `dropout: Dropout` with `place == "head"` promises a second method,
    `head(features, dropout_keys, size) -> logits`: all that follows `TaskOutput.features`, for
    images of `size`, `(H, W)`. Monte Carlo dropout then computes what comes before it only once.
    `drop_query` and `alfa_mix` need this method, with `dropout_keys` None.
    """

    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """Normalised images `[B, H, W, C]` or features `[B, F]` -> `TaskOutput`, logits float32.

        With `dropout_keys [B]`, one random key per image, units are dropped, be it training or
        evaluation (`layers.dropout`); with None none are. A network that drops nothing ignores them
        and cannot be used with `mc_dropout`.
        """


Build = Callable[[ConfigDict, int, tuple[int, ...], str | None], nn.Module]
"""`(config, classes, shape, axis_name) -> module`, see `Network.build`."""


def _nothing_wrong(config: ConfigDict, shape: tuple[int, ...]) -> str | None:
    """The `check` of a network that takes any config and any size."""
    del config, shape
    return None


class Published(NamedTuple):
    """How weights that others have trained get into a network, and the input they were made for.

    Arrays that `load` returns may be NumPy's.
    """

    load: Callable[[Tensors, Any, Tree, Tree], tuple[Tree, Tree]]
    """`(tensors by name, module, params, batch_stats) -> params, batch_stats`, head left as it is.

    Raises ValueError for a tensor that is missing, superfluous or of another shape.
    """
    size: int = 224
    """Side of the images, in pixels; a network that pools globally takes others, too."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Per channel, of images scaled to [0, 1]: torchvision's for ImageNet."""
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation per channel, of images scaled to [0, 1]."""
    patch: int = 1
    """The sides of images are multiples of it."""
    frozen: Callable[[Tensors, tuple[int, ...]], nn.Module] | None = None
    """`(tensors by name, (H, W, C)) -> module`, to use as a frozen backbone, with one class.

    None: the network's shape is the config's, so that it is no backbone.
    """
    revision: int = 1
    """To be counted up when the code changes so that a frozen backbone gives other features.

    Features that are cached, and models, are then those of another one.
    """


class Network(NamedTuple):
    """How a network for T is built, and what it can be trained on."""

    build: Build
    """`(config, classes, shape, axis_name) -> module`, which does what `TaskNetwork` documents.

    `shape` is that of an image, `(H, W, C)`, or of features, `(F,)`. `axis_name` names the devices
    that share a batch, for BatchNorm; None: there is one device.
    """
    inputs: tuple[Literal["images", "features"], ...] = ("images",)
    """What it takes."""
    maps: bool = False
    """Whether it gives logits of every pixel, for label maps; else of the image."""
    check: Callable[[ConfigDict, tuple[int, ...]], str | None] = _nothing_wrong
    """`(config, shape) -> the error line`, with its mend, or None: what else it asks for."""
    published: Published | None = None
    """For `task.pretrained`; None: there are no published weights."""
    solved: bool = False
    """Whether `build` gives a `Linear`, whose training is exact (`algorithm.logistic`): no steps,
    learning rate or epochs; those are the Ranker's and the adversary's alone."""

    def fits(self, shape: tuple[int, ...], has_maps: bool) -> bool:
        """Whether it can be trained on images or features of `shape`, labelled by maps or not."""
        kind = "features" if len(shape) == 1 else "images"
        return kind in self.inputs and self.maps == has_maps


def _resnet(
    config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None
) -> ResNet:
    del shape
    task = config.task
    return ResNet(
        classes, tuple(task.widths), tuple(task.blocks), axis_name, _dropout(config),
        jnp.dtype(config.dtype), task.stem,
    )  # fmt: skip


def _check_resnet(config: ConfigDict, shape: tuple[int, ...]) -> str | None:
    del shape
    widths, blocks = len(config.task.widths), len(config.task.blocks)
    if widths == blocks:
        return None
    return (
        f"task.widths has {widths} stages and task.blocks {blocks}:"
        " give as many of one as of the other"
    )


def _drn(config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None) -> DRN:
    del shape
    task = config.task
    return DRN(
        classes, tuple(task.widths), tuple(task.blocks), tuple(task.strides), axis_name,
        _dropout(config), jnp.dtype(config.dtype),
    )  # fmt: skip


def _check_drn(config: ConfigDict, shape: tuple[int, ...]) -> str | None:
    del shape
    widths, blocks = len(config.task.widths), len(config.task.blocks)
    if widths == blocks == 8:
        return None
    return (
        f"task.widths has {widths} levels and task.blocks {blocks}:"
        " give drn eight of both, of levels 1 to 8"
    )


def _mlp(config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None) -> MLP:
    del shape, axis_name
    return MLP(classes, tuple(config.task.widths), _dropout(config), jnp.dtype(config.dtype))


def _linear(
    config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None
) -> Linear:
    del axis_name
    return Linear(classes, shape[0], _dropout(config))


def _dropout(config: ConfigDict) -> Dropout:
    return Dropout(config.mc_dropout.place, config.mc_dropout.rate)


class _Common(TypedDict):
    """What networks of a fixed shape still take from a config."""

    axis_name: str | None
    dropout: Dropout
    dtype: DTypeLike


def _fixed(
    module: Callable[..., nn.Module], load: Callable[..., tuple[Tree, Tree]], **published: Any
) -> Network:
    """A network of which no key of `task` changes the shape: `module(classes, **common)`."""

    def build(
        config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None
    ) -> nn.Module:
        del shape
        common: _Common = {
            "axis_name": axis_name, "dropout": _dropout(config), "dtype": jnp.dtype(config.dtype),
        }  # fmt: skip
        return module(classes, **common)

    published = {"frozen": lambda tensors, shape: module(1), **published}
    return Network(build, published=Published(load, **published))


_RESNET = functools.partial(ResNet, widths=(64, 128, 256, 512), stem="imagenet")


def _vit(name: str, registers: int = 0) -> Network:
    module = functools.partial(ViT, size=vit.SIZES[name])

    def frozen(tensors: Tensors, shape: tuple[int, ...]) -> nn.Module:
        del shape
        return module(1, registers=registers or vit_weights.registers_of(tensors))

    def check(config: ConfigDict, shape: tuple[int, ...]) -> str | None:
        if not any(side % vit.PATCH for side in shape[:2]):
            return None
        return (
            f"task.network is {config.task.network!r} and images are {shape[1]} x {shape[0]}: give"
            f" sides that are multiples of {vit.PATCH}"
        )

    row = _fixed(
        functools.partial(module, registers=registers), vit_weights.load, patch=vit.PATCH,
        frozen=frozen,
    )  # fmt: skip
    return row._replace(check=check)


def _lite(size: int, width: float = 1.0, depth: float = 1.0) -> Network:
    module = functools.partial(EfficientNetLite, stages=efficientnet.scaled(width, depth))
    scale = {"mean": (127 / 255,) * 3, "deviation": (128 / 255,) * 3}  # (x - 127) / 128 of bytes
    return _fixed(module, pretrained.efficientnet, size=size, **scale)


NETWORKS: dict[str, Network] = {
    "resnet": Network(_resnet, check=_check_resnet, published=Published(pretrained.resnet)),
    "drn": Network(_drn, maps=True, check=_check_drn, published=Published(pretrained.drn)),
    "mlp": Network(_mlp, inputs=("features", "images")),
    "linear": Network(_linear, inputs=("features",), solved=True),
    "resnet18": _fixed(functools.partial(_RESNET, blocks=(2, 2, 2, 2)), pretrained.resnet),
    "resnet50": _fixed(
        functools.partial(_RESNET, blocks=(3, 4, 6, 3), bottleneck=True), pretrained.resnet
    ),
    "efficientnet_lite0": _lite(224),
    "efficientnet_lite1": _lite(240, depth=1.1),
    "efficientnet_lite2": _lite(260, width=1.1, depth=1.2),
    **{name: _vit(name) for name in vit.SIZES},
    **{f"{name}_registers": _vit(name, vit.REGISTERS) for name in vit.SIZES},
}
"""By the name that `task.network` gives."""

SHIPPED = tuple(NETWORKS.values())
"""Networks of this package; others are checked before anything is trained."""


def find(name: str) -> Network:
    """The row of a name; UserError, with the nearest name, where there is none."""
    if name in NETWORKS:
        return NETWORKS[name]
    near = difflib.get_close_matches(str(name), NETWORKS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(
        f"task.network is {name!r}{hint}: choose one of {', '.join(NETWORKS)}, or add it first,"
        f" tavaal_jax.NETWORKS[{name!r}] = tavaal_jax.Network(...)"
    )


def build_learner(
    config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None = None
) -> nn.Module:
    """T for `classes` classes and images or features of `shape`; see `TaskNetwork`."""
    return find(config.task.network).build(config, classes, shape, axis_name)
