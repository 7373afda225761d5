"""Reads CIFAR from a tar of mosaics: `<split>/<class>.jpg` of 32x32 tiles, row by row.

A copy that is small enough to be carried to another machine; JPEG of quality 95 changes pixels
(40 dB), so tables say which copy they are of.
"""

import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

from tavaal_jax.data import Dataset

SIDE = 32


def tiles(mosaic: Image.Image) -> np.ndarray:
    """Images of a mosaic, uint8 `[n, 32, 32, 3]`."""
    pixels = np.asarray(mosaic)
    rows = pixels.reshape(len(pixels) // SIDE, SIDE, -1, SIDE, 3)
    return rows.swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)


def dataset(path: pathlib.Path, per_class: int = 0) -> Dataset:
    """The data set in a tar, of the first `per_class` images of each class where that is not 0.

    Ids name class and place in it, as `automobile_17`.
    """
    found: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}}
    with tarfile.open(path) as tar:
        for member in tar:
            place = pathlib.PurePosixPath(member.name)
            file = tar.extractfile(member)
            if file is not None and place.suffix == ".jpg" and place.parent.name in found:
                images = tiles(Image.open(io.BytesIO(file.read())))
                found[place.parent.name][place.stem] = images[: per_class or None]
    names = sorted(found["train"])
    if not names or names != sorted(found["test"]):
        raise SystemExit(f"{path} has no mosaics train/<class>.jpg and test/<class>.jpg")
    arrays = []
    for by_name in found.values():
        arrays.append(np.concatenate([by_name[name] for name in names]))
        arrays.append(np.repeat(np.arange(len(names)), [len(by_name[name]) for name in names]))
    ids = [f"{name}_{i}" for name in names for i in range(len(found["train"][name]))]
    return Dataset.from_arrays(*arrays, ids=ids, class_names=names, name=path.stem)
