"""The one form in which every data set reaches a study, and what an imbalance leaves of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.data import cache, image_statistics
from tavaal_jax.data.image_statistics import ImageStatistics, thumbnail
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.pool import LabelMaps, Normaliser, Resident, RowView, parts
from tavaal_jax.data.sets import catalogue, cityscapes
from tavaal_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Arrays in host memory; images may be mapped from a disk."""

    name: str
    train_images: np.ndarray
    """uint8 `[N, H, W, C]`, or features float32 `[N, F]`."""
    train_labels: np.ndarray
    """int32 `[N]`, -1 where nobody knows; oracles and figures read them, methods do not.

    Or maps of a class per pixel, uint8 `[N, H, W]`, 255 for none.
    """
    train_ids: np.ndarray
    """str `[N]`: what an image is called upstream; the same everywhere."""
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    image_statistics: ImageStatistics | None = None
    """Of large images with maps."""
    available: np.ndarray | None = None
    """Which training images may be picked or learned from, bool `[N]`; None: all."""

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        test_images: Any = None,
        test_labels: Any = None,
        *,
        ids: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> "Dataset":
        """A data set from arrays: `images [N, H, W, C]`, `[N, H, W]` or `[N, F]`, `labels [N]`.

        Labels are 0 to K - 1, -1 where unknown (for `query`); or maps uint8 `[N, H, W]` with 255
        for pixels of no class, and everywhere in a map that is unknown. Images are uint8, features
        any numbers. `class_names` (K of them) default to the numbers. Raises UserError for what
        does not fit.
        """
        if name == configs.PEOPLE:
            raise UserError(f"name is {name!r}, which is people's own images: give another")
        train, test = _images(images, "images"), None
        labels = _labels(labels, train, "labels", least=-1)
        if (test_images is None) != (test_labels is None):
            raise UserError("test_images and test_labels go together: give both or neither")
        if test_images is None:
            test, answers = train[:0], labels[:0]
        else:
            test = _images(test_images, "test_images")
            if test.shape[1:] != train.shape[1:] or test.dtype != train.dtype:
                raise UserError(
                    f"test_images are {test.dtype} {test.shape[1:]} and images {train.dtype}"
                    f" {train.shape[1:]}: give both alike"
                )
            answers = _labels(test_labels, test, "test_labels", least=0)
            if answers.ndim != labels.ndim:
                raise UserError(
                    f"test_labels are {answers.shape} and labels {labels.shape}: give maps for both"
                    " or for none"
                )
        highest = max(_highest(labels), _highest(answers))
        names = tuple(map(str, class_names if class_names is not None else range(highest + 1)))
        if len(names) < 2 or highest >= len(names):
            raise UserError(
                f"labels go up to {highest} and there are {len(names)} classes: give class_names,"
                " two or more and one for each label"
            )
        numbers = [f"train_{i}" for i in range(len(train))]
        texts = np.array(list(map(str, ids if ids is not None else numbers)))
        if len(texts) != len(train) or len(np.unique(texts)) < len(texts):
            raise UserError(f"ids are {len(texts)}: give {len(train)} different ones")
        for text in (*texts, *names):
            if not _is_writable(text):
                raise UserError(
                    f"{str(text)!r} is an id or class name that no file can hold: rename it"
                )
        return cls(name, train, labels, texts, test, answers, names)

    def only(self, available: np.ndarray) -> "Dataset":
        """The same where only some of the images, bool `[N]`, may be picked or learned from."""
        return dataclasses.replace(self, available=available)

    @property
    def classes(self) -> int:
        """K"""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, `(H, W, C)`, or of features, `(F,)`."""
        return self.train_images.shape[1:]

    @property
    def is_plane(self) -> bool:
        """Whether the examples are points of the plane, `[N, 2]`."""
        return self.shape == (2,)

    @property
    def has_maps(self) -> bool:
        """Whether a label is a map."""
        return self.train_labels.ndim == 3

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """Of each class in the training maps, int32 `[N, K]`; they are read once."""
        if self.image_statistics is not None:
            return self.image_statistics.pixels
        found = [
            np.bincount(one.ravel(), minlength=256)[: self.classes]
            for some in parts(self.train_labels)
            for one in some
        ]
        return np.array(found, np.int32)

    @property
    def known(self) -> np.ndarray:
        """Which training images have a label, bool `[N]`."""
        return np.asarray(self.pixels.any(1) if self.has_maps else self.train_labels >= 0)

    def counts_of(self, indices: np.ndarray) -> np.ndarray:
        """1 for the class of each training image, or pixels of each class: `[n, K]`."""
        if self.has_maps:
            return self.pixels[indices]
        return np.equal.outer(self.train_labels[indices], np.arange(self.classes)).astype(np.int32)

    def titles_of(self, indices: np.ndarray) -> list[str]:
        """What there is in each training image: its class, or the most frequent three of a map."""
        titles = []
        for counts in self.counts_of(indices):
            order = [k for k in np.argsort(-counts, kind="stable")[:3] if counts[k]]
            titles.append(", ".join(self.class_names[k] for k in order) or "unknown")
        return titles

    def _thumbnails(self, size):
        """Of the training images, uint8 `[N, size, size, C]`; None for a size of 0."""
        if not size:
            return None
        if self.image_statistics is not None and self.image_statistics.thumbnails.shape[1] == size:
            return self.image_statistics.thumbnails
        shrunk = (thumbnail(one, size) for some in parts(self.train_images) for one in some)
        return np.stack(list(shrunk))

    def fingerprint(self) -> str:
        """Stands for the arrays, where a study must not be continued on others."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.dtype}{array.shape}".encode())
            if isinstance(array, LazyPictures):  # Their values would have to be decoded.
                digest.update(array.fingerprint().encode())
                continue
            for part in parts(array):
                digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def resident(self, normalise: Normaliser, size: int = 0) -> tuple[Resident, Resident]:
        """Training and test set for the devices; no training image has a label yet.

        With a `size` there are thumbnails of that side of the training images.
        """
        count = len(self.train_images)
        unknown: Any = np.full(count, -1, np.int32)
        if self.has_maps:
            unknown = LabelMaps(self.train_labels, self.pixels, np.zeros(count, bool))
        return (
            Resident(self.train_images, unknown, normalise, self._thumbnails(size)),
            Resident(self.test_images, self.test_labels, normalise),
        )


def normaliser(
    config: ConfigDict, images: np.ndarray, known: ImageStatistics | None = None
) -> Normaliser:
    """Constants of the config where it has them, else the statistics of `images`."""
    settings = config.normalisation
    if isinstance(images, RowView):
        images = images.there
    if not settings.mean:
        return Normaliser.of(images) if known is None else Normaliser.of_histogram(known.histogram)
    channels = images.shape[-1]
    if images.ndim != 4 or images.dtype != np.uint8 or len(settings.mean) not in (1, channels):
        raise UserError(
            f"normalisation.mean has {len(settings.mean)} values, which images {images.dtype}"
            f" {images.shape[1:]} cannot use: give one per channel of uint8 images, or none"
        )
    return Normaliser.constant(settings.mean, settings.deviation)


def _is_writable(text):
    """Whether a file in UTF-8 can hold it: names of files that are no UTF-8 come otherwise."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def _array(values, name):
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"{name} make no array ({error}): give all the same shape") from error


def _images(images, name):
    images = _array(images, name)
    if 0 in images.shape[1:]:
        raise UserError(f"{name} have shape {images.shape}: give images, or features, of some size")
    if images.dtype != np.uint8:
        if images.dtype.kind not in "fiub" or images.ndim != 2:
            raise UserError(
                f"{name} are {images.dtype} {images.shape}: give uint8 [N, H, W, C], or numbers"
                " [N, F]"
            )
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise UserError(f"{name} hold a number that is not finite: leave such examples out")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim not in (2, 4) or not len(images):
        raise UserError(f"{name} have shape {images.shape}: give [N, H, W, C] or [N, F], N > 0")
    return images.astype(np.float32) if images.ndim == 2 else images


def _labels(labels, images, name, least):
    if np.ma.is_masked(labels):
        raise UserError(f"{name} are masked: give -1 to those that are unknown")
    labels, count = _array(labels, name), len(images)
    if labels.ndim == 3 and images.ndim == 4:
        if labels.shape != images.shape[:3] or labels.dtype != np.uint8:
            raise UserError(
                f"{name} are {labels.dtype} {labels.shape}: give maps of the images' size, uint8"
                f" {list(images.shape[:3])}"
            )
        return labels
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(f"{name} are {labels.dtype} {labels.shape}: give whole numbers [{count}]")
    if labels.size and labels.min() < least:
        raise UserError(f"{name} hold {labels.min()}: give {least} or more")
    if labels.size and labels.max() >= 2**31:
        raise UserError(f"{name} hold {labels.max()}: give less than {2**31}")
    return labels.astype(np.int32)


def _highest(labels):
    """The highest class, -1 where there is none."""
    if labels.ndim != 3:
        return int(np.max(labels, initial=-1))
    # One more, and 255, which is none, is 0.
    highest = (int((part + np.uint8(1)).max()) for part in parts(labels))
    return max(highest, default=0) - 1


def is_at_hand(config) -> bool:
    """Whether `load` reads what is there: an embedded data set, one decoded before, or pictures."""
    source = catalogue.SOURCES.get(config.dataset)
    if source is None:
        return False
    if source.lazily is not None and not config.cityscapes.cache:
        return config.cityscapes.through == "folder" and cityscapes.is_unpacked(config)
    return source.embedded or catalogue.cache_folder(config).exists()


_LARGEST_SEEN = 64  # Side of what a VAE sees of images that are larger, by default.


def load(config) -> Dataset:
    """The data set of a config, decoded once into a cache, with its imbalance applied.

    Raises UserError where it can neither be found nor be had.
    """
    source = catalogue.SOURCES[config.dataset]
    if source.embedded:
        arrays = cache.in_memory(lambda new: source.read(config, new))
    elif source.lazily is not None and not config.cityscapes.cache:
        arrays = source.lazily(config)
    else:
        folder = catalogue.cache_folder(config)
        arrays = cache.load_or_make(folder, lambda new: source.read(config, new))
    names = tuple(str(name) for name in arrays.pop("class_names"))
    dataset = Dataset(config.dataset, class_names=names, **arrays)  # type: ignore[arg-type]
    if source.lazily is not None:
        size = config.vae.image_size or _LARGEST_SEEN
        images: Any = dataset.train_images
        maps: Any = dataset.train_labels
        found = image_statistics.of(images, maps, len(names), size, config.data_dir)
        dataset = dataclasses.replace(dataset, image_statistics=found)
    if config.imbalance.ratio > 1:
        dataset = thinned(dataset, config.imbalance.ratio, tuple(config.imbalance.classes))
    return dataset


def thinned(dataset: Dataset, ratio: int, classes: tuple[int, ...]) -> Dataset:
    """Keeps the first 1/ratio of the training images of `classes`, in the data set's order.

    No key: the pool is the same for every seed, trial and machine.
    """
    labels = dataset.train_labels
    keep = np.ones(len(labels), bool)
    for label in classes:
        members = np.flatnonzero(labels == label)
        keep[members[max(1, len(members) // ratio) :]] = False
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[keep],
        train_labels=labels[keep],
        train_ids=dataset.train_ids[keep],
    )
