"""What stays the same through all trials of a method: its programs, and the data on the devices."""

from typing import Any, NamedTuple

import jax
import numpy as np

from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.data import dataset as datasets
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.labels import Oracle
from tavaal_jax.data.pool import Resident, Streamed
from tavaal_jax.engine import devices, programs
from tavaal_jax.engine.programs import Programs
from tavaal_jax.report import diagnostics


class Setup(NamedTuple):
    """What stays the same through all trials of a method."""

    config: Any
    method: Method
    problem: Classification
    programs: Programs
    train: Resident | Streamed
    """Without labels: they are in the state."""
    test: Resident | Streamed
    oracle: Oracle
    plane: diagnostics.Plane | None = None
    """A grid around the training points, where they are points of the plane."""

    @property
    def size(self) -> int:
        """N"""
        return len(self.train.images)

    def hold(self, tree: Any) -> Any:
        """Puts arrays `[N, ...]` where the training images are."""
        streamed = isinstance(self.train, Streamed)
        return jax.tree.map(np.asarray, tree) if streamed else devices.place(tree)


Placed = tuple[Resident | Streamed, Resident | Streamed]
"""Training and test set."""


def place(config: Any, dataset: Dataset) -> Placed:
    """Training and test set, normalised as the config says; no label of the pool.

    They lie on the devices where the config says so, or, left to itself, where they take less than
    half of a device's memory; else they stay where they are.
    """
    normalise = datasets.normaliser(config, dataset.train_images)
    sets = dataset.resident(normalise)
    size = sum(one.images.nbytes for one in sets)
    if config.feed == "resident" or (config.feed == "auto" and size < devices.memory() / 2):
        placed: Placed = devices.place(sets)
        return placed
    normalise = devices.place(normalise)
    train, test = (Streamed(one.images, one.labels, normalise) for one in sets)
    return train, test


def prepare(
    config: Any,
    method: Method,
    dataset: Dataset,
    placed: Placed,
    oracle: Oracle,
) -> Setup:
    """A method's set-up on a data set that :func:`place` has put on the devices."""
    plane = diagnostics.Plane.around(dataset.train_images) if dataset.is_plane else None
    return Setup(
        config,
        method,
        Classification.of(config, dataset.classes),
        programs.build(config, method, dataset.shape, dataset.classes),
        *placed,
        oracle,
        plane,
    )
