"""People's own images as a data set: rows of the decoded cache, in the order of images.csv."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tavaal_jax import config as configs
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.pool import RowView


class LabelRow(NamedTuple):
    """What a cycle knows of an image; of all others it knows nothing."""

    id: str
    label: str
    """Name of the class; "" where it has none."""
    split: str
    """train, test, or why it is left out: reserved, unsure, bad, conflict, absent."""
    annotator: str = ""
    source: str = ""


class RequestRow(NamedTuple):
    """An image that a cycle asks for; a row of asked.csv."""

    id: str
    role: str
    """pick, or test: never trained on."""
    score: float
    """With which it was picked; nan where it was drawn at random."""
    said: str = ""
    """What people had said of it, see `ledger.digest`; "" for nothing."""


class Frozen(NamedTuple):
    """All that a cycle is trained on; resume reads nothing else."""

    images: tuple[str, ...]
    """Ids of the pool, `[N]`, in the order of images.csv; a content that occurs twice does, too."""
    classes: tuple[str, ...]
    rows: tuple[LabelRow, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Training images of each class."""
        found = dict.fromkeys(self.classes, 0)
        for row in self.rows:
            if row.split == "train":
                found[row.label] += 1
        return found


def dataset(
    frozen: Frozen, pixels: np.ndarray, rows_of: Callable[[Sequence[str]], np.ndarray]
) -> Dataset:
    """The data set of a cycle: `pixels [n, S, S, C]` of decoded images.

    `rows_of(ids)` are their rows, -1 for one that is not there, and so not available.
    """
    rows = rows_of(frozen.images)
    known = {row.id: row for row in frozen.rows}
    numbers = {name: number for number, name in enumerate(frozen.classes)}
    labels = np.full(len(frozen.images), -1, np.int32)
    available = np.ones(len(frozen.images), bool)
    seen: set[str] = set()
    for index, name in enumerate(frozen.images):
        row = known.get(name)
        if row is not None and row.split == "train":
            labels[index] = numbers[row.label]
        elif row is not None:
            available[index] = False
        is_out = row is not None and row.split in ("absent", "bad")
        if rows[index] < 0 or name in seen or is_out:
            # Statistics of the images are of what was frozen, whatever else is decoded.
            available[index], labels[index], rows[index] = False, -1, -1
        seen.add(name)
    tested = [row for row in frozen.rows if row.split == "test"]
    return Dataset(
        configs.PEOPLE,
        RowView(pixels, rows),  # type: ignore[arg-type]
        labels,
        np.array(frozen.images),
        np.asarray(RowView(pixels, rows_of([row.id for row in tested]))),
        np.array([numbers[row.label] for row in tested], np.int32),
        frozen.classes,
        available=available,
    )
