"""Where data sets come from: scikit-learn (embedded), TFDS and folders, each fills arrays."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tavaal_jax.data import cache
from tavaal_jax.data.sets import cityscapes, tfds


class Source(NamedTuple):
    """A data set by name."""

    read: Callable
    """`(config, new)`: fills arrays named as the fields of `Dataset`, see `cache.New`."""
    train_size: int
    """N before any imbalance, known before anything is loaded."""
    classes: int
    image_shape: tuple[int, ...]
    has_maps: bool = False
    """Whether a label is a map."""
    embedded: bool = False
    """Comes with an installed package: no download, no cache."""
    lazily: Callable | None = None
    """`(config) -> arrays` by name, where images can be decoded when they are asked for instead."""
    cache_name: Callable | None = None
    """`(config) -> str`, where the decoded cache depends on more than the data set's name."""


def _moons(config, new):
    """Two moons, 500 and 50 points, noise 0.2 (section 4.1); a balanced test set of 1000 + 1000."""
    from sklearn import datasets

    train_x, train_y = datasets.make_moons((500, 50), noise=0.2, random_state=config.seed)
    test_x, test_y = datasets.make_moons((1000, 1000), noise=0.2, random_state=config.seed + 10**6)
    arrays = _arrays(train_x, train_y, test_x, test_y, np.float32, ("0", "1"))
    cache.fill(new, arrays)


def _digits(config, new):
    """scikit-learn's 1797 digits, 8x8, values 0 to 16; a stratified 500 are the test set."""
    del config
    from sklearn import datasets, model_selection

    data = datasets.load_digits()
    numbers = np.arange(len(data.target))
    train, test = model_selection.train_test_split(
        numbers, test_size=500, random_state=0, stratify=data.target
    )
    images = data.images[..., None]
    train, test = np.sort(train), np.sort(test)
    arrays = _arrays(
        images[train], data.target[train], images[test], data.target[test], np.uint8,
        tuple(str(name) for name in data.target_names),
    )  # fmt: skip
    cache.fill(new, {**arrays, "train_ids": np.array([f"digit_{i}" for i in train])})


def _scenes(config, new):
    """Drawn street scenes, see `scenes`; the same for every seed."""
    del config
    from tavaal_jax.data.sets.scenes import (
        scenes,  # It is also a command, and would be imported twice.
    )

    cache.fill(new, scenes.arrays())


def _arrays(train_images, train_labels, test_images, test_labels, dtype, class_names):
    return {
        "train_images": train_images.astype(dtype),
        "train_labels": train_labels.astype(np.int32),
        "train_ids": np.array([f"train_{i}" for i in range(len(train_labels))]),
        "test_images": test_images.astype(dtype),
        "test_labels": test_labels.astype(np.int32),
        "class_names": np.array(class_names),
    }


SOURCES = {
    "moons": Source(_moons, 550, 2, (2,), embedded=True),
    "digits": Source(_digits, 1297, 10, (8, 8, 1), embedded=True),
    "fashion_mnist": Source(tfds.read, 60_000, 10, (28, 28, 1)),
    "cifar10": Source(tfds.read, 50_000, 10, (32, 32, 3)),
    "cifar100": Source(tfds.read, 50_000, 100, (32, 32, 3)),
    "svhn_cropped": Source(tfds.read, 73_257, 10, (32, 32, 3)),
    "scenes": Source(_scenes, 600, 11, (48, 96, 3), has_maps=True),
    "caltech101": Source(tfds.caltech101, 8125, 102, (224, 224, 3)),
    "cityscapes": Source(
        cityscapes.read, 2975, 19, (1024, 2048, 3), has_maps=True,
        lazily=cityscapes.lazily, cache_name=cityscapes.cache_name,
    ),
}  # fmt: skip


def cache_folder(config) -> pathlib.Path:
    """Where the decoded arrays of a config's data set lie."""
    name = SOURCES[config.dataset].cache_name
    return cache.folder(config.data_dir, name(config) if name else config.dataset)
