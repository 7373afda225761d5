"""Cityscapes: from its unpacked folders, or from its zips through TensorFlow Datasets.

The paper's pool is the training part, its test set the validation part; both have fine labels.
"""

import concurrent.futures
import hashlib
import io
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data.cache import New, fill
from tavaal_jax.data.pictures import lazy
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.sets import tfds
from tavaal_jax.errors import UserError

# Name, id in the label files and colour of each class that counts, in the order of train ids.
_CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
CLASS_NAMES = tuple(name for name, _, _ in _CLASSES)
RAW_IDS = tuple(raw for _, raw, _ in _CLASSES)
COLOURS = np.array([colour for _, _, colour in _CLASSES], np.uint8)
"""`[K, 3]`"""
IGNORED = 255
"""The train id of all that does not count."""


def table(raw_ids: Sequence[int]) -> np.ndarray:
    """uint8 `[256]`: the train id of each raw id, that is its place among `raw_ids`."""
    ids = np.full(256, IGNORED, np.uint8)
    ids[list(raw_ids)] = np.arange(len(raw_ids))
    return ids


TRAIN_IDS = table(RAW_IDS)

_IMAGE, _LABEL = "leftImg8bit", "gtFine"
_IMAGES_ZIP, _LABELS_ZIP = tfds.MANUAL["cityscapes"].files
_PATTERN = f"*/*_{_IMAGE}.png"
_SPLITS = {"train": "train", "test": "val"}
_COUNTS = {"train": 2975, "test": 500}


def folder(config: ConfigDict) -> pathlib.Path:
    """Where the unpacked folders leftImg8bit and gtFine lie."""
    given = config.cityscapes.folder or pathlib.Path(config.data_dir) / "cityscapes"
    return pathlib.Path(given).expanduser().resolve()


def is_unpacked(config: ConfigDict) -> bool:
    """Whether there are folders of images and labels."""
    return all((folder(config) / part).is_dir() for part in (_IMAGE, _LABEL))


def cache_name(config: ConfigDict) -> str:
    """Of the decoded cache: another for each folder, and when images have come or gone there."""
    if config.cityscapes.through == "tfds":
        return "cityscapes-tfds"
    root = folder(config)
    files = (file for theirs in _SPLITS.values() for file in _images(root, theirs))
    text = "\n".join([str(root), *(str(file.relative_to(root)) for file in files)])
    return f"cityscapes-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def read(config: ConfigDict, new: New) -> None:
    """Fills arrays with all decoded pictures, as many at a time as there are threads."""
    arrays = _from_tfds(config) if config.cityscapes.through == "tfds" else _from_folder(config)
    pictures = {name: array for name, array in arrays.items() if isinstance(array, LazyPictures)}
    size = sum(array.nbytes for array in pictures.values()) / 1e9
    print(f"Decoding cityscapes, once: {size:.1f} GB, some minutes.", file=sys.stderr)
    for name, array in pictures.items():
        _decode(array, new(name, array.shape, array.dtype))
    fill(new, {name: array for name, array in arrays.items() if name not in pictures})


def _decode(pictures, target):
    def one(number):
        target[number] = pictures[number]

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(one, range(len(pictures))))


def lazily(config: ConfigDict) -> dict[str, Any]:
    """What `read` fills in, with `Pictures` that are decoded when they are asked for."""
    if config.cityscapes.through == "tfds":
        raise UserError(
            "cityscapes.cache is False, which goes with unpacked folders only: set"
            " --config.cityscapes.through=folder, or cache=True"
        )
    return _from_folder(config)


def _from_folder(config):
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
    arrays = {"class_names": np.array(CLASS_NAMES)}
    for split, (images, labels) in found.items():
        arrays |= _pictures(split, images, labels, map(str, images), map(str, labels), shape)
    arrays["train_ids"] = np.array([_frame(file) for file in found["train"][0]])
    return arrays


def _pictures(split, images, labels, image_names, label_names, shape):
    return {
        f"{split}_images": LazyPictures(images, tuple(image_names), (*shape, 3)),
        f"{split}_labels": LazyPictures(labels, tuple(label_names), shape, TRAIN_IDS),
    }


def _images(root, split):
    return sorted((root / _IMAGE / split).glob(_PATTERN), key=_frame)


def _files(config, split):
    """Image and label files of a split, by frame; UserError names what is missing."""
    root = folder(config)
    if not is_unpacked(config):
        raise UserError(
            f"{root} lacks the folder {_IMAGE} or {_LABEL}: unpack {_IMAGES_ZIP} and"
            f" {_LABELS_ZIP} of {tfds.MANUAL['cityscapes'].site} there, or set"
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


def _frame(file):
    """`.../bonn_000001_000019_leftImg8bit.png -> bonn_000001_000019`"""
    return file.name.removesuffix(f"_{_IMAGE}.png")


class _Records(Sequence):
    """One field of records in some order, as files."""

    def __init__(self, source, order, field):
        self._source, self._order, self._field = source, order, field

    def __len__(self):
        return len(self._order)

    def __getitem__(self, number):
        return io.BytesIO(self._source[self._order[number]][self._field])


def _from_tfds(config):
    builder = tfds.prepared(config)
    shape, arrays = None, {"class_names": np.array(CLASS_NAMES)}
    for split, theirs in (("train", "train"), ("test", "validation")):
        source = tfds.undecoded(builder, theirs, "image_left", "segmentation_label")
        # One at a time: with its undecoded pictures a record has some megabytes.
        ids = [source[number]["image_id"].decode() for number in range(len(source))]
        order = sorted(range(len(ids)), key=ids.__getitem__)
        names = [f"{ids[number]} of TFDS" for number in order]
        images, labels = (
            _Records(source, order, field) for field in ("image_left", "segmentation_label")
        )
        shape = shape or lazy.size(images[0], names[0])
        label_names = [f"the label of {name}" for name in names]
        arrays |= _pictures(split, images, labels, names, label_names, shape)
        if split == "train":
            arrays["train_ids"] = np.array(sorted(ids))
    return arrays
