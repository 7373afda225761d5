"""One's own labelled photos as a data set: a sub-folder per class, with a test set or without.

`<path>/train/<class>/*` and `<path>/test/<class>/*` (or `val`), as of torchvision's ImageFolder, or
`<path>/<class>/*`, of which a share is the test set. Ids are paths below `path`.
"""

import collections
import concurrent.futures
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data import cache
from tavaal_jax.data.cache import New, fill
from tavaal_jax.data.dataset import Dataset, PhotoFiles
from tavaal_jax.data.pictures import cache as picture_cache
from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.values import overflow_lines
from tavaal_jax.data.pool import RowView
from tavaal_jax.data.sets.source import DataFacts
from tavaal_jax.data.sets.walk import PassedOver, files_below, folders_in, path_of, stamp, text
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".avif",
)  # fmt: skip
"""Endings of photos; what is in the last three formats is named as one to convert."""


class _Photo(NamedTuple):
    name: str
    """Path below the folder, with slashes."""
    path: pathlib.Path
    label: str
    is_test: bool
    content: str = ""
    """Content id, once its file was read."""


class _Listing(NamedTuple):
    """The photos by their names and places alone."""

    photos: list[_Photo]
    is_split: bool
    """Whether the folder has a test set of its own."""
    passed: PassedOver
    notes: list[str]


def _root(config: ConfigDict) -> pathlib.Path:
    return user_path(config.labelled_folder.path, "labelled_folder.path")


def facts(config: ConfigDict) -> DataFacts:
    """Classes and number of photos from a listing; UserError for a folder that cannot be used."""
    options, root = config.labelled_folder, _root(config)
    if not options.path:
        raise UserError("labelled_folder.path is empty: give --config.labelled_folder.path=FOLDER")
    if not root.is_dir():
        there = "a file, give its folder" if root.exists() else "not there, name a folder"
        raise UserError(f"labelled_folder.path is {options.path}: it is {there}")
    listing = _listing(config)
    counts = collections.Counter(p.label for p in listing.photos if not p.is_test)
    _check_classes(root, set(counts), {photo.label for photo in listing.photos})
    train = counts.total()
    if not listing.is_split:
        if not options.test_fraction:
            raise UserError(
                f"labelled_folder.test_fraction is 0, and {root} has no folder test: give a"
                " fraction, or a test set as test/<class>/*"
            )
        train -= sum(_test_size(count, options.test_fraction) for count in counts.values())
    return DataFacts(train, len(counts), _shape(config))


def _check_classes(root: pathlib.Path, classes: set[str], all_classes: set[str]) -> None:
    if len(classes) < 2:
        found = f"only {min(classes)}" if classes else "none"
        raise UserError(
            f"{root} needs a sub-folder of photos for each of two or more classes, and has {found}:"
            " give a folder that holds <class>/*, or train/<class>/* and test/<class>/*"
        )
    if unknown := sorted(all_classes - classes):
        raise UserError(
            f"{root} has test photos of {unknown[0]!r}, a class without training photos: name the"
            " class folders of both alike"
        )


def _shape(config: ConfigDict) -> tuple[int, int, int]:
    options = config.labelled_folder
    return options.image_size, options.image_size, options.channels


def _test_size(count: int, fraction: float) -> int:
    """How many of a class's photos are for the test: one at least, and one at least is not."""
    return max(0, min(count - 1, max(1, round(count * fraction))))


# Listing


def _listing(config: ConfigDict) -> _Listing:
    root, passed, notes = _root(config), PassedOver(), []
    top = folders_in(root, passed)
    test = next((name for name in ("test", "val") if "train" in top and name in top), "")
    if test:
        places = {"train": False, test: True}
        passed.add(
            "folders beside train and the test set", [name for name in top if name not in places]
        )
    else:
        places = {"train" if top == ["train"] else "": False}
    if test == "val":
        notes.append(f"{root} has no folder test: val is the test set")
    if top == ["train"]:
        notes.append(f"{root} has no folder test or val: a share of train is the test set")
    for place in {"", *places}:
        found, hidden, odd = files_below(root / place, deep=False)
        passed.add("files outside of a class folder", _names(root, [*found, *odd]))
        passed.add("hidden files", _names(root, hidden))
    photos = []
    for place, is_test in places.items():
        for label in folders_in(root / place, passed) if place else top:
            photos += _of_class(root, pathlib.PurePosixPath(place, label), is_test, passed)
    return _Listing(photos, bool(test), passed, notes)


def _names(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> list[str]:
    return [text(path.relative_to(root)) for path in paths]


def _of_class(
    root: pathlib.Path, place: pathlib.PurePosixPath, is_test: bool, passed: PassedOver
) -> list[_Photo]:
    found, hidden, odd = files_below(root / place)
    usable = [path for path in found if path.suffix.lower() in _ENDINGS]
    others = sorted(set(found) - set(usable))
    passed.add("hidden files", _names(root, hidden))
    passed.add("files of other endings", _names(root, others))
    passed.add("links that lead nowhere or in a circle, and pipes", _names(root, odd))
    if not usable:
        passed.add("class folders without a photo", [text(place)])
    named = zip(_names(root, usable), usable, strict=True)
    return [_Photo(name, path, text(place.name), is_test) for name, path in named]


def fingerprint(config: ConfigDict) -> str:
    """Digest of the photos' names and sizes: the same wherever the folder lies."""
    photos = _listing(config).photos if _root(config).is_dir() else []
    found = [(photo.name, stamp(photo.path)[0]) for photo in photos]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _table_folder(config: ConfigDict, listing: _Listing) -> pathlib.Path:
    """Where labels, split and content ids lie: another when a file or a key has changed."""
    options = config.labelled_folder
    keys = ("image_size", "channels", "resize", "low_high", "max_pixels", "test_fraction")
    files = [(photo.name, stamp(photo.path)) for photo in listing.photos]
    content = json.dumps([str(_root(config).resolve()), *(options[key] for key in keys), files])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return cache.folder(config.data_dir, f"labelled_folder-{digest}")


def is_at_hand(config: ConfigDict) -> bool:
    """Whether the folder is there as it was when its photos were decoded."""
    return _root(config).is_dir() and _table_folder(config, _listing(config)).exists()


# Loading


def load(config: ConfigDict) -> Dataset:
    """The data set; photos are decoded once, into the cache by content."""
    listing = _listing(config)
    folder = _table_folder(config, listing)
    table = cache.load_or_make(folder, lambda new: _make_table(config, listing, new))
    decoded = _cache(config)
    contents = list(map(str, table["contents"]))
    rows = decoded.rows(contents)
    if (rows < 0).any():  # The cache of photos was deleted.
        paths = [path_of(_root(config), str(name)) for name in table["ids"]]
        decoded.add(list(zip(contents, paths, strict=True)))
        rows = decoded.rows(contents)
    if (rows < 0).any():
        name = table["ids"][np.argmin(rows)]
        raise UserError(f"{_root(config) / name} can no longer be decoded: delete {folder}")
    train, test = (np.flatnonzero(table["is_test"] == part) for part in (False, True))
    paths = [path_of(_root(config), str(name)) for name in table["ids"]]
    files = PhotoFiles(table["contents"], paths)
    return Dataset(
        config.dataset,
        RowView(decoded.array, rows[train]),
        table["labels"][train],
        table["ids"][train],
        RowView(decoded.array, rows[test]),
        table["labels"][test],
        tuple(map(str, table["class_names"])),
        train_files=files.only(train),
        test_files=files.only(test),
    )


def _cache(config: ConfigDict) -> picture_cache.Decoded:
    options, shape = config.labelled_folder, _shape(config)
    how = options.resize, tuple(options.low_high)
    return picture_cache.Decoded(picture_cache.folder(config.data_dir, shape, *how), shape, *how)


def _make_table(config: ConfigDict, listing: _Listing, new: New) -> None:
    """Reads and decodes all photos, and fills in which of them are used."""
    root, passed = _root(config), listing.passed
    print(f"Decoding {len(listing.photos):,} photos of {root}, once.", file=sys.stderr)
    photos = _readable(listing.photos, config.labelled_folder.max_pixels, passed)
    photos = _without_duplicates(photos, passed)
    decoded = _cache(config)
    faults = decoded.add([(photo.content, photo.path) for photo in photos])
    for photo in photos:
        if photo.content in faults:
            passed.add_fault("cannot be decoded", photo.name, faults[photo.content])
    photos = [photo for photo in photos if photo.content not in faults]
    if not listing.is_split:
        photos = _split(photos, config.labelled_folder.test_fraction)
    classes = sorted({photo.label for photo in photos if not photo.is_test})
    lost = [photo.name for photo in photos if photo.label not in classes]
    passed.add("test photos of a class without training photos", lost)
    photos = [photo for photo in photos if photo.label in classes]
    overflows = decoded.overflows(photo.content for photo in photos)
    notes = overflow_lines(overflows, "labelled_folder.low_high")
    for line in (*listing.notes, *passed.lines(root), *notes):
        print(line, file=sys.stderr)
    _check_classes(root, set(classes), set(classes))
    if not any(photo.is_test for photo in photos):
        raise UserError(f"{root} has no test photo that can be used: see the lines above")
    fill(new, {
        "ids": np.array([photo.name for photo in photos]),
        "contents": np.array([photo.content for photo in photos]),
        "labels": np.array([classes.index(photo.label) for photo in photos], np.int32),
        "is_test": np.array([photo.is_test for photo in photos]),
        "class_names": np.array(classes),
    })  # fmt: skip


def _readable(photos: list[_Photo], max_pixels: int, passed: PassedOver) -> list[_Photo]:
    """Photos whose header is that of a picture of at most `max_pixels`, with their content ids."""

    def read(photo: _Photo) -> _Photo | str:
        try:
            with photo.path.open("rb") as file:
                content = decode.content_id(file)
                header = decode.header(file)
        except decode.Corrupt as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)
        if header.width * header.height > max_pixels:
            return f"{header.width}x{header.height} pixels, more than max_pixels ({max_pixels})"
        return photo._replace(content=content)

    found = []
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for photo, outcome in zip(photos, threads.map(read, photos), strict=True):
            if isinstance(outcome, str):
                passed.add_fault("cannot be decoded", photo.name, outcome)
            elif not _is_text(photo.name):
                passed.add("files whose names are not UTF-8", [photo.name])
            else:
                found.append(outcome)
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_duplicates(photos: list[_Photo], passed: PassedOver) -> list[_Photo]:
    """One photo of each content, that of the test set if it has one; none of two classes."""
    copies: dict[str, list[_Photo]] = {}
    for photo in sorted(photos, key=lambda photo: not photo.is_test):
        copies.setdefault(photo.content, []).append(photo)
    kept = set()
    for same in copies.values():
        first, *others = same
        if len({photo.label for photo in same}) > 1:
            passed.add("photos that are in two classes", [photo.name for photo in same])
            continue
        kept.add(first.name)
        in_test = [p.name for p in others if first.is_test and not p.is_test]
        passed.add("training photos that are in the test set, too", in_test)
        passed.add("duplicates", [p.name for p in others if p.name not in in_test])
    return [photo for photo in photos if photo.name in kept]


def _split(photos: list[_Photo], fraction: float) -> list[_Photo]:
    """Marks a share of each class as test photos, by content alone: the same for every seed."""
    tested = set()
    for label in {photo.label for photo in photos}:
        mine = sorted(photo.content for photo in photos if photo.label == label)
        tested.update(mine[: _test_size(len(mine), fraction)])
    return [photo._replace(is_test=photo.content in tested) for photo in photos]
