"""Dataset, the form in which every data set reaches a study, and its normalisation."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.data import arrays
from tavaal_jax.data.image_statistics import ImageStatistics, thumbnail
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.pool import (
    LabelMaps,
    Labels,
    Normaliser,
    Resident,
    RowView,
    StoredArray,
    parts,
)
from tavaal_jax.errors import UserError


class MadeBy(NamedTuple):
    """The frozen backbone that features were made by, see `models.backbones.Backbone`."""

    name: str
    image_size: int
    digest: str
    sha256: str
    """Digest of the file of its weights."""
    weights: str
    """Path of that file."""


class PhotoFiles(NamedTuple):
    """Files that images were decoded from."""

    ids: np.ndarray
    """Content ids, str `[n]`, see `pictures.decode.content_id`."""
    paths: list[pathlib.Path]

    def only(self, rows: np.ndarray) -> "PhotoFiles":
        """Files of some images, indices `[m]`."""
        return PhotoFiles(self.ids[rows], [self.paths[row] for row in rows])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Arrays in host memory; images may be mapped from a disk."""

    name: str
    train_images: StoredArray
    """uint8 `[N, H, W, C]`, or features `[N, F]`: float32, or float16 mapped from a disk."""
    train_labels: np.ndarray
    """int32 `[N]`, -1 where nobody knows; oracles and figures read them, methods do not.

    Or maps of a class per pixel, uint8 `[N, H, W]`, 255 for none: a `StoredArray`.
    """
    train_ids: np.ndarray
    """str `[N]`: what an image is called upstream; the same everywhere."""
    test_images: StoredArray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    image_statistics: ImageStatistics | None = None
    """Statistics of large images with maps, where they are known already."""
    available: np.ndarray | None = None
    """Which training images may be picked or learned from, bool `[N]`; None: all."""
    folds: np.ndarray | None = None
    """Fold of near-duplicates of each training image, int32 `[N]`; None: each is alone."""
    train_files: PhotoFiles | None = None
    """Where the images are photos: a frozen backbone sees these, in a size of its own."""
    test_files: PhotoFiles | None = None
    is_embedded: bool = False
    """Whether the images are features of one network, whose distances mean something."""
    made_by: MadeBy | None = None
    """The backbone that has made them, where it is known."""

    @classmethod
    def from_features(
        cls,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        test_features: npt.ArrayLike | None = None,
        test_labels: npt.ArrayLike | None = None,
        *,
        ids: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "features",
    ) -> "Dataset":
        """A data set of features `[N, F]`, of a frozen backbone for example, see `embed`.

        All else is as in `from_arrays`. Train on it with `task.network="linear"` or `"mlp"`, and
        `vae.network="mlp"`. With "linear" all features are divided by one number, so that distances
        keep their ratios, unless `normalisation.features` is set. Features that are mapped from a
        disk (`np.load(path, mmap_mode="r")`), float16 or float32, stay there; only workers of
        `parallel="trials"` and Ray are sent a copy.
        """
        for given, what in ((features, "features"), (test_features, "test_features")):
            shape = np.shape(given) if given is not None else (0, 1)
            if len(shape) != 2 or not shape[1]:
                raise UserError(f"{what} have shape {shape}: give [N, F], a row for each image")
        found = cls.from_arrays(
            features, labels, test_features, test_labels, ids=ids, class_names=class_names,
            name=name,
        )  # fmt: skip
        return dataclasses.replace(found, is_embedded=True)

    @classmethod
    def from_arrays(
        cls,
        images: npt.ArrayLike,
        labels: npt.ArrayLike,
        test_images: npt.ArrayLike | None = None,
        test_labels: npt.ArrayLike | None = None,
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
        train = arrays.images(images, "images")
        labels = arrays.labels(labels, train, "labels", least=-1)
        if (test_images is None) != (test_labels is None):
            raise UserError("test_images and test_labels go together: give both or neither")
        if test_images is None or test_labels is None:
            test, answers = train[:0], labels[:0]
        else:
            test = arrays.images(test_images, "test_images")
            is_image = [array.dtype == np.uint8 for array in (train, test)]
            if test.shape[1:] != train.shape[1:] or is_image[0] != is_image[1]:
                raise UserError(
                    f"test_images are {test.dtype} {test.shape[1:]} and images {train.dtype}"
                    f" {train.shape[1:]}: give both alike"
                )
            answers = arrays.labels(test_labels, test, "test_labels", least=0)
            if answers.ndim != labels.ndim:
                raise UserError(
                    f"test_labels are {answers.shape} and labels {labels.shape}: give maps for both"
                    " or for none"
                )
        highest = max(arrays.highest(labels), arrays.highest(answers))
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
        arrays.check_texts((*texts, *names))
        return cls(name, train, labels, texts, test, answers, names)

    def only(self, available: np.ndarray) -> "Dataset":
        """The data set with only some images, bool `[N]`, to be picked or learned from."""
        return dataclasses.replace(self, available=available)

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image, `(H, W, C)`, or of features, `(F,)`."""
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
        """Pixels of each class in the training maps, int32 `[N, K]`; maps are read once."""
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
        """Class of each training image, or the three most frequent ones of its map, as a text."""
        titles = []
        for counts in self.counts_of(indices):
            order = [k for k in np.argsort(-counts, kind="stable")[:3] if counts[k]]
            titles.append(", ".join(self.class_names[k] for k in order) or "unknown")
        return titles

    def _thumbnails(self, size: int) -> np.ndarray | None:
        """Small training images, uint8 `[N, size, size, C]`; None for a size of 0."""
        if not size:
            return None
        if self.image_statistics is not None and self.image_statistics.thumbnails.shape[1] == size:
            return self.image_statistics.thumbnails
        shrunk = (thumbnail(one, size) for some in parts(self.train_images) for one in some)
        return np.stack(list(shrunk))

    def fingerprint(self) -> str:
        """Digest of the arrays: a study is not continued on others."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            # Features are the same from a float16 file as from float32 in memory.
            dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype
            digest.update(f"{dtype}{array.shape}".encode())
            if isinstance(array, LazyPictures):  # Their values would have to be decoded.
                digest.update(array.fingerprint().encode())
                continue
            for part in parts(array):
                digest.update(np.ascontiguousarray(part, dtype).data)
        return digest.hexdigest()

    def resident(self, normalise: Normaliser, size: int = 0) -> tuple[Resident, Resident]:
        """Training and test set for the devices; no training image has a label yet.

        With a `size` there are thumbnails of that side of the training images.
        """
        count = len(self.train_images)
        unknown: Labels = np.full(count, -1, np.int32)
        if self.has_maps:
            unknown = LabelMaps(self.train_labels, self.pixels, np.zeros(count, bool))
        return (
            Resident(self.train_images, unknown, normalise, self._thumbnails(size)),
            Resident(self.test_images, self.test_labels, normalise),
        )


def normaliser(
    config: ConfigDict, images: StoredArray, known: ImageStatistics | None = None
) -> Normaliser:
    """Constants of the config where it has them, else the statistics of `images`."""
    settings = config.normalisation
    if isinstance(images, RowView):
        images = images.there
    if images.ndim == 2 and settings.features == "together":
        return Normaliser.of_features(images)
    if not settings.mean:
        return Normaliser.of(images) if known is None else Normaliser.of_histogram(known.histogram)
    channels = images.shape[-1]
    if images.ndim != 4 or images.dtype != np.uint8 or len(settings.mean) not in (1, channels):
        raise UserError(
            f"normalisation.mean has {len(settings.mean)} values, which images {images.dtype}"
            f" {images.shape[1:]} cannot use: give one per channel of uint8 images, or none"
        )
    return Normaliser.constant(settings.mean, settings.deviation)
