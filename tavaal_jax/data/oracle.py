"""Oracles: the only source of training images' labels for a method."""

from typing import Protocol

import numpy as np

from tavaal_jax.data.dataset import Dataset
from tavaal_jax.errors import WaitingForLabels


class Oracle(Protocol):
    """Answers for images that were picked."""

    def answer(self, indices: np.ndarray) -> np.ndarray:
        """Labels of the images `indices [n]`: int32 `[n]`, -1 where there is no answer yet."""
        ...

    def reveal(self, indices: np.ndarray) -> np.ndarray | None:
        """True labels for diagnostics alone, int32 `[n]`; None where nobody knows them.

        Of a map only 0, that it is known: the pool has it.
        """
        ...

    def class_counts(self, indices: np.ndarray) -> np.ndarray:
        """For diagnostics alone: 1 for an image's class, or pixels of each, `[n, K]`."""
        ...


class SimulatedOracle:
    """A simulation's oracle: the data set has the labels, and it answers at once."""

    def __init__(self, labels: np.ndarray, pixels: np.ndarray | None = None):
        """`labels` int32 `[N]`, all known, or 0 for maps with `pixels [N, K]` of each class."""
        if (np.asarray(labels) < 0).any():
            raise ValueError("SimulatedOracle knows every label: -1 is not one")
        self._labels, self._pixels = np.asarray(labels, np.int32), pixels

    @classmethod
    def of(cls, dataset: Dataset) -> "SimulatedOracle":
        """The oracle that knows all labels of a data set."""
        labels = dataset.train_labels
        return cls(np.zeros(len(labels)), dataset.pixels) if dataset.has_maps else cls(labels)

    def answer(self, indices: np.ndarray) -> np.ndarray:
        """See `Oracle`."""
        return self._labels[indices]

    def reveal(self, indices: np.ndarray) -> np.ndarray:
        """See `Oracle`."""
        return self._labels[indices]

    def class_counts(self, indices: np.ndarray) -> np.ndarray:
        """See `Oracle`."""
        if self._pixels is not None:
            return self._pixels[indices]
        return np.equal.outer(self._labels[indices], np.arange(self._labels.max() + 1))


class HumanOracle:
    """People, who answer later: their answers by now are the data set's labels, -1 for none."""

    def answer(self, indices: np.ndarray) -> np.ndarray:
        """Raises WaitingForLabels: the next cycle begins with their answers."""
        raise WaitingForLabels(f"{len(indices)} images to label")

    def reveal(self, indices: np.ndarray) -> None:
        """None: true labels are unknown."""
        del indices

    def class_counts(self, indices: np.ndarray) -> np.ndarray:
        """Not available: true labels are unknown."""
        raise NotImplementedError
