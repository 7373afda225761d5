"""Trained models, as people use them: T, and R where there is one, without optimisers."""

import dataclasses
import importlib.util
import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from tavaal_jax import config as configs
from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm import problems
from tavaal_jax.algorithm.learner import Learner, LearnerOutput
from tavaal_jax.algorithm.state import LearnerState, LoopState
from tavaal_jax.data import Dataset, arrays
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.engine import embedding
from tavaal_jax.engine.embedding import Embedder
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.models.networks import NETWORKS, SHIPPED
from tavaal_jax.renamed_keys import present_record
from tavaal_jax.report import files
from tavaal_jax.study import features
from tavaal_jax.study.model_input import BackboneRecord, Decoding
from tavaal_jax.study.setup import Setup

EXPORTED = ("predict.jaxexport", "features.jaxexport", "model.onnx", "README.txt")
"""Files that `export` adds to a model's folder."""


class DatasetInfo(NamedTuple):
    """Facts on a training set that a model and its records keep."""

    ids: np.ndarray
    """Ids of the images, str `[N]`."""
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    """Shape of an image, `(H, W, C)`, or of features, `(F,)`."""
    dtype: str
    """Type of stored images."""

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "DatasetInfo":
        """Facts on `dataset`."""
        dtype = "uint8" if dataset.train_images.dtype == np.uint8 else "float32"
        return cls(dataset.train_ids, dataset.class_names, dataset.shape, dtype)


@dataclasses.dataclass(frozen=True)
class Model:
    """Trained task learner T, with the Ranker R where its method has one."""

    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    """Shape of an image, `(H, W, C)` in the training images' units, or of features, `(F,)`."""
    method: str
    labelled: int
    """Number of labels that it was trained with."""
    learner: Learner
    state: LearnerState
    normalise: Normaliser
    batch_size: int
    dtype: str
    """Type of the training images: "uint8", or "float32" for features."""
    config: dict[str, Any]
    """The training's config, plain, without the keys that name folders of a machine."""
    photos: Decoding | None = None
    """Decoding of its images, where they were photos."""
    backbone: BackboneRecord | None = None
    """What makes its features of images; it then takes images, too, uint8 `[n, H, W, C]`."""
    folder: pathlib.Path | None = None
    """Where it was loaded from."""
    weights: str = ""
    """Path of the backbone's weights on this machine, where it is known; it is not saved."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of an image: with a backbone one of its size, else `shape`."""
        size = 0 if self.backbone is None else self.backbone.image_size
        return (size, size, 3) if size else self.shape

    @property
    def image_dtype(self) -> str:
        """Type of such an image."""
        return self.dtype if self.backbone is None else "uint8"

    @property
    def embedder(self) -> Embedder:
        """Computes features of images; UserError where the backbone's weights are missing."""
        if self.backbone is None:
            raise UserError("the model has no backbone: give it what it was trained on")
        return features.embedder_of(self.backbone, self.folder, self.weights)

    def predict_proba(self, images: ArrayLike) -> np.ndarray:
        """Probability of each class: `images [n, ...] -> [n, K]`, of each pixel `[n, H, W, K]`."""
        return self._over(images, lambda output: jax.nn.softmax(output.logits))

    def predict(self, images: ArrayLike) -> np.ndarray:
        """The likeliest class of each image: `[n, ...] -> [n]`, of each pixel `[n, H, W]`."""
        return self._over(images, lambda output: np.argmax(output.logits, axis=-1))

    def predicted_loss(self, images: ArrayLike) -> np.ndarray:
        """R(x), larger where T is likelier wrong: `[n, ...] -> [n]`; UserError without a Ranker."""
        if self.learner.ranker is None:
            raise UserError(f"a model of {self.method} has no Ranker: take one that has")
        return self._over(images, lambda output: output.predicted)

    def embed(self, images: ArrayLike) -> np.ndarray:
        """T's penultimate features: `[n, ...] -> [n, E]`."""
        return self._over(images, lambda output: output.embedding)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes `weights.npz` and then `model.json`: where that is, both are complete."""
        folder = user_path(folder, "folder")
        for name in ("model.json", *EXPORTED):  # Files of an earlier model.
            with files.named(folder / name):
                (folder / name).unlink(missing_ok=True)
        tree = {
            "params": self.state.params,
            "stats": self.state.stats,
            "normalise": {"mean": self.normalise.mean, "deviation": self.normalise.std},
        }
        flat = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
        files.write_arrays(folder / "weights.npz", {k: np.asarray(v) for k, v in flat.items()})
        record = {
            "config": self.config,
            "method": self.method,
            "ranker": self.learner.ranker is not None,
            "labelled": self.labelled,
            "class_names": list(self.class_names),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "maps": isinstance(self.learner.problem, problems.Segmentation),
        }
        if self.photos is not None:
            record["photos"] = self.photos._asdict()
        if self.backbone is not None:
            record["backbone"] = self.backbone._asdict()
        files.write(folder / "model.json", json.dumps(record, indent=2) + "\n")

    def to_onnx(self) -> bytes:
        """An ONNX file of all from an image to `predict_proba`, for any number of images.

        Input `images`, `image_dtype [b, *image_shape]`; output `probabilities`, float32; metadata
        `class_names`, in JSON. Computes in float32. Raises UserError where the backbone's weights
        or the package `onnx` are missing, or the network has more than the file can hold.
        """
        if importlib.util.find_spec("onnx") is None:
            raise UserError("onnx is not installed: run pip install 'tavaal_jax[onnx]'")
        from tavaal_jax.engine.onnx_writer.program import onnx_program

        function = self.probabilities
        if self.backbone is not None:
            backbone = self.embedder.backbone

            def function(images: jax.Array) -> jax.Array:
                rows = embedding.embed_images(backbone, backbone.variables, images)
                return self.probabilities(rows)

        facts = {"class_names": self.class_names}
        return onnx_program(function, self.image_shape, self.image_dtype, facts)

    def probabilities(self, images: jax.Array) -> jax.Array:
        """`predict_proba` to be traced: stored images `[b, *shape]` -> float32 `[b, ..., K]`."""
        logits = self.learner.predict(self.state, jax.vmap(self.normalise)(images)).logits
        return jax.nn.softmax(logits.astype(jnp.float32))

    @property
    def at_once(self) -> int:
        """Images per call, a constant: in batches of another size sums are rounded differently.

        On a CPU larger batches gain nothing, and a single image costs a whole batch.
        """
        is_slow = len(self.shape) > 1 and jax.default_backend() == "cpu"
        return min(self.batch_size, 8) if is_slow else self.batch_size

    def _over(
        self, given: ArrayLike, part: Callable[[LearnerOutput], jax.Array | None]
    ) -> np.ndarray:
        """Runs T and R on images `[n, ...]`, some at a time, `->` one part of their output."""
        images = self._checked(given)
        size = self.at_once
        parts = []
        for start in range(0, len(images), size):
            some = images[start : start + size]
            padded = np.resize(some, (size, *self.shape))
            output = jax.block_until_ready(_infer(self.learner, self.state, self.normalise, padded))
            parts.append(np.asarray(part(output)))
        return np.concatenate(parts)[: len(images)]

    def _checked(self, given: ArrayLike) -> np.ndarray:
        """Images as an array of the training images' shape and type; else raises UserError."""
        images = arrays.plain(given, "images")
        if self.backbone is not None and images.ndim > 2:
            images = arrays.with_channels(images, "images")
            embedding.check(images.shape)
            if images.dtype != np.uint8 or not len(images):
                raise UserError(f"images are {images.dtype} {images.shape}: give uint8, n > 0")
            return self.embedder.over(images)
        if self.shape[-1] == 1 and images.ndim == len(self.shape):
            images = images[..., None]
        if images.shape[1:] != self.shape or not len(images):
            wanted = ", ".join(map(str, self.shape))
            raise UserError(f"images have shape {images.shape}: give [n, {wanted}], n > 0")
        if self.dtype == "uint8" and images.dtype != np.uint8:
            raise UserError(f"images are {images.dtype}: give uint8, as those of the training were")
        if images.dtype.kind not in "fiub":
            raise UserError(f"images are {images.dtype}: give numbers")
        return images if images.dtype == np.uint8 else arrays.features(images, "images")


@jax.jit(static_argnums=0)
def _infer(
    learner: Learner, state: LearnerState, normalise: Normaliser, images: ArrayLike
) -> LearnerOutput:
    return learner.infer(state, jax.vmap(normalise)(jnp.asarray(images)))


def from_state(setup: Setup, state: LoopState, info: DatasetInfo) -> Model:
    """Makes a model of a trial's state."""
    config, plain = setup.config, configs.plain(setup.config)
    for name in ("data_dir", "folder"):
        del plain[name]
    plain["backbone"] |= {"weights": "", "features": ""}
    made_by = setup.made_by
    ranker = models.build_ranker(config) if setup.method.ranking_loss is not None else None
    network = models.build_learner(config, setup.problem.classes, info.shape)
    settings = learners.Settings.of(config)
    learner = Learner(network, ranker, None, setup.problem, settings)
    assert state.learner is not None
    return Model(
        info.class_names,
        info.shape,
        setup.method.name,
        int((state.labelled_in >= 0).sum()),
        learner,
        LearnerState(state.learner.params, state.learner.stats, None),
        setup.train.normalise,
        config.score_batch_size,
        info.dtype,
        plain,
        Decoding.of(config, made_by),
        None if made_by is None else BackboneRecord.of(config, made_by),
        weights="" if made_by is None else str(pathlib.Path(made_by.weights).absolute()),
    )


def load_model(folder: str | pathlib.Path) -> Model:
    """Loads a trial's model from `<workdir>/<method>/trial_<t>/model` or the trial's folder.

    Raises UserError where there is none that can be read.
    """
    folder = user_path(folder, "folder")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the model folder of a workdir or trial")
    folder = folder if (folder / "model.json").exists() else folder / "model"
    try:
        record = json.loads((folder / "model.json").read_text("utf-8"))
        record["config"] = present_record(record["config"])
        with np.load(folder / "weights.npz") as weights:
            tree = traverse_util.unflatten_dict(dict(weights), sep="/")
        return dataclasses.replace(_built(record, tree), folder=folder)
    except (
        OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise UserError(
            f"{folder} holds no model that can be read ({type(error).__name__}: {error}):"
            " give the folder of a finished trial"
        ) from error


def _built(record: dict[str, Any], tree: dict[str, Any]) -> Model:
    # Keys that an older version's config lacks have their defaults, which it behaved like.
    config = ConfigDict(configs.plain(configs.default()))
    config.update(record["config"])
    has_maps, photos = record.get("maps", False), record.get("photos")
    backbone = record.get("backbone")
    problem = problems.of(config, len(record["class_names"]), has_maps)
    network = _network(config, problem.classes, tuple(record["shape"]), tree["params"]["learner"])
    ranker = models.build_ranker(config) if record["ranker"] else None
    return Model(
        tuple(record["class_names"]),
        tuple(record["shape"]),
        record["method"],
        record["labelled"],
        Learner(network, ranker, None, problem, learners.Settings.of(config)),
        LearnerState(tree["params"], tree.get("stats", {}), None),
        Normaliser(tree["normalise"]["mean"], tree["normalise"]["deviation"]),
        config.score_batch_size,
        record["dtype"],
        record["config"],
        None if photos is None else Decoding(**{**photos, "low_high": tuple(photos["low_high"])}),
        None if backbone is None else BackboneRecord(**backbone),
    )


def _network(
    config: ConfigDict, classes: int, shape: tuple[int, ...], params: dict[str, Any]
) -> nn.Module:
    """Builds a stored model's network; UserError where its row is missing or has changed."""
    name = config.task.network
    if name not in NETWORKS:
        raise UserError(
            f"the model's network is {name!r}, and NETWORKS has {', '.join(NETWORKS)}: run what"
            f" added it for the training first, tavaal_jax.NETWORKS[{name!r}] = ..."
        )
    network = models.build_learner(config, classes, shape)
    if NETWORKS[name] in SHIPPED:
        return network
    init = lambda images: network.init(jax.random.key(0), images, train=False)["params"]
    with models.portable(True):
        wanted = jax.eval_shape(init, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    if jax.tree.map(jnp.shape, wanted) != jax.tree.map(jnp.shape, params):
        raise UserError(
            f"the model's weights do not fit the network {name!r} that NETWORKS has now: add the"
            " row that it was trained with"
        )
    return network
