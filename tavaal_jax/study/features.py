"""Features in place of images: by a frozen backbone, or from a file, as the config says.

They are computed once, before anything is trained; from then on a study or the labelling loop
works on a data set of features `[N, F]`.
"""

import dataclasses
import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.data import features as stored
from tavaal_jax.data.dataset import Dataset, PhotoFiles
from tavaal_jax.data.features import Decoding, FeatureFile, ImageFeatures, PhotoFeatures
from tavaal_jax.data.pool import RowView, StoredArray
from tavaal_jax.data.row_cache import Progress
from tavaal_jax.engine import embedding
from tavaal_jax.engine.embedding import Embedder
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.models.backbones import Backbone, load_backbone
from tavaal_jax.models.networks import NETWORKS
from tavaal_jax.report import progress as reports

HEAD = "linear"
"""`task.network` on features where the config has one for images."""
_EVENTS = 1.0  # seconds between two reports of progress


def is_on(config: ConfigDict) -> bool:
    """Whether T is trained on features in place of images."""
    return bool(config.backbone.name or config.backbone.features)


def adapted(config: ConfigDict) -> ConfigDict:
    """A copy of a config in which keys that only images can have are those of features.

    With features, `task.network` becomes `HEAD` unless it takes features, `vae.network` "mlp" with
    one hidden layer unless it is; augmentation and `normalisation.mean` are off, and features are
    normalised together. All else stays.
    """
    options = config.backbone
    for key in ("weights", "image_size"):
        if options[key] and not options.name:
            raise UserError(
                f"backbone.{key} is {options[key]}, and backbone.name is empty: name the backbone,"
                f" or leave backbone.{key} at its default"
            )
    if not is_on(config):
        return config
    if config.backbone.name and config.backbone.features:
        raise UserError(
            f"backbone.name is {config.backbone.name} and backbone.features"
            f" {config.backbone.features}: give one of them"
        )
    config = configs.changed(config)
    row = NETWORKS.get(config.task.network)
    if row is not None and not row.fits((1,), False) and not row.maps:
        config.task.network = HEAD if HEAD in NETWORKS else "mlp"
        if config.task.network == "mlp":
            config.task.update(widths=(128,), optimiser="adam", learning_rate=1e-3)
    if config.vae.network == "conv":
        config.vae.update(network="mlp", widths=(512,))
    config.augmentation.update(pad=0, flip=False, crop=0)
    config.normalisation.update(mean=(), deviation=(), features="together")
    return config


# What computes or holds them


def _stamp(path: str, key: str) -> tuple[int, int] | None:
    """Size and time of a file, by which one that was replaced is noticed."""
    try:
        found = user_path(path, key).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def backbone(config: ConfigDict) -> Backbone:
    """The backbone that a config names, loaded once; UserError where it cannot be had."""
    options = config.backbone
    stamp = _stamp(options.weights, "backbone.weights") if options.weights else None
    return _backbone(options.name, options.weights, options.image_size, stamp)


@functools.lru_cache(2)
def _backbone(name: str, weights: str, image_size: int, stamp: tuple[int, int] | None) -> Backbone:
    del stamp
    return load_backbone(name, weights, image_size)


_embedders: dict[str, Embedder] = {}


def embedder(backbone: Backbone) -> Embedder:
    """What computes a backbone's features, placed on the devices and compiled once."""
    if backbone.digest not in _embedders:
        _embedders.clear()  # The weights of another one may fill a device.
        _embedders[backbone.digest] = Embedder(backbone)
    return _embedders[backbone.digest]


Stamps = tuple[tuple[int, int] | None, ...]


def _feature_paths(config: ConfigDict) -> tuple[pathlib.Path, ...]:
    """The file of features and, beside an .npy, that of its ids."""
    path = user_path(config.backbone.features, "backbone.features")
    return (path, path.with_suffix(".txt")) if path.suffix == ".npy" else (path,)


def _stamps(config: ConfigDict) -> Stamps:
    return tuple(_stamp(str(path), "backbone.features") for path in _feature_paths(config))


def _file(config: ConfigDict) -> FeatureFile:
    return _feature_file(config.backbone.features, _stamps(config))


@functools.lru_cache(1)
def _feature_file(path: str, stamps: Stamps) -> FeatureFile:
    del stamps
    return FeatureFile(path)


def digest(config: ConfigDict) -> str | None:
    """Digest of all that makes the features: a study is not continued on others; None: images."""
    if config.backbone.name:
        return backbone(config).digest
    if not config.backbone.features:
        return None
    _file(config)  # Raises UserError for a file that is none.
    return _content(_feature_paths(config), _stamps(config))


@functools.lru_cache(1)
def _content(paths: tuple[pathlib.Path, ...], stamps: Stamps) -> str:
    del stamps
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def size(config: ConfigDict) -> int:
    """Number of features of an image, F."""
    return backbone(config).features if config.backbone.name else _file(config).features


def check(config: ConfigDict, name: str, shape: tuple[int, ...], has_maps: bool) -> None:
    """Raises UserError where features of a data set of such images cannot be had."""
    if has_maps:
        raise UserError(
            f"{name} has label maps, and features are of whole images: give backbone.name='' and"
            " backbone.features=''"
        )
    if config.backbone.name:
        if len(shape) != 3:
            raise UserError(
                f"backbone.name is {config.backbone.name}, and {name} has {shape[0]} features and"
                " no images: give backbone.name=''"
            )
        embedding.check((1, *shape), name)
    size(config)


# Features of photos, and of data sets


Photos = PhotoFeatures | FeatureFile
"""Features of photos, by content id."""


def of_photos(config: ConfigDict, resize: str, low_high: Sequence[float]) -> Photos:
    """Features of photos in files, decoded for the backbone as `decode.decode` does."""
    if not config.backbone.name:
        return _file(config)
    made = embedder(backbone(config))
    return PhotoFeatures(config.data_dir, made, Decoding(resize, tuple(low_high)))


def of_dataset(
    config: ConfigDict, dataset: Dataset, callback: reports.Callback = reports.silent,
    check_stop: Callable[[], None] = lambda: None,
) -> Dataset:  # fmt: skip
    """The data set with features in place of its images, where the config has a backbone.

    Those that are not cached are computed and cached in `data_dir`; `callback` hears how far it
    is, and `check_stop` is called often and may raise.
    """
    if not is_on(config):
        return dataset
    check(config, dataset.name, dataset.shape, dataset.has_maps)
    count = len(dataset.test_images)
    test_ids = [f"test_{number}" for number in range(count)]
    views = []
    for what, images, files, ids in (
        ("training", dataset.train_images, dataset.train_files, dataset.train_ids.tolist()),
        ("test", dataset.test_images, dataset.test_files, test_ids),
    ):
        if config.backbone.name:
            told = _progress(f"Features of {what} images of {dataset.name}", callback, check_stop)
            views.append(_computed(config, images, files, told))
        else:
            file = _file(config)
            rows = file.rows_of(dataset.name, ids, files)
            views.append(RowView(file.array, rows, np.float32))
    train, test = views
    return dataclasses.replace(
        dataset, train_images=train, test_images=test, image_statistics=None, train_files=None,
        test_files=None,
    )  # fmt: skip


def of_images(
    data_dir: str, made: Embedder, images: StoredArray,
    progress: Progress = lambda done, total: None,
) -> RowView:  # fmt: skip
    """Features of an array of images, uint8 `[N, H, W, C]`, from the cache or computed."""
    ids = stored.image_ids(images)
    arrays = ImageFeatures(data_dir, made, images)
    arrays.add([(name, index) for index, name in enumerate(ids)], progress)
    return RowView(arrays.array, arrays.rows(ids))


def _computed(
    config: ConfigDict, images: StoredArray, files: PhotoFiles | None, progress: Progress
) -> RowView:
    """Features of images or, where they are photos, of the photos' files; they stay on a disk."""
    if files is None:
        return of_images(config.data_dir, embedder(backbone(config)), images, progress)
    options = config.labelled_folder
    photos = of_photos(config, options.resize, options.low_high)
    ids = files.ids.tolist()
    faults = photos.add(list(zip(ids, files.paths, strict=True)), progress)
    if faults:
        name, reason = next(iter(faults.items()))
        path = files.paths[ids.index(name)]
        raise UserError(f"{path} has no features ({reason}): put it back, or leave it out")
    return RowView(photos.array, photos.rows(ids))


def _progress(what: str, callback: reports.Callback, check_stop: Callable[[], None]) -> Progress:
    """Reports to a callback how many of how many images are done, and a line at the end."""
    begin = last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        check_stop()
        now = time.monotonic()
        if now - last >= _EVENTS or done == total:
            last = now
            text = None
            if done == total:
                text = f"{what}: {total:,} in {now - begin:.0f} s"
            callback(reports.Event(text, done / total, stage=f"{what.lower()},", step=done))

    return progress
