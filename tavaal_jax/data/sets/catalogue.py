"""SETS, all data sets by name: of scikit-learn (embedded), of TFDS, drawn, and in folders."""

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data import cache
from tavaal_jax.data.cache import New
from tavaal_jax.data.sets import cityscapes, labelled_folder, maps_folder, tfds
from tavaal_jax.data.sets.source import DataFacts, DataSource, cached, embedded


def _moons(config: ConfigDict, new: New) -> None:
    """Two moons, 500 and 50 points, noise 0.2 (section 4.1); a balanced test set of 1000 + 1000."""
    from sklearn import datasets

    train_x, train_y = datasets.make_moons((500, 50), noise=0.2, random_state=config.seed)
    test_x, test_y = datasets.make_moons((1000, 1000), noise=0.2, random_state=config.seed + 10**6)
    arrays = _arrays(train_x, train_y, test_x, test_y, np.float32, ("0", "1"))
    cache.fill(new, arrays)


def _digits(config: ConfigDict, new: New) -> None:
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


def _scenes(config: ConfigDict, new: New) -> None:
    """Drawn street scenes, see `scenes`; the same for every seed."""
    del config
    from tavaal_jax.data.sets.scenes import (
        scenes,  # It is also a command, and would be imported twice.
    )

    cache.fill(new, scenes.arrays())


def _arrays(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    dtype: type[np.generic],
    class_names: tuple[str, ...],
) -> dict[str, np.ndarray]:
    return {
        "train_images": train_images.astype(dtype),
        "train_labels": train_labels.astype(np.int32),
        "train_ids": np.array([f"train_{i}" for i in range(len(train_labels))]),
        "test_images": test_images.astype(dtype),
        "test_labels": test_labels.astype(np.int32),
        "class_names": np.array(class_names),
    }


def _cifar(classes: int) -> DataSource:
    return cached(tfds.read, DataFacts(50_000, classes, (32, 32, 3)))


SETS: dict[str, DataSource] = {
    "moons": embedded(_moons, DataFacts(550, 2, (2,))),
    "digits": embedded(_digits, DataFacts(1297, 10, (8, 8, 1))),
    "fashion_mnist": cached(tfds.read, DataFacts(60_000, 10, (28, 28, 1))),
    "cifar10": _cifar(10),
    "cifar100": _cifar(100),
    "svhn_cropped": cached(tfds.read, DataFacts(73_257, 10, (32, 32, 3))),
    "scenes": cached(_scenes, DataFacts(600, 11, (48, 96, 3), has_maps=True)),
    "caltech101": cached(tfds.caltech101, DataFacts(8125, 102, (224, 224, 3))),
    "cityscapes": DataSource(
        cityscapes.load, cityscapes.FACTS, cityscapes.is_at_hand, has_statistics=True
    ),
    "labelled_folder": DataSource(
        labelled_folder.load, labelled_folder.facts, labelled_folder.is_at_hand,
        labelled_folder.fingerprint,
    ),
    "maps_folder": DataSource(
        maps_folder.load, maps_folder.facts, maps_folder.is_at_hand, maps_folder.fingerprint,
        has_statistics=True,
    ),
}  # fmt: skip
"""Data sets by the name that a config gives; a script or a config file may add its own."""
