"""Writes predictions.csv: a model's prediction for each image, with all probabilities."""

import contextlib
import csv
import io
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tavaal_jax.labelling.labels.cells import escape_formula
from tavaal_jax.report import files


class PredictionRow(NamedTuple):
    """The model's probabilities for an image, and what is known of it."""

    id: str
    file: str
    probabilities: np.ndarray
    """`[K]` float32."""
    split: str | None = None
    """train, test, unlabelled, ...; None: the file has no such column."""
    label: str | None = None
    """The annotators' label; "" for none."""


def write(path: pathlib.Path, classes: Sequence[str], rows: Iterable[PredictionRow]) -> None:
    """Writes a row per image; an exception from `rows` leaves the file as it was.

    Columns: id, file, split and label where the first row has them, predicted, confidence,
    `p_<class>` for each of `classes`. Probabilities are the shortest decimals that give the same
    float32 again; cells that a spreadsheet would take for a formula begin with an apostrophe.
    """
    # Two processes may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with files.named(path):
        file = temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    try:
        for cells in _rows(classes, rows):
            with files.named(path):
                file.write(_line(cells))
        with files.named(path):
            file.close()
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _rows(classes: Sequence[str], rows: Iterable[PredictionRow]) -> Iterator[list[str]]:
    """The header, then the cells of each row."""
    rows = iter(rows)
    first = next(rows, None)
    has_split = first is not None and first.split is not None
    known = ["split", "label"] if has_split else []
    yield ["id", "file", *known, "predicted", "confidence", *(f"p_{name}" for name in classes)]
    for row in itertools.chain([] if first is None else [first], rows):
        best = int(np.argmax(row.probabilities))
        known = [row.split or "", escape_formula(row.label or "")] if has_split else []
        # str of a float32 is the shortest decimal that gives it again.
        texts = [str(probability) for probability in row.probabilities]
        yield [
            row.id,
            escape_formula(row.file),
            *known,
            escape_formula(classes[best]),
            texts[best],
            *texts,
        ]


def _line(cells: Sequence[str]) -> str:
    """A line of the csv, ended by a newline."""
    text = io.StringIO()
    # With "\n" alone for an end, "\r" in a cell would not be quoted before Python 3.13.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
