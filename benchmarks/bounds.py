"""Claim: between the best method on features and what is possible there is room.

    python benchmarks/bounds.py clothing.npz --settings=all --trials=5 [--candidates=20]

Two bounds of the studies of `methods_on_features.py`, with the same head. "all labels" is T with
the labels of the whole pool. "oracle" starts from the images that `random` started from in the
same trial, draws `candidates` random batches for each request, fits T with each, and keeps the one
with the highest accuracy on the *test* set: it looks at the labels of the candidates and of the
test images, so it is no method, and its accuracy is too high for the same reason. A better bound
would search more batches. It needs no other results; trials that are in <study>_bounds.csv are
kept.
"""

import argparse
import itertools
import pathlib
import sys

import jax
import methods_on_features as study
import numpy as np

import tavaal_jax
from tavaal_jax.algorithm import logistic
from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import Dataset, plans
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.report import files

FIELDS = ("bound", "trial", "labelled", *study.METRICS)
ALL, ORACLE = "all labels", "oracle (sees the test labels)"
_fit = jax.jit(logistic.fit, static_argnums=1)


class Head:
    """The linear T of a study, trained and tested on a data set."""

    def __init__(self, dataset: Dataset):
        """Normalises the features as the study does."""
        normaliser = Normaliser.of_features(dataset.train_images)
        scale = lambda z: (np.asarray(z, np.float32) - normaliser.mean) / normaliser.std
        self.pool, self.test = scale(dataset.train_images), scale(dataset.test_images)
        self.labels, self.test_labels = dataset.train_labels, dataset.test_labels
        self.classes = dataset.classes
        self.problem = Classification(self.classes, metrics=study.METRICS)

    def metrics(self, rows: np.ndarray) -> np.ndarray:
        """`study.METRICS` on the test set with the labels of `rows`."""
        length = max(32, 1 << (len(rows) - 1).bit_length())
        padded = np.resize(np.sort(rows), length)  # Folds are dealt out in this order.
        weights = (np.arange(length) < len(rows)).astype(np.float32)
        examples = logistic.Examples(self.pool[padded], self.labels[padded], weights)
        head, _ = jax.device_get(_fit(examples, self.classes))
        found = np.argmax(self.test @ head.kernel + head.bias, 1)
        count = lambda labels: np.bincount(labels, minlength=self.classes)
        right = count(self.test_labels[found == self.test_labels])
        return self.problem.summarise(np.stack([right, count(self.test_labels), count(found)]))


def oracle(
    head: Head, start: np.ndarray, budget: int, requests: int, candidates: int, trial: int
) -> list[tuple[int, np.ndarray]]:
    """Numbers of labels and metrics, greedily with the best of some random batches."""
    rows = start
    curve = [(len(rows), head.metrics(rows))]
    for number in range(requests):
        random = np.random.default_rng([trial, number])
        rest = np.setdiff1d(np.arange(len(head.pool)), rows)
        tried = []
        for _ in range(candidates):
            more = np.concatenate([rows, random.choice(rest, budget, replace=False)])
            tried.append((head.metrics(more), more))
        best, rows = max(tried, key=lambda found: found[0][0])
        curve.append((len(rows), best))
    return curve


def first_images(trial: int, size: int, count: int) -> np.ndarray:
    """What a study's trial starts from, of all methods, where `first_by` is random."""
    key = derive(jax.random.key(tavaal_jax.default_config().seed), trial, Stream.INITIAL)
    return plans.initial(key, size, count)


def bound(path: pathlib.Path, name: str, given: argparse.Namespace) -> None:
    """Adds what is missing to <study>_bounds.csv."""
    setting = study.SETTINGS[name]
    dataset = study.dataset_of(path, setting)
    stem = study.stem_of(path.stem, name, given)
    to = given.workdir / f"{stem}_bounds.csv"
    rows: list[dict[str, object]] = list(files.read_csv(to))
    there = {(row["bound"], int(str(row["trial"]))) for row in rows}
    head = Head(dataset)
    initial, budget, cycles = study.sizes(dataset.classes, setting)

    def keep(bound: str, trial: int, curve: list[tuple[int, np.ndarray]]) -> None:
        for labelled, values in curve:
            metrics = {m: f"{v:.6f}" for m, v in zip(study.METRICS, values, strict=True)}
            rows.append({"bound": bound, "trial": trial, "labelled": labelled, **metrics})
        files.write(to, files.as_csv(FIELDS, rows))
        print(f"{stem}: {bound}, trial {trial}", flush=True)

    if (ALL, 0) not in there:
        every = np.arange(len(head.pool))
        keep(ALL, 0, [(len(every), head.metrics(every))])
    for trial in range(given.trials):
        if (ORACLE, trial) in there:
            continue
        start = first_images(trial, len(head.pool), initial)
        curve = oracle(head, start, budget, cycles - 1, given.candidates, trial)
        keep(ORACLE, trial, curve)


def main() -> int:
    """Command line."""
    parser = study.parser_of(__doc__)
    parser.add_argument("names", nargs="+", type=pathlib.Path, help="files of features")
    parser.add_argument("--candidates", type=int, default=20, help="batches the oracle tries")
    given = parser.parse_args()
    if given.first_by != BASELINE:
        parser.error(f"--first_by is {given.first_by}: give {BASELINE}, the oracle starts so")
    for path, name in itertools.product(given.names, given.settings):
        bound(path, name, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
