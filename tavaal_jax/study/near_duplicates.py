"""Near-duplicates in studies and in people's loop, `folder.near_duplicates`: one of each is asked.

They are found by the features that T is trained on, as a backbone or a file gives them.
"""

import dataclasses
import hashlib

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm import near_duplicates
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.errors import UserError

KEY = "folder.near_duplicates"
_kept: list[tuple[str, np.ndarray]] = []  # the last folds: people's loop looks again and again


def folds(config: ConfigDict, features: np.ndarray) -> np.ndarray:
    """Folds int32 `[N]` of features `[N, F]`, see `algorithm.near_duplicates`."""
    cosine = float(config.folder.near_duplicates)
    digest = hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()
    name = f"{cosine} {features.shape} {digest}"
    for known, found in _kept:
        if known == name:
            return found
    found = near_duplicates.folds(features, cosine)
    _kept[:] = [(name, found)]
    return found


def left_out(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The data set with its folds; training images in a fold with a test image are not available.

    The test set stays as it is. Without `folder.near_duplicates` all does.
    """
    if not config.folder.near_duplicates:
        return dataset
    size = len(dataset.train_images)
    every = np.concatenate([np.asarray(dataset.train_images), np.asarray(dataset.test_images)])
    found = folds(config, every)
    available = ~np.isin(found[:size], found[size:])
    if dataset.available is not None:
        available &= dataset.available
    return dataclasses.replace(dataset, folds=found[:size], available=available)


def check_size(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError where a study would label more images than there are without the others."""
    if dataset.folds is None:
        return
    nothing, available = np.zeros(len(dataset.folds), bool), dataset.available
    assert available is not None
    left = int(near_duplicates.one_of_each(dataset.folds, available, nothing).sum())
    needed = config.initial + config.budget * (config.cycles - 1)
    if needed > left:
        raise UserError(
            f"{KEY} is {config.folder.near_duplicates}, which leaves {left} of {len(nothing)}"
            f" training images, and initial + budget * (cycles - 1) = {needed}: raise it, or lower"
            " cycles, budget or initial"
        )
