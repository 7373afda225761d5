"""Reads a snapshot: scans the images, decodes new ones, reads all answers, finds folds."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.config import default
from tavaal_jax.data.feature_file import FeatureFile
from tavaal_jax.data.pictures import cache
from tavaal_jax.data.pictures.cache import Decoded
from tavaal_jax.data.pictures.values import overflow_lines
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling import passed_over, selection
from tavaal_jax.labelling.images import inventory
from tavaal_jax.labelling.images.inventory import Image, Log, Progress, Scan
from tavaal_jax.labelling.labels import answers, class_names, consensus, listing
from tavaal_jax.labelling.labels.class_names import Words
from tavaal_jax.labelling.labels.consensus import Consensus
from tavaal_jax.labelling.labels.rows import Answer
from tavaal_jax.labelling.passed_over import PassedOver
from tavaal_jax.labelling.snapshot import Snapshot
from tavaal_jax.labelling.workdir import LabellingWorkdir
from tavaal_jax.study import features, near_duplicates
from tavaal_jax.study.features import Photos

_LOG_EVERY = 5.0  # seconds
_UNMATCHED = "rows fitting no image, left out by labels_strict=False"


class Images(NamedTuple):
    """What a snapshot, and the cycle that begins with it, take images or features from."""

    source: features.Source | None
    """What makes the features; None: there are images."""
    cache: Decoded | Photos


def open_images(config: ConfigDict, workdir: LabellingWorkdir) -> Images:
    """The cache of decoded images for a config, or of their features."""
    options, source = config.folder, features.source(config)
    decoding = options.resize, tuple(options.low_high)
    if source is not None:
        known = workdir.usable_files() if isinstance(source, FeatureFile) else ()
        return Images(source, features.of_photos(config.data_dir, source, *decoding, known))
    shape = (options.image_size, options.image_size, options.channels)
    return Images(None, Decoded(cache.folder(config.data_dir, shape, *decoding), shape, *decoding))


def take_snapshot(
    config: ConfigDict,
    workdir: LabellingWorkdir,
    images: Images,
    log: Log,
    check_stop: Callable[[], None],
    reading: AbstractContextManager[object] | None = None,
) -> Snapshot:
    """Scans the images, decodes new ones and reads all answers; writes images.csv.

    `check_stop` is called often and may raise; answers are read within `reading`. Raises UserError
    for what the user can mend.
    """
    reading = reading or contextlib.nullcontext()
    return _Reader(config, workdir, images.cache, log, check_stop, reading).snapshot()


def image_paths(config: ConfigDict, workdir: LabellingWorkdir, log: Log) -> dict[str, pathlib.Path]:
    """Present paths of the images, and of a fixed test set's, by id; writes no file for people."""
    options = config.folder
    found: dict[str, pathlib.Path] = {}
    for root, known, index in (
        (options.images, workdir.images(), ".scanned"), (options.test, (), ".scanned_tests"),
    ):  # fmt: skip
        if root and user_path(root, "folder.images").is_dir():
            place = workdir.folder / index
            scan = inventory.scan(
                root, known, place, options.max_pixels, follow_links=options.follow_links
            )
            found |= {name: pathlib.Path(path) for name, path in scan.readable}
    if not found:
        log(f"no image is left in {options.images}")
    return found


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads images and answers for a snapshot."""

    config: ConfigDict
    workdir: LabellingWorkdir
    cache: Decoded | Photos
    log: Log
    check_stop: Callable[[], None]
    reading: AbstractContextManager[object]

    def snapshot(self) -> Snapshot:
        config, options = self.config, self.config.folder
        index = self.workdir.folder / ".scanned"
        scan = self._scan(options.images, self.workdir.images(), index, self.log)
        self.workdir.write_images(scan.images)
        said, lists = self._read(scan.images)
        folders = {answer.label for answer in said.answers if answer.is_name}
        tests, kinds = self._fixed_tests(scan.images, folders)
        test_labels = {n: v.label for n, v in tests.verdicts.items() if v.kind == "label"}
        result = self._aggregate(scan.images, said.answers, tests.classes, folders)
        if options.labels_strict:
            self._check_matched(result.unmatched)
        words, notes = self._words(result.classes)
        fraction = 0.0 if options.test else options.test_fraction
        names = [name for name in scan.ids if name not in test_labels]
        folds = self._folds([*scan.ids, *test_labels])
        reserved = selection.reserved(names, config.seed, fraction, folds)
        unmatched = passed_over.collected((_UNMATCHED, line) for line in result.unmatched)
        labels = (*said.passed, *result.passed, *unmatched, *lists, *self.workdir.others())
        passed = {"images": scan.passed, "labels": labels, **kinds}
        return Snapshot(
            scan.images, result, test_labels, frozenset(reserved), scan.folder, self.cache, passed,
            words, (*notes, *tests.notes, *result.notes), folds,
        )  # fmt: skip

    def _folds(self, names: Sequence[str]) -> dict[str, str]:
        """Id of the first image of each one's fold; empty where near-duplicates are not sought."""
        if not self.config.folder.near_duplicates:
            return {}
        rows = self.cache.rows(names)
        there = np.asarray(names, object)[rows >= 0]
        found = near_duplicates.folds(self.config, np.asarray(self.cache.array[rows[rows >= 0]]))
        return dict(zip(there, there[found], strict=True))

    def _read(self, images: Sequence[Image]) -> tuple[answers.Reading, tuple[PassedOver, ...]]:
        """All answers on the pool, and what of the requests' folders was not read."""
        options, workdir = self.config.folder, self.workdir
        named = [user_path(text, "folder.labels") for text in options.labels]
        lists, others = listing.requests(workdir.folder, named)
        classes = tuple(options.classes)
        with self.reading:
            said = answers.read(
                workdir.answers,
                [*named, *lists],
                classes=classes,
                keep_annotators=options.keep_annotators,
            )
        folders = answers.from_class_folders(
            images, classes, options.class_folders, "folder.images"
        )
        every = answers.Reading([*said.answers, *folders.answers], (*said.passed, *folders.passed))
        return every, others

    def _words(self, classes: Sequence[str]) -> tuple[Words, tuple[str, ...]]:
        """Words for answers that are no class, and a line for each word that has become one."""
        options = self.config.folder
        words = class_names.words_in_force(
            classes, tuple(options.unsure), tuple(options.exclude_answers)
        )
        notes = []
        for word in words.dropped:
            is_bad = word in options.exclude_answers
            instead = (words.bad if is_bad else words.unsure)[0]
            what = "is not for training" if is_bad else "nobody can tell"
            notes.append(
                f'"{word}" is a class here, as a folder or folder.classes has that name: say'
                f' "{instead}" of an image that {what}'
            )
        return words, tuple(notes)

    def _scan(
        self,
        root: str | pathlib.Path,
        known: Sequence[Image],
        index_file: pathlib.Path,
        log: Log,
        key: str = "--config.folder.images",
    ) -> Scan:
        """Scans a folder of images and decodes them all into the cache; logs what has changed."""
        options, photos = self.config.folder, self.cache
        verb = "computed features of" if features.is_on(self.config) else "decoded"
        read, decoded = self._progress("read", log), self._progress(verb, log)
        scan = inventory.scan(
            root, known, index_file, options.max_pixels, read, key, options.follow_links
        )
        faults = photos.add(scan.readable, decoded)
        if isinstance(photos, FeatureFile):
            scan = scan.with_faults(faults, "--config.backbone.features", "no_features")
        else:
            scan = scan.with_faults(faults, key)
        before = {image.id for image in known}
        new = photos.overflows(image.id for image in scan.images if image.id not in before)
        for line in [*scan.changes(known), *overflow_lines(new, "folder.low_high")]:
            log(line)
        return scan

    def _progress(self, verb: str, log: Log) -> Progress:
        """A callback that logs every few seconds what was read or decoded."""
        begin = last = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal last
            self.check_stop()
            now = time.monotonic()
            if now - last > _LOG_EVERY or (done == total and last > begin):
                last = now
                log(f"{verb} {done:,} of {total:,} images")

        return progress

    def _aggregate(
        self,
        images: Sequence[Image],
        found: Sequence[Answer],
        classes: Sequence[str],
        folders: Collection[str],
    ) -> Consensus:
        """The consensus of answers; `folders` are names of all class folders."""
        options = self.config.folder
        given = {"unsure": options.unsure, "bad": options.exclude_answers}
        usual = default().folder
        before = {"unsure": usual.unsure, "bad": usual.exclude_answers}
        # Whoever has given the words or the classes has thought of what they mean.
        ask = [k for k in given if tuple(given[k]) == tuple(before[k]) and not options.classes]
        return consensus.aggregate(
            images, found, classes=classes, fixed=bool(options.classes), named=folders, ask=ask,
            unsure=tuple(options.unsure), bad=tuple(options.exclude_answers),
        )  # fmt: skip

    def _fixed_tests(
        self, pool: Sequence[Image], folders: Collection[str]
    ) -> tuple[Consensus, dict[str, tuple[PassedOver, ...]]]:
        """Labels of a fixed test set, and what of it was not read, by its place in status.json.

        Without one, only the classes known so far; `folders` are names of the pool's class folders.
        """
        options = self.config.folder
        known = tuple(options.classes) or self.workdir.classes()
        if not options.test:
            return Consensus({}, (), known), {}
        path, images = user_path(options.test, "folder.test"), pool
        other: tuple[PassedOver, ...] = ()
        if path.is_file():  # Its rows name images of the pool.
            found = answers.read(None, (path,))
        else:
            index = self.workdir.folder / ".scanned_tests"
            log: Log = (lambda text: None) if index.exists() else self.log
            scan = self._scan(path, (), index, log, "--config.folder.test")
            images, other = scan.images, scan.passed
            classes = tuple(options.classes)
            found = answers.from_class_folders(images, classes, True, "folder.test")
        result = self._aggregate(images, found.answers, known, folders)
        self._check_matched(result.unmatched)
        if not result.verdicts:
            raise UserError(
                f"folder.test is {options.test}: give a folder with a sub-folder of images per"
                " class, or a csv with file and label of images of the pool"
            )
        return result, {"test": (*other, *found.passed, *result.passed)}

    def _check_matched(self, unmatched: Sequence[str]) -> None:
        """Raises UserError for rows that name no image."""
        if unmatched:
            more = f" (and {len(unmatched) - 1} more rows)" if len(unmatched) > 1 else ""
            raise UserError(
                f"{unmatched[0]}{more}; or leave such rows out by"
                " --config.folder.labels_strict=False"
            )
