"""Statistics of large images with label maps, computed once and kept beside decoded data sets."""

import concurrent.futures
import hashlib
import pathlib
import sys
from typing import NamedTuple

import numpy as np
from PIL import Image

from tavaal_jax.data import cache
from tavaal_jax.data.cache import New
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.pool import StoredArray


class ImageStatistics(NamedTuple):
    """Statistics of a training set's images and label maps, and small copies of the images."""

    histogram: np.ndarray
    """How often each value occurs in each channel: int64 `[C, 256]`."""
    pixels: np.ndarray
    """Pixels of each class in each map, int32 `[N, K]`."""
    thumbnails: np.ndarray
    """uint8 `[N, S, S, C]`"""


def of(
    images: StoredArray, maps: StoredArray, classes: int, size: int, data_dir: str
) -> ImageStatistics:
    """Statistics of images and maps in files, with thumbnails of side `size`.

    They are stored under `data_dir`, by what names, sizes and times of the files say.
    """
    name = f"statistics-{_digest(images)}-{_digest(maps)}-{classes}-{size}"
    stored = cache.load_or_make(
        cache.folder(data_dir, name), lambda new: _compute(images, maps, classes, size, new)
    )
    return ImageStatistics(**{field: stored[field] for field in ImageStatistics._fields})


def _digest(array: StoredArray) -> str:
    """Names, sizes and times of the files, as 16 hex digits."""
    if isinstance(array, LazyPictures):
        return array.digest()
    if not isinstance(array, np.memmap) or array.filename is None:
        raise TypeError(f"statistics are of arrays in files, not of {type(array).__name__}")
    file = pathlib.Path(array.filename)
    known = file.stat()
    text = f"{file.parent.name} {file.name} {known.st_size} {known.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compute(images: StoredArray, maps: StoredArray, classes: int, size: int, new: New) -> None:
    print(f"Computing statistics of {len(images):,} images, once.", file=sys.stderr)
    channels = images.shape[-1]
    histogram = new("histogram", (channels, 256), np.int64)
    pixels = new("pixels", (len(images), classes), np.int32)
    small = new("thumbnails", (len(images), size, size, channels), np.uint8)

    def count(number: int) -> list[np.ndarray]:
        image = images[number]
        small[number] = thumbnail(image, size)
        pixels[number] = np.bincount(maps[number].ravel(), minlength=256)[:classes]
        return [np.bincount(plane, minlength=256) for plane in image.reshape(-1, channels).T]

    histogram[...] = 0
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for counts in threads.map(count, range(len(images))):
            histogram += counts


def thumbnail(image: np.ndarray, size: int) -> np.ndarray:
    """An image shrunk to a square without aliasing: `[H, W, C] -> [size, size, C]`, uint8."""
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0))
    # Pillow's filters grow with the scale, so that shrinking averages.
    small = [plane.resize((size, size), Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in small], axis=-1)
