"""What there is between two cycles: images, what people have said of them, decoded pixels."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data.pictures import cache as picture_cache
from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.cache import Decoded
from tavaal_jax.errors import UserError
from tavaal_jax.labelling import requests, selection
from tavaal_jax.labelling.frozen import Frozen, LabelRow
from tavaal_jax.labelling.images import inventory
from tavaal_jax.labelling.images.inventory import Image, Scan
from tavaal_jax.labelling.labels import answers, consensus
from tavaal_jax.labelling.labels.consensus import Consensus
from tavaal_jax.labelling.workdir import LabellingWorkdir

Say = Callable[[str], None]
_SAY_EVERY = 5.0  # seconds


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a request, or the next cycle, is made of."""

    images: tuple[Image, ...]
    """The pool, `[N]`."""
    ledger: Consensus
    """What people have said of it."""
    tested: Mapping[str, str]
    """Classes of a fixed test set, by id."""
    kept: frozenset[str]
    """Images that are kept for a random test set, see `asking.reserved`."""
    folder: pathlib.Path

    @property
    def files(self) -> dict[str, str]:
        """Of each id."""
        return {image.id: image.file for image in reversed(self.images) if image.id}

    @functools.cached_property
    def _is_there(self) -> frozenset[str]:
        return frozenset(image.id for image in self.images if image.status == "ok")

    def can_be_answered(self, name: str) -> bool:
        """Whether an image is there to be labelled, or has been."""
        return name in self._is_there or name in self.ledger.entries

    @functools.cached_property
    def candidates(self) -> np.ndarray:
        """Which images can be asked for as picks, bool `[N]`."""
        answered = self.ledger.entries.keys() | self.tested.keys()
        return selection.candidates(self.images, answered, self.kept)

    @property
    def labelled(self) -> list[str]:
        """Images of the pool whose class people have said."""
        entries = self.ledger.entries
        return [
            name for name in self._is_there if name in entries and entries[name].kind == "label"
        ]

    @property
    def kept_left(self) -> set[str]:
        """Images of the random test set that nobody has said anything of."""
        return set(self.kept) & set(self._is_there) - set(self.ledger.entries)

    def freeze(self, asked_as_tests: set[str]) -> Frozen:
        """What a cycle may be trained on and tested on, now."""
        rows = []
        for name in dict.fromkeys(image.id for image in self.images if image.id):
            entry = self.ledger.entries.get(name)
            label = "" if entry is None else entry.label
            if name in self.tested:
                continue
            if entry is not None and entry.kind != "label":
                split = entry.kind
            elif name not in self._is_there:
                split = "absent"
            elif entry is None and name not in self.kept:
                continue
            elif entry is None:
                split = "reserved"
            else:
                split = "test" if name in asked_as_tests else "train"
            said = ("", "") if entry is None else (entry.annotator, entry.source)
            rows.append(LabelRow(name, label, split, *said))
        rows += [LabelRow(name, label, "test") for name, label in self.tested.items()]
        return Frozen(tuple(i.id for i in self.images), self.ledger.classes, tuple(rows))

    def picture(self, path: pathlib.Path, pixels: int, config: ConfigDict) -> bytes:
        """A JPEG of an image, its longer side at most `pixels`."""
        options = config.folder
        try:
            return decode.preview(path, pixels, tuple(options.low_high), options.max_pixels)
        except decode.Corrupt as error:
            raise OSError(f"{path}: {error}") from error

    def asked(self, name: str, guesses: Mapping[str, str]) -> requests.RequestItem:
        """An image as a request shows it."""
        file = self.files[name]
        return requests.RequestItem(name, file, self.folder / file, guesses.get(name, ""))


def cache(config: ConfigDict) -> Decoded:
    """The decoded images of a config."""
    options = config.folder
    shape = (options.image_size, options.image_size, options.channels)
    how = options.resize, tuple(options.low_high)
    return Decoded(picture_cache.folder(config.data_dir, shape, *how), shape, *how)


def take_snapshot(
    config: ConfigDict, workdir: LabellingWorkdir, say: Say, stop: Callable[[], None]
) -> Snapshot:
    """Scans the images, decodes what is new, reads what people have said. Writes images.csv."""
    options = config.folder
    found = _scanned(
        config, options.images, workdir.images(), workdir.folder / ".scanned", say, stop
    )
    workdir.write_images(found.images)
    judge = functools.partial(
        consensus.aggregate, fixed=bool(options.classes),
        unsure=tuple(options.unsure), bad=tuple(options.exclude_answers),
    )  # fmt: skip
    tests = _tests(config, found, workdir, judge, say, stop)
    tested = {k: entry.label for k, entry in tests.entries.items() if entry.kind == "label"}
    said, _ = answers.read(
        workdir.answers, _more(config, workdir), keep_annotators=options.keep_annotators
    )
    said += answers.of_class_folders(
        found.images, tuple(options.classes), options.class_folders, "folder.images"
    )
    settled = judge(found.images, said, classes=tests.classes)
    _refuse(settled.refused, options.labels_strict, say)
    fraction = 0.0 if options.test else options.test_fraction
    names = [name for name in found.ids if name not in tested]
    kept = selection.reserved(names, config.seed, fraction)
    return Snapshot(found.images, settled, tested, frozenset(kept), found.folder)


def _scanned(config, root, known, index_file, say, stop, key="--config.folder.images") -> Scan:
    """What lies in a folder; all that can be decoded is in the cache."""

    def tell(verb):
        begin = time.monotonic()
        said = [begin]

        def progress(done: int, total: int) -> None:
            stop()
            now = time.monotonic()
            if now - said[0] > _SAY_EVERY or (done == total and said[0] > begin):
                said[0] = now
                say(f"{verb} {done:,} of {total:,} images")

        return progress

    found = inventory.scan(
        root, known, index_file, config.folder.max_pixels, say, tell("read"), key
    )
    return found.without(cache(config).add(found.readable, tell("decoded")), known, say)


def _tests(config, found, workdir, judge, say, stop) -> Consensus:
    """What is known of a fixed test set; with no test set, nothing but the classes known so far."""
    options, known = config.folder, tuple(config.folder.classes) or workdir.classes()
    if not options.test:
        return Consensus({}, (), known)
    path, images = pathlib.Path(options.test).expanduser(), found.images
    if path.is_file():  # Rows of it name images of the pool.
        said, _ = answers.read(None, (path,))
    else:
        there = workdir.folder / ".scanned_tests"
        quiet = (lambda text: None) if there.exists() else say
        images = _scanned(config, path, (), there, quiet, stop, "--config.folder.test").images
        said = answers.of_class_folders(images, (), True, "folder.test")
    settled = judge(images, said, classes=known)
    _refuse(settled.refused, True, say)
    if not settled.entries:
        raise UserError(
            f"folder.test is {options.test}: give a folder with a sub-folder of images per class,"
            " or a csv with file and label of images of the pool"
        )
    return settled


def paths(config: ConfigDict, workdir: LabellingWorkdir, say: Say) -> dict[str, pathlib.Path]:
    """Where the images lie now, those of a fixed test set too, by id. Writes nothing."""
    options = config.folder
    found: dict[str, pathlib.Path] = {}
    for root, known, index in (
        (options.images, workdir.images(), ".scanned"), (options.test, (), ".scanned_tests"),
    ):  # fmt: skip
        if root and pathlib.Path(root).expanduser().is_dir():
            place = workdir.folder / index
            there = inventory.scan(root, known, place, options.max_pixels, lambda text: None)
            found.update(there.readable)
    if not found:
        say(f"no image is left in {options.images}")
    return found


def _more(config, workdir):
    """Further label files: those that the config names, and lists of requests, filled in."""
    named = [pathlib.Path(text).expanduser() for text in config.folder.labels]
    return [*named, *sorted(workdir.folder.glob("to_label/*/to_label*.csv"))]


def _refuse(refused: Sequence[str], strict: bool, say: Say) -> None:
    if refused and strict:
        more = f" (and {len(refused) - 1} more rows)" if len(refused) > 1 else ""
        raise UserError(
            f"{refused[0]}{more}; or leave such rows out by --config.folder.labels_strict=False"
        )
    for line in refused[:5]:
        say(f"warning: {line}; left out")
    if len(refused) > 5:
        say(f"warning: {len(refused) - 5} more rows are left out")
