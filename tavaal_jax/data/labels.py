"""Who says what an image shows. Nobody else hands out labels of training images."""

from typing import Protocol

import numpy as np


class Oracle(Protocol):
    """Answers for images that were picked."""

    def answer(self, indices: np.ndarray) -> np.ndarray:
        """Labels of the images `indices [n]`: int32 `[n]`, -1 where there is no answer yet."""
        ...

    def reveal(self, indices: np.ndarray) -> np.ndarray | None:
        """True labels for diagnostics alone, int32 `[n]`; None where nobody knows them."""
        ...


class Known:
    """A simulation's oracle: the data set has the labels, and it answers at once."""

    def __init__(self, labels: np.ndarray):
        """`labels` int32 `[N]`, all known."""
        if (np.asarray(labels) < 0).any():
            raise ValueError("Known knows every label: -1 is not one")
        self._labels = np.asarray(labels, np.int32)

    def answer(self, indices: np.ndarray) -> np.ndarray:
        """See `Oracle`."""
        return self._labels[indices]

    def reveal(self, indices: np.ndarray) -> np.ndarray:
        """See `Oracle`."""
        return self._labels[indices]
