"""Snapshot of images and labels between two cycles, and what a cycle freezes of it."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tavaal_jax.data.pictures.cache import Decoded
from tavaal_jax.labelling import selection
from tavaal_jax.labelling.frozen import Frozen, LabelRow
from tavaal_jax.labelling.images.files import path_of
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.class_names import Words
from tavaal_jax.labelling.labels.consensus import Consensus, Verdict
from tavaal_jax.labelling.page.static import RequestItem
from tavaal_jax.labelling.passed_over import PassedOver
from tavaal_jax.study.features import Photos


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The pool of images and the verdicts on them, from which requests and cycles are made."""

    images: tuple[Image, ...]
    """The pool, `[N]`."""
    consensus: Consensus
    """Verdicts on images of the pool."""
    fixed_tests: Mapping[str, str]
    """Classes of a fixed test set, by id."""
    reserved: frozenset[str]
    """Images reserved for a random test set, see `selection.reserved`."""
    folder: pathlib.Path
    cache: Decoded | Photos
    """Where the images, or their features, are."""
    passed: Mapping[str, tuple[PassedOver, ...]]
    """What was not read of the images and of the others, see `passed_over`."""
    words: Words
    """Words for answers that are no class."""
    notes: tuple[str, ...]
    """Lines to be logged once."""
    folds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Id of the first image of each one's fold of near-duplicates; empty where none are sought."""

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """Verdicts by image id."""
        return self.consensus.verdicts

    @property
    def files(self) -> dict[str, str]:
        """File of each image, by id."""
        return {image.id: image.file for image in reversed(self.images) if image.id}

    @functools.cached_property
    def _usable(self) -> frozenset[str]:
        return frozenset(image.id for image in self.images if image.status == "ok")

    def is_answerable(self, name: str) -> bool:
        """Whether an image can be labelled, or has been."""
        return name in self._usable or name in self.verdicts

    @functools.cached_property
    def candidates(self) -> np.ndarray:
        """Which images may be asked for as picks, bool `[N]`."""
        answered = self.verdicts.keys() | self.fixed_tests.keys()
        free = selection.candidates(self.images, answered, self.reserved)
        if self.folds:
            once = self._one_of_each(self.images[i].id for i in np.flatnonzero(free))
            free &= np.array([image.id in once for image in self.images], bool)
        return free

    def _one_of_each(self, names: Iterable[str]) -> set[str]:
        """Those that have no near-duplicate with a label, of each fold the first."""
        folds = self.folds
        known = (n for n, verdict in self.verdicts.items() if verdict.kind == "label")
        taken = {folds.get(n, n) for n in (*known, *self.fixed_tests)}
        found: dict[str, str] = {}
        for name in names:
            if folds.get(name, name) not in taken:
                found.setdefault(folds.get(name, name), name)
        return set(found.values())

    def near_duplicates(self, name: str) -> list[str]:
        """Other images in the fold of an image, in the order of `images`."""
        first = self.folds.get(name)
        return [n for n, other in self.folds.items() if other == first and n != name]

    @property
    def labelled(self) -> list[str]:
        """Ids of the usable images whose verdict is a class, in the order of `images`."""
        verdicts = self.verdicts
        names = dict.fromkeys(image.id for image in self.images if image.id in self._usable)
        return [n for n in names if n in verdicts and verdicts[n].kind == "label"]

    @property
    def reserved_left(self) -> set[str]:
        """Usable images reserved for the test set that have no answer yet."""
        left = set(self.reserved) & set(self._usable) - set(self.verdicts)
        if not self.folds:
            return left
        return self._one_of_each(name for name in self.folds if name in left)

    def freeze(self, asked_as_tests: set[str]) -> Frozen:
        """What a cycle that begins now is trained and tested on."""
        rows, left = [], self.reserved_left
        tests = {self.folds.get(name) for name in (*asked_as_tests, *self.fixed_tests)} - {None}
        for name in dict.fromkeys(image.id for image in self.images if image.id):
            verdict = self.verdicts.get(name)
            split = self._split(name, verdict, name in asked_as_tests)
            is_near = split in (None, "train") and self.folds.get(name) in tests
            if is_near or (split == "reserved" and name not in left):
                split = "near_duplicate"  # Of an image that is tested on, or would be.
            if split is None:
                continue
            if verdict is None:
                rows.append(LabelRow(name, "", split))
            else:
                rows.append(LabelRow(name, verdict.label, split, verdict.annotator, verdict.source))
        rows += [LabelRow(name, label, "test") for name, label in self.fixed_tests.items()]
        return Frozen(tuple(i.id for i in self.images), self.consensus.classes, tuple(rows))

    def _split(self, name: str, verdict: Verdict | None, is_test: bool) -> str | None:
        """Split of an image, see `LabelRow`; None where it is unlabelled, or a fixed test image."""
        if name in self.fixed_tests:
            return None
        if verdict is not None and verdict.kind != "label":
            return verdict.kind
        if name not in self._usable:
            return "absent"
        if verdict is None:
            return "reserved" if name in self.reserved else None
        return "test" if is_test else "train"

    def features_of(self, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Those of some images that have features, and these `[n, F]`; missing ones are made."""
        files = self.files
        self.cache.add([(n, path_of(self.folder, files[n])) for n in names])
        rows = self.cache.rows(names)
        there = [name for name, row in zip(names, rows, strict=True) if row >= 0]
        return there, np.asarray(self.cache.array[rows[rows >= 0]])

    def request_item(self, name: str, guesses: Mapping[str, str]) -> RequestItem:
        """An image as a request shows it; `guesses` are the model's predictions by id."""
        file = self.files[name]
        path = pathlib.Path(path_of(self.folder, file))
        return RequestItem(name, file, path, guesses.get(name, ""))
