"""Cityscapes from its unpacked folders.

The paper's pool is the training part, its test set the validation part; both have fine labels.
"""

import hashlib
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data import cache
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.pictures import lazy
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.pool import IGNORED, StoredArray
from tavaal_jax.data.sets import source
from tavaal_jax.data.sets.source import DataFacts
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

FACTS = DataFacts(2975, 19, (1024, 2048, 3), has_maps=True)
_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
CLASS_NAMES = tuple(_IDS)
"""Names of the classes, in the order of the train ids."""
RAW_IDS = tuple(_IDS.values())
"""Ids of the classes in the label files."""


def table(raw_ids: Sequence[int]) -> np.ndarray:
    """uint8 `[256]`: the train id of each raw id, that is its place among `raw_ids`."""
    ids = np.full(256, IGNORED, np.uint8)
    ids[list(raw_ids)] = np.arange(len(raw_ids))
    return ids


TRAIN_IDS = table(RAW_IDS)

_IMAGE, _LABEL = "leftImg8bit", "gtFine"
_SITE = "cityscapes-dataset.com"
_IMAGES_ZIP, _LABELS_ZIP = "leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"
_PATTERN = f"*/*_{_IMAGE}.png"
_SPLITS = {"train": "train", "test": "val"}
_COUNTS = {"train": 2975, "test": 500}


def folder(config: ConfigDict) -> pathlib.Path:
    """Where the unpacked folders leftImg8bit and gtFine lie."""
    given = config.cityscapes.folder or pathlib.Path(config.data_dir) / "cityscapes"
    return user_path(given, "cityscapes.folder").resolve()


def is_unpacked(config: ConfigDict) -> bool:
    """Whether there are folders of images and labels."""
    return all((folder(config) / part).is_dir() for part in (_IMAGE, _LABEL))


def is_at_hand(config: ConfigDict) -> bool:
    """Whether its pictures are decoded already, or are to be decoded whenever they are read."""
    return _cache_folder(config).exists() if config.cityscapes.cache else is_unpacked(config)


def load(config: ConfigDict) -> Dataset:
    """The data set; pictures are decoded once with `cityscapes.cache`, else when they are read."""
    if not config.cityscapes.cache:
        return source.from_arrays(config, undecoded(config))
    decode = lambda new: lazy.decode_all("cityscapes", undecoded(config), new)
    return source.from_arrays(config, cache.load_or_make(_cache_folder(config), decode))


def _cache_folder(config: ConfigDict) -> pathlib.Path:
    """Another for each folder, and when images have come or gone there."""
    root = folder(config)
    files = (file for theirs in _SPLITS.values() for file in _images(root, theirs))
    text = "\n".join([str(root), *(str(file.relative_to(root)) for file in files)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return cache.folder(config.data_dir, f"cityscapes-{digest}")


def undecoded(config: ConfigDict) -> dict[str, StoredArray]:
    """Arrays named as the fields of `Dataset`, with `LazyPictures` for images and maps."""
    found = {ours: _files(config, theirs) for ours, theirs in _SPLITS.items()}
    counts = {ours: len(images) for ours, (images, _) in found.items()}
    if counts != _COUNTS:
        print(
            f"{folder(config)} has {counts['train']:,} + {counts['test']:,} images where Cityscapes"
            f" has {_COUNTS['train']:,} + {_COUNTS['test']:,}: unpack all of it, unless that is"
            " what you want",
            file=sys.stderr,
        )
    # One size for all: what is trained on is what is tested.
    first = found["train"][0][0]
    shape = lazy.size(first, str(first))
    arrays: dict[str, StoredArray] = {"class_names": np.array(CLASS_NAMES)}
    for split, (images, labels) in found.items():
        arrays[f"{split}_images"] = LazyPictures(images, [*map(str, images)], (*shape, 3))
        arrays[f"{split}_labels"] = LazyPictures(labels, [*map(str, labels)], shape, TRAIN_IDS)
    arrays["train_ids"] = np.array([_frame(file) for file in found["train"][0]])
    return arrays


def _images(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    return sorted((root / _IMAGE / split).glob(_PATTERN), key=_frame)


def _files(config: ConfigDict, split: str) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Image and label files of a split, by frame; UserError names what is missing."""
    root = folder(config)
    if not is_unpacked(config):
        raise UserError(
            f"{root} lacks the folder {_IMAGE} or {_LABEL}: unpack {_IMAGES_ZIP} and"
            f" {_LABELS_ZIP} of {_SITE} there, or set"
            " --config.cityscapes.folder"
        )
    images = _images(root, split)
    if not images:
        raise UserError(
            f"{root / _IMAGE / split} has no {_PATTERN}: unpack {_IMAGES_ZIP} in {root}"
        )
    labels = [
        root / _LABEL / split / file.parent.name / f"{_frame(file)}_{_LABEL}_labelIds.png"
        for file in images
    ]
    there = {*(root / _LABEL / split).glob(f"*/*_{_LABEL}_labelIds.png")}
    if missing := [label for label in labels if label not in there]:
        raise UserError(
            f"{len(missing)} of {len(images)} images in {root / _IMAGE / split} have no label file,"
            f" {missing[0]} for one: unpack {_LABELS_ZIP} in {root}"
        )
    return images, labels


def _frame(file: pathlib.Path) -> str:
    """`.../bonn_000001_000019_leftImg8bit.png -> bonn_000001_000019`"""
    return file.name.removesuffix(f"_{_IMAGE}.png")
