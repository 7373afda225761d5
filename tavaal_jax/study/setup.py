"""What stays the same through all trials of a method: its programs, and the data on the devices."""

from typing import Any, NamedTuple

from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.data import dataset as datasets
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.labels import Oracle
from tavaal_jax.data.pool import Resident
from tavaal_jax.engine import devices, programs
from tavaal_jax.engine.programs import Programs
from tavaal_jax.report import diagnostics


class Setup(NamedTuple):
    """What stays the same through all trials of a method."""

    config: Any
    method: Method
    problem: Classification
    programs: Programs
    train: Resident
    """On the devices, without labels: they are in the state."""
    test: Resident
    oracle: Oracle
    plane: diagnostics.Plane | None = None
    """A grid around the training points, where they are points of the plane."""

    @property
    def size(self) -> int:
        """N"""
        return len(self.train.images)


def place(config: Any, dataset: Dataset) -> tuple[Resident, Resident]:
    """Training and test set on the devices, normalised as the config says; no label of the pool."""
    normalise = datasets.normaliser(config, dataset.train_images)
    placed: tuple[Resident, Resident] = devices.place(dataset.resident(normalise))
    return placed


def prepare(
    config: Any,
    method: Method,
    dataset: Dataset,
    placed: tuple[Resident, Resident],
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
