"""What is known of large images from one look at each: it is kept beside decoded data sets."""

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


class ImageStatistics(NamedTuple):
    """Of the images and label maps of a training set."""

    histogram: np.ndarray
    """How often each value occurs in each channel: int64 `[C, 256]`."""
    pixels: np.ndarray
    """Of each class, int32 `[N, K]`."""
    thumbnails: np.ndarray
    """uint8 `[N, S, S, C]`"""


Filed = LazyPictures | np.memmap
"""An array that lies in files."""


def of(images: Filed, maps: Filed, classes: int, size: int, data_dir: str) -> ImageStatistics:
    """The overview of images and maps with thumbnails of side `size`; stored under `data_dir`."""
    name = f"overview-{_digest(images)}-{_digest(maps)}-{size}"
    stored = cache.load_or_make(
        cache.folder(data_dir, name), lambda new: _look(images, maps, classes, size, new)
    )
    return ImageStatistics(**{field: stored[field] for field in ImageStatistics._fields})


def _digest(array):
    """Stands for the files as they are: their names, sizes and times."""
    if isinstance(array, LazyPictures):
        return array.digest()
    file = pathlib.Path(array.filename)
    known = file.stat()
    text = f"{file.parent.name} {file.name} {known.st_size} {known.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _look(images, maps, classes, size, new: New):
    print(f"Looking at {len(images)} images, once; this takes some minutes.", file=sys.stderr)
    channels = images.shape[-1]
    histogram = new("histogram", (channels, 256), np.int64)
    pixels = new("pixels", (len(images), classes), np.int32)
    small = new("thumbnails", (len(images), size, size, channels), np.uint8)

    def look(number):
        image = images[number]
        small[number] = thumbnail(image, size)
        pixels[number] = np.bincount(maps[number].ravel(), minlength=256)[:classes]
        return [np.bincount(plane, minlength=256) for plane in image.reshape(-1, channels).T]

    histogram[...] = 0
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for counts in threads.map(look, range(len(images))):
            histogram += counts


def thumbnail(image: np.ndarray, size: int) -> np.ndarray:
    """An image shrunk to a square without aliasing: `[H, W, C] -> [size, size, C]`, uint8."""
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0))
    # Pillow's filters grow with the scale, so that shrinking averages.
    small = [plane.resize((size, size), Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in small], axis=-1)
