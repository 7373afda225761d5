"""The one form in which every data set reaches a run, and the pool that an imbalance leaves of
it."""

import dataclasses

import numpy as np

from tavaal_jax.data import cache, sources
from tavaal_jax.data.augment import DeviceData


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Arrays in host memory."""

    name: str
    train_images: np.ndarray
    """uint8 `[N, H, W, C]`, or features float32 `[N, F]`."""
    train_labels: np.ndarray
    """int32 `[N]`"""
    train_ids: np.ndarray
    """str `[N]`: what an image is called upstream; the same everywhere."""
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        """K"""
        return len(self.class_names)

    @property
    def is_plane(self) -> bool:
        """Whether the examples are points of the plane, `[N, 2]`."""
        return self.train_images.shape[1:] == (2,)

    def on_device(self) -> tuple[DeviceData, DeviceData]:
        """Training and test set for the devices, both normalised by the training set's
        statistics."""
        axes = tuple(range(self.train_images.ndim - 1))
        mean = self.train_images.mean(axes, dtype=np.float64)
        deviation = self.train_images.std(axes, dtype=np.float64)
        shape = (1,) * (self.train_images.ndim - 2) + (-1,)
        mean = mean.reshape(shape).astype(np.float32)
        deviation = np.where(deviation > 0, deviation, 1.0).reshape(shape).astype(np.float32)
        return (
            DeviceData(self.train_images, self.train_labels, mean, deviation),
            DeviceData(self.test_images, self.test_labels, mean, deviation),
        )


def is_at_hand(config) -> bool:
    """Whether `load` reads what is there: an embedded data set, or one decoded before."""
    embedded = sources.SOURCES[config.dataset].embedded
    return embedded or cache.folder(config.data_dir, config.dataset).exists()


def load(config) -> Dataset:
    """The data set of a config, decoded once into a cache, with its imbalance applied.

    Raises UserError where it can neither be found nor be had.
    """
    source = sources.SOURCES[config.dataset]
    if source.embedded:
        arrays = source.read(config)
    else:
        folder = cache.folder(config.data_dir, config.dataset)
        arrays = cache.load_or_make(folder, lambda: source.read(config))
    names = tuple(str(name) for name in arrays.pop("class_names"))
    dataset = Dataset(config.dataset, class_names=names, **arrays)
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
