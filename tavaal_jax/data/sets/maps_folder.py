"""One's own images with label maps as a data set, matched by the names of their files.

`<images>/train/a.jpg` and `<maps>/train/a.png`, likewise `test` (or `val`); or any sub-folders, and
text files that name the images of each split. Ids are paths below the folder of images.
"""

import concurrent.futures
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import ExifTags, Image

from tavaal_jax.data import cache
from tavaal_jax.data.cache import New, fill
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.pictures import lazy
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.pool import IGNORED, StoredArray
from tavaal_jax.data.sets import source
from tavaal_jax.data.sets.source import DataFacts
from tavaal_jax.data.sets.walk import PassedOver, files_below, stamp, text
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_MAPS = (".png",)
_FORM = "give --config.maps_folder.images=FOLDER --config.maps_folder.maps=FOLDER"


class _Pair(NamedTuple):
    """An image and its map."""

    name: str
    """The image's path below its folder, with slashes."""
    image: pathlib.Path
    map: pathlib.Path


class _Folder(NamedTuple):
    """Files of one of the two folders by name: their path below it, without the ending."""

    root: pathlib.Path
    files: dict[str, pathlib.Path]


Splits = dict[str, list[_Pair]]
"""The pairs of `train` and `test`."""


# Files


def _folder(config: ConfigDict, key: str, endings: Sequence[str], passed: PassedOver) -> _Folder:
    root = user_path(config.maps_folder[key], f"maps_folder.{key}")
    if not config.maps_folder[key]:
        raise UserError(f"maps_folder.{key} is empty: {_FORM}")
    if not root.is_dir():
        there = "a file" if root.exists() else "not there"
        raise UserError(f"maps_folder.{key} is {root}, which is {there}: {_FORM}")
    found, hidden, odd = files_below(root)
    passed.add(f"hidden files of {key}", (text(path.relative_to(root)) for path in hidden))
    passed.add(
        f"links of {key} that lead nowhere or in a circle, and pipes",
        (text(path.relative_to(root)) for path in odd),
    )
    files: dict[str, pathlib.Path] = {}
    for path in found:
        if path.suffix.lower() not in endings:
            passed.add(f"files of {key} of other endings", [text(path.relative_to(root))])
            continue
        name = text(path.relative_to(root).with_suffix(""))
        if name in files:
            raise UserError(
                f"{files[name]} and {path} have the same name but for the ending: remove one"
            )
        files[name] = path
    return _Folder(root, files)


def _splits(config: ConfigDict, passed: PassedOver) -> Splits:
    """Pairs of both splits, by name; UserError names what has no counterpart."""
    options = config.maps_folder
    images = _folder(config, "images", _IMAGES, passed)
    maps = _folder(config, "maps", _MAPS, passed)
    test = options.test or ("test" if (images.root / "test").is_dir() else "val")
    pairs = {
        "train": _split("train", options.train, images, maps),
        "test": _split("test", test, images, maps),
    }
    both = {pair.name for pair in pairs["train"]} & {pair.name for pair in pairs["test"]}
    if both:
        raise UserError(f"{_some(both)} are in maps_folder.train and in .test: keep them in one")
    used = {pair.image for split in pairs.values() for pair in split}
    unused = sorted(path for path in images.files.values() if path not in used)
    passed.add("images in neither split", (text(path.relative_to(images.root)) for path in unused))
    return pairs


def _split(key: str, place: str, images: _Folder, maps: _Folder) -> list[_Pair]:
    listed = user_path(place, f"maps_folder.{key}")
    if listed.is_file():
        names = _listed(listed, images)
        what = f"images that {listed} names"
    elif (images.root / place).is_dir() and (maps.root / place).is_dir():
        inside = lambda folder: {n for n in folder.files if n.startswith(f"{place}/")}
        names, what = sorted(inside(images)), f"images in {images.root / place}"
        if alone := inside(maps) - set(names):
            raise UserError(
                f"{len(alone)} maps in {maps.root / place} have no image, {_some(alone)}: add the"
                " images, or remove the maps"
            )
    else:
        raise UserError(
            f"maps_folder.{key} is {place!r}, which is no file and no sub-folder of both"
            f" {images.root} and {maps.root}: give a sub-folder, or a text file of names"
        )
    if not names:
        raise UserError(f"there are no {what}: give maps_folder.{key} another place")
    if missing := [name for name in names if name not in maps.files]:
        raise UserError(
            f"{len(missing)} of {len(names)} {what} have no map in {maps.root}, {_some(missing)}:"
            " a map is a PNG of the same name"
        )
    return [
        _Pair(text(images.files[n].relative_to(images.root)), images.files[n], maps.files[n])
        for n in names
    ]


def _listed(path: pathlib.Path, images: _Folder) -> list[str]:
    """Names of the images in a text file: with or without folders and ending, one a line."""
    by_stem: dict[str, list[str]] = {}
    for name in images.files:
        by_stem.setdefault(pathlib.PurePosixPath(name).name, []).append(name)
    found: dict[str, None] = {}
    unknown: list[str] = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a text file of names") from error
    for line in filter(None, map(str.strip, lines)):
        bare = line if line in images.files else line.rpartition(".")[0] or line
        names = [bare] if bare in images.files else by_stem.get(bare, by_stem.get(line, []))
        if len(names) == 1:
            found[names[0]] = None
        else:
            unknown.append(line)
    if unknown:
        raise UserError(
            f"{path} names {len(unknown)} images that are not in {images.root} once,"
            f" {_some(unknown)}: give their paths below it"
        )
    return sorted(found)


def _some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    first = sorted(names)
    more = f" and {len(first) - 3:,} more" if len(first) > 3 else ""
    return ", ".join(first[:3]) + more


# What is known before loading


def _shape(config: ConfigDict, splits: Splits) -> tuple[int, int]:
    """Height and width of all, as the config gives them or of the first image."""
    if config.maps_folder.image_size:
        height, width = config.maps_folder.image_size
        return height, width
    first = splits["train"][0].image
    return lazy.size(first, str(first))


def facts(config: ConfigDict) -> DataFacts:
    """Number and size of the images; classes, where the config does not name them, at least two."""
    splits = _splits(config, PassedOver())
    shape = (*_shape(config, splits), 3)
    names = config.maps_folder.class_names
    if len(names) == 1 or len(names) > IGNORED:
        raise UserError(f"maps_folder.class_names has {len(names)} names: give 2 to {IGNORED}")
    return DataFacts(len(splits["train"]), len(names) or 2, shape, has_maps=True)


def fingerprint(config: ConfigDict) -> str:
    """Digest of the names and sizes of all files in both splits, wherever the folders lie."""
    try:
        splits = _splits(config, PassedOver())
    except UserError:
        return ""  # Said when the config is checked.
    return _digest([
        (split, pair.name, stamp(pair.image)[0], stamp(pair.map)[0])
        for split, pairs in splits.items() for pair in pairs
    ])  # fmt: skip


def is_at_hand(config: ConfigDict) -> bool:
    """Whether the files are there, and are decoded if that is asked for."""
    try:
        splits = _splits(config, PassedOver())
    except UserError:
        return False
    return not config.maps_folder.cache or _place(config, "maps_folder", splits).exists()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _place(config: ConfigDict, what: str, splits: Splits) -> pathlib.Path:
    """Where something of the files is kept: another when a file or a key has changed."""
    options = config.maps_folder
    keys = [list(options.image_size), options.ignore, list(options.class_names)]
    files = [
        (split, str(path.resolve()), stamp(path))
        for split, pairs in splits.items() for pair in pairs for path in pair[1:]
    ]  # fmt: skip
    return cache.folder(config.data_dir, f"{what}-{_digest([keys, files])[:16]}")


# Loading


def load(config: ConfigDict) -> Dataset:
    """The data set, its files decoded when they are read, or once with `maps_folder.cache`."""
    passed = PassedOver()
    splits = _splits(config, passed)
    examined = _place(config, "maps_folder-values", splits)
    table = cache.load_or_make(examined, lambda new: _examine(config, splits, passed, new))
    arrays = _undecoded(config, splits, table["class_names"])
    if not config.maps_folder.cache:
        return source.from_arrays(config, arrays)
    decode = lambda new: lazy.decode_all("maps_folder", arrays, new)
    return source.from_arrays(
        config, cache.load_or_make(_place(config, "maps_folder", splits), decode)
    )


def _undecoded(
    config: ConfigDict, splits: Splits, class_names: np.ndarray
) -> dict[str, StoredArray]:
    shape, resize = _shape(config, splits), bool(config.maps_folder.image_size)
    table = np.full(256, IGNORED, np.uint8)
    table[: len(class_names)] = np.arange(len(class_names))
    table[config.maps_folder.ignore] = IGNORED
    arrays: dict[str, StoredArray] = {
        "class_names": class_names,
        "train_ids": np.array([pair.name for pair in splits["train"]]),
    }
    for split, pairs in splits.items():
        images, maps = [pair.image for pair in pairs], [pair.map for pair in pairs]
        arrays[f"{split}_images"] = LazyPictures(
            images, [*map(str, images)], (*shape, 3), resize=resize
        )
        arrays[f"{split}_labels"] = LazyPictures(maps, [*map(str, maps)], shape, table, resize)
    return arrays


def _examine(config: ConfigDict, splits: Splits, passed: PassedOver, new: New) -> None:
    """Looks at all files once: sizes fit, values are classes; fills in the names of these."""
    options = config.maps_folder
    pairs = [pair for split in splits.values() for pair in split]
    expected = None if options.image_size else _shape(config, splits)
    print(f"Examining {len(pairs):,} label maps, once.", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        values = list(threads.map(lambda pair: _values(pair, expected), pairs))
    classes = len(options.class_names)
    highest = -1
    for pair, found in zip(pairs, values, strict=True):
        most = max((int(value) for value in found if value != options.ignore), default=-1)
        if classes and most >= classes:
            raise UserError(
                f"{pair.map} holds the value {most}, and maps_folder.class_names has {classes}"
                f" names, 0 to {classes - 1}: name it, or give it as maps_folder.ignore"
            )
        highest = max(highest, most)
    if highest < 1 or highest >= IGNORED:
        raise UserError(
            f"the maps in {options.maps} hold values up to {highest} beside maps_folder.ignore ="
            f" {options.ignore}: classes are 0, 1, ... up to {IGNORED - 1}, two or more"
        )
    for line in passed.lines(pathlib.Path(options.images)):
        print(line, file=sys.stderr)
    names = options.class_names or map(str, range(highest + 1))
    fill(new, {"class_names": np.array(list(names))})


def _values(pair: _Pair, expected: tuple[int, int] | None) -> np.ndarray:
    """Values that occur in a map; UserError where it and its image do not fit."""
    shape = lazy.size(pair.image, str(pair.image))
    if expected not in (None, shape):
        assert expected is not None
        raise UserError(
            f"{pair.image} has {shape[1]}x{shape[0]} pixels, and the first image"
            f" {expected[1]}x{expected[0]}: give --config.maps_folder.image_size='(HEIGHT, WIDTH)'"
            " to resize all"
        )
    size = lazy.size(pair.map, str(pair.map))
    if size != shape:
        raise UserError(
            f"{pair.map} has {size[1]}x{size[0]} pixels, and its image {shape[1]}x{shape[0]}:"
            " give both the same size"
        )
    with Image.open(pair.image) as picture:
        if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            raise UserError(
                f"{pair.image} is to be turned when it is shown (EXIF): save it upright, so that it"
                " fits its map in any program"
            )
    return np.unique(lazy.pixels(pair.map, shape, str(pair.map)))
