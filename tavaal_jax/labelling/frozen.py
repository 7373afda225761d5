"""What a cycle is trained on: labels frozen at its beginning, and the data set made of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tavaal_jax import config as configs
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.pool import RowView


class LabelRow(NamedTuple):
    """Label and split of an image in a cycle; images without a row are unlabelled."""

    id: str
    label: str
    """Name of the class; "" for none."""
    split: str
    """train, test, or why it is left out.

    reserved (for the test set), unsure, bad, conflict, absent, near_duplicate (of a test image).
    """
    annotator: str = ""
    source: str = ""


class RequestRow(NamedTuple):
    """An image that a request asks for: a row of asked.csv."""

    id: str
    role: str
    """pick, or test: never trained on."""
    score: float
    """The score by which it was picked; nan where it was drawn at random."""
    verdict_digest: str = ""
    """Digest of its verdict before the request, see `consensus.verdict_digest`; "" for none."""


class Frozen(NamedTuple):
    """All that a cycle is trained on; a resumed one reads nothing else."""

    images: tuple[str, ...]
    """Ids of the pool, `[N]`, in the order of images.csv; copies have the same id."""
    classes: tuple[str, ...]
    rows: tuple[LabelRow, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of training images of each class."""
        found = dict.fromkeys(self.classes, 0)
        for row in self.rows:
            if row.split == "train":
                found[row.label] += 1
        return found


def dataset(
    frozen: Frozen, pixels: np.ndarray, rows_of: Callable[[Sequence[str]], np.ndarray]
) -> Dataset:
    """The data set of a cycle, whose images are rows of a cache `pixels [n, S, S, C]` or `[n, F]`.

    `rows_of(ids)` gives these rows, -1 for an image that is not cached, which is not available.
    """
    rows = rows_of(frozen.images)
    known = {row.id: row for row in frozen.rows}
    numbers = {name: number for number, name in enumerate(frozen.classes)}
    labels = np.full(len(frozen.images), -1, np.int32)
    available = np.ones(len(frozen.images), bool)
    earlier: set[str] = set()
    for index, name in enumerate(frozen.images):
        row = known.get(name)
        if row is not None and row.split == "train":
            labels[index] = numbers[row.label]
        elif row is not None:
            available[index] = False
        is_out = row is not None and row.split in ("absent", "bad")
        if rows[index] < 0 or name in earlier or is_out:
            # Row -1 also keeps them out of the images' mean and standard deviation.
            available[index], labels[index], rows[index] = False, -1, -1
        earlier.add(name)
    tests = [row for row in frozen.rows if row.split == "test"]
    stored = np.uint8 if pixels.dtype == np.uint8 else np.float32  # Features may be float16.
    return Dataset(
        configs.PEOPLE,
        RowView(pixels, rows, stored),
        labels,
        np.array(frozen.images),
        np.asarray(RowView(pixels, rows_of([row.id for row in tests]), stored)),
        np.array([numbers[row.label] for row in tests], np.int32),
        frozen.classes,
        available=available,
    )
