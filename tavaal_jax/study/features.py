"""Features in place of images: by a frozen backbone, or from a file, as the config says.

They are computed once, before anything is trained; from then on a study or the labelling loop
works on a data set of features `[N, F]`.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.data import features as stored
from tavaal_jax.data.dataset import Dataset, MadeBy, PhotoFiles
from tavaal_jax.data.feature_file import FeatureFile
from tavaal_jax.data.features import Decoding, ImageFeatures, PhotoFeatures
from tavaal_jax.data.pool import RowView, StoredArray
from tavaal_jax.data.row_cache import Progress
from tavaal_jax.engine import embedding
from tavaal_jax.engine.embedding import Embedder
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.models.backbones import Backbone, load_backbone
from tavaal_jax.models.networks import NETWORKS, Network
from tavaal_jax.report import progress as reports
from tavaal_jax.study import near_duplicates
from tavaal_jax.study.model_input import BackboneRecord

HEAD = "linear"
"""`task.network` on features where the config has one for images."""
_EVENTS = 1.0  # seconds between two reports of progress


def is_on(config: ConfigDict) -> bool:
    """Whether T is trained on features in place of images."""
    return bool(config.backbone.name or config.backbone.features)


def adapted(config: ConfigDict, dataset: Dataset | None = None) -> ConfigDict:
    """A copy of a config in which keys that only images can have are those of features.

    With features, `task.network` becomes `HEAD` unless it takes features, `vae.network` "mlp" with
    one hidden layer unless it is; augmentation and `normalisation.mean` are off. Where it is
    "auto", `normalisation.features` becomes "together" for features of a backbone or a file, and
    for a linear T on a `dataset` of `Dataset.from_features`, else "each". All else stays.
    """
    options = config.backbone
    for key in ("weights", "image_size"):
        if options[key] and not options.name:
            raise UserError(
                f"backbone.{key} is {options[key]}, and backbone.name is empty: name the backbone,"
                f" or leave backbone.{key} at its default"
            )
    if config.normalisation.features == "auto":
        row = NETWORKS.get(config.task.network)
        is_linear = row is not None and row.solved
        is_embedded = dataset is not None and dataset.is_embedded
        together = is_on(config) or (is_embedded and is_linear)
        config = configs.changed(config)
        config.normalisation.features = "together" if together else "each"
    if not is_on(config):
        return config
    if config.backbone.name and config.backbone.features:
        raise UserError(
            f"backbone.name is {config.backbone.name} and backbone.features"
            f' {config.backbone.features}: set one of them to ""'
        )
    config = configs.changed(config)
    row = NETWORKS.get(config.task.network)
    if row is not None and not row.fits((1,), False) and not row.maps:
        config.task.network = HEAD if HEAD in NETWORKS else "mlp"
        if config.task.network == "mlp":
            config.task.update(widths=(128,), optimiser="adam", learning_rate=1e-3)
    if config.vae.network == "conv":
        config.vae.update(network="mlp", widths=(128,))
    config.augmentation.update(pad=0, flip=False, crop=0)
    config.normalisation.update(mean=(), deviation=())
    return config


# What computes or holds them


Source = Backbone | FeatureFile
"""What features are of: loaded when a study or a cycle begins, and used for all of it."""
Stamp = tuple[int, int] | None


def _stamp(path: str | pathlib.Path, key: str) -> Stamp:
    """Size and time of a file, by which one that was replaced is noticed."""
    try:
        found = user_path(path, key).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class _Kept(NamedTuple):
    """A source, and what it was loaded from."""

    place: tuple[object, ...]
    row: Network | None
    source: Source


_kept: list[_Kept] = []  # the last one, for who looks anew at the same files


def source(config: ConfigDict) -> Source | None:
    """What gives a config's features; None: it has images. UserError where it cannot be had.

    It is the same object as long as the files and the row of `NETWORKS` are.
    """
    if not is_on(config):
        return None
    options = config.backbone
    key = "backbone.weights" if options.name else "backbone.features"
    paths = [options.weights] if options.name else FeatureFile.paths(options.features)
    stamps = [_stamp(path, key) for path in paths if path]
    place = (options.name, options.weights, options.image_size, options.features, *stamps)
    row = NETWORKS.get(options.name)
    for kept in _kept:
        if kept.place == place and kept.row is row:
            return kept.source
    if options.name:
        found: Source = load_backbone(options.name, options.weights, options.image_size)
    else:
        found = FeatureFile(options.features)
    _kept[:] = [_Kept(place, row, found)]
    return found


_embedders: list[Embedder] = []  # the last one: its weights may fill a device


def embedder(backbone: Backbone) -> Embedder:
    """What computes a backbone's features, placed on the devices and compiled once."""
    for made in _embedders:
        if made.digest == backbone.digest and made.backbone.row is backbone.row:
            return made
    _embedders.clear()
    _embedders.append(Embedder(backbone))
    return _embedders[0]


def embedder_of(record: BackboneRecord, folder: pathlib.Path | None, weights: str) -> Embedder:
    """The embedder of a model's backbone: that of this process, or loaded, see `record.load`."""
    for made in _embedders:
        if made.digest == record.digest and made.backbone.row is NETWORKS.get(record.name):
            return made
    return embedder(record.load(folder, weights))


def digest(source: Source | None) -> str | None:
    """Digest of all that makes the features: a study is not continued on others; None: images."""
    return None if source is None else source.digest


def made_by(source: Source | None) -> MadeBy | None:
    """The backbone that makes the features; None where they are made elsewhere."""
    if not isinstance(source, Backbone):
        return None
    fields = source.name, source.image_size, source.digest, source.sha256, source.weights
    return MadeBy(*fields)


def check(config: ConfigDict, name: str, shape: tuple[int, ...], has_maps: bool) -> int:
    """Number of features of an image; UserError where a data set of such images cannot have any."""
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
    found = source(config)
    assert found is not None
    return found.features


# Features of photos, and of data sets


Photos = PhotoFeatures | FeatureFile
"""Features of photos, by content id."""


def of_photos(
    data_dir: str, source: Source, resize: str, low_high: Sequence[float],
    known: Collection[str] = (),
) -> Photos:  # fmt: skip
    """Features of photos in files, decoded for a backbone as `decode.decode` does.

    In a file of features, photos `known` by content id keep their rows when others come that are
    named alike.
    """
    if isinstance(source, FeatureFile):
        return source.matching(known)
    return PhotoFeatures(data_dir, embedder(source), Decoding(resize, tuple(low_high)))


def of_dataset(
    config: ConfigDict, dataset: Dataset, source: Source | None,
    callback: reports.Callback = reports.silent, check_stop: Callable[[], None] = lambda: None,
) -> Dataset:  # fmt: skip
    """The data set with the features of a `source` in place of its images; None: as it is.

    Those that are not cached are computed and cached in `data_dir`; `callback` hears how far it
    is, and `check_stop` is called often and may raise. Near-duplicates are found as the config
    says.
    """
    if source is None:
        return near_duplicates.left_out(config, dataset)
    check(config, dataset.name, dataset.shape, dataset.has_maps)
    count = len(dataset.test_images)
    test_ids = [f"test_{number}" for number in range(count)]
    file = source.matching() if isinstance(source, FeatureFile) else None
    views = []
    for what, images, files, ids in (
        ("training", dataset.train_images, dataset.train_files, dataset.train_ids.tolist()),
        ("test", dataset.test_images, dataset.test_files, test_ids),
    ):
        if file is not None:
            rows = file.rows_of(dataset.name, ids, files)
            views.append(RowView(file.array, rows, np.float32))
        else:
            told = _progress(f"Features of {what} images of {dataset.name}", callback, check_stop)
            views.append(_computed(config, source, images, files, told))
    train, test = views
    found = dataclasses.replace(
        dataset, train_images=train, test_images=test, image_statistics=None, train_files=None,
        test_files=None, is_embedded=True, made_by=made_by(source),
    )  # fmt: skip
    return near_duplicates.left_out(config, found)


def of_images(
    data_dir: str, made: Embedder, images: StoredArray,
    progress: Progress = lambda done, total: None,
) -> RowView:  # fmt: skip
    """Features of an array of images, uint8 `[N, H, W, C]`, from the cache or computed."""
    ids = stored.image_ids(images)
    arrays = ImageFeatures(data_dir, made, images)
    rows, _ = arrays.made_rows([(name, index) for index, name in enumerate(ids)], progress)
    return RowView(arrays.array, rows)


def _computed(
    config: ConfigDict, source: Source, images: StoredArray, files: PhotoFiles | None,
    progress: Progress,
) -> RowView:  # fmt: skip
    """Features of images or, where they are photos, of the photos' files; they stay on a disk."""
    assert isinstance(source, Backbone)
    if files is None:
        return of_images(config.data_dir, embedder(source), images, progress)
    options = config.labelled_folder
    decoding = Decoding(options.resize, tuple(options.low_high))
    photos = PhotoFeatures(config.data_dir, embedder(source), decoding)
    ids = files.ids.tolist()
    rows, faults = photos.made_rows(list(zip(ids, files.paths, strict=True)), progress)
    if faults:
        name, reason = next(iter(faults.items()))
        path = files.paths[ids.index(name)]
        raise UserError(f"{path} has no features ({reason}): put it back, or leave it out")
    return RowView(photos.array, rows)


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
