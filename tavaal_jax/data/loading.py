"""Data sets by name: their size before they are loaded, and loading them."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data import image_statistics
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.sets.catalogue import SETS
from tavaal_jax.data.sets.source import DataFacts
from tavaal_jax.errors import UserError

_LARGEST_SEEN = 64  # Side of what a VAE sees of images that are larger, by default.


def facts(config: ConfigDict) -> DataFacts:
    """Size, classes and shape of the config's data set, without loading it if its source can.

    Raises UserError for what the source cannot do with the config.
    """
    found = SETS[config.dataset].facts
    if found is None:
        data = _loaded(config)
        return DataFacts(len(data.train_images), data.classes, data.shape, data.has_maps)
    return found if isinstance(found, DataFacts) else found(config)


def is_at_hand(config: ConfigDict) -> bool:
    """Whether `load` reads what is there: no download, no decoding of a whole data set."""
    return config.dataset in SETS and SETS[config.dataset].is_at_hand(config)


def fingerprint(config: ConfigDict) -> str | None:
    """Digest of a data set's files where the config alone does not identify them, else None."""
    source = SETS.get(config.dataset)
    return None if source is None or source.fingerprint is None else source.fingerprint(config)


def load(config: ConfigDict) -> Dataset:
    """The data set of a config, decoded once into a cache, with its imbalance applied.

    Raises UserError where it can neither be found nor be had.
    """
    dataset = _loaded(config)
    if SETS[config.dataset].has_statistics:
        size = config.vae.image_size or _LARGEST_SEEN
        found = image_statistics.of(
            dataset.train_images, dataset.train_labels, dataset.classes, size, config.data_dir
        )
        dataset = dataclasses.replace(dataset, image_statistics=found)
    if config.imbalance.ratio > 1:
        dataset = thinned(dataset, config.imbalance.ratio, tuple(config.imbalance.classes))
    return dataset


def _loaded(config: ConfigDict) -> Dataset:
    dataset = SETS[config.dataset].load(config)
    if not isinstance(dataset, Dataset):
        raise UserError(
            f"SETS[{config.dataset!r}].load returned {type(dataset).__name__}: return a"
            " tavaal_jax.Dataset, such as Dataset.from_arrays makes"
        )
    return dataclasses.replace(dataset, name=config.dataset)


def thinned(dataset: Dataset, ratio: int, classes: tuple[int, ...]) -> Dataset:
    """Keeps the first 1/ratio of the training images of `classes`, in the data set's order.

    No key: the pool is the same for every seed, trial and machine.
    """
    labels = dataset.train_labels
    keep = np.ones(len(labels), bool)
    for label in classes:
        members = np.flatnonzero(labels == label)
        keep[members[max(1, len(members) // ratio) :]] = False
    files = dataset.train_files
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[keep],
        train_labels=labels[keep],
        train_ids=dataset.train_ids[keep],
        train_files=None if files is None else files.only(np.flatnonzero(keep)),
    )
