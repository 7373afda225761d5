"""Examples, on the devices or beside them, and what makes network input of stored images."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct

Array = Any
"""A `jax.Array` on the devices or traced, a `StoredArray` before, or None: no type is all."""


IGNORED = 255
"""Value of a label map's pixels that are of no class."""


class StoredArray(Protocol):
    """An array of examples in memory or in files, whose rows are read when they are indexed.

    `np.ndarray`, `np.memmap`, `LazyPictures` and `RowView` are such.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102
    @property
    def ndim(self) -> int: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __array__(self) -> np.ndarray: ...


class Normaliser(struct.PyTreeNode):
    """Mean and deviation per channel or feature, in the units of the stored images."""

    mean: Array
    """`[1, 1, C]` or `[F]` float32."""
    std: Array

    def __call__(self, image: jax.Array) -> jax.Array:
        """`[H, W, C]` or `[F]` in stored units -> float32 of mean 0 and deviation 1."""
        return (image.astype(jnp.float32) - self.mean) / self.std

    @classmethod
    def of(cls, images: StoredArray) -> "Normaliser":
        """The statistics of `images [N, ...]`, over all but the last axis.

        Read in parts, so that images on a disk, or a float64 copy of them, need never be in memory.
        """
        mean, std = (_of_bytes if images.dtype == np.uint8 else _of_floats)(images)
        return cls._shaped(mean, std, images.ndim)

    @classmethod
    def of_features(cls, features: StoredArray) -> "Normaliser":
        """Each feature's mean, one deviation for all of `[N, F]`: distances keep their ratios."""
        mean, std = _of_floats(features)
        together = np.sqrt(np.mean(np.square(std.astype(np.float64))))
        return cls._shaped(mean, np.full_like(std, together), 2)

    @classmethod
    def of_histogram(cls, counts: np.ndarray) -> "Normaliser":
        """The statistics of uint8 images with `counts [C, 256]` of their values."""
        mean, std = _moments(counts)
        return cls._shaped(mean, std, 4)

    @classmethod
    def constant(cls, mean: npt.ArrayLike, std: npt.ArrayLike) -> "Normaliser":
        """Given constants `[C]` for images scaled to [0, 1]; stored images are uint8."""
        scale = lambda values: np.asarray(255 * np.asarray(values, np.float64))
        return cls._shaped(scale(mean), scale(std), 4)

    @classmethod
    def _shaped(cls, mean: np.ndarray, std: np.ndarray, rank: int) -> "Normaliser":
        shape = (1,) * (rank - 2) + (-1,)
        std = np.where(std > 0, std, 1.0)
        return cls(*(x.reshape(shape).astype(np.float32) for x in (mean, std)))


def take_rows(array: StoredArray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]` of an array, or of pictures that are decoded when they are asked for."""
    found = np.take(array, rows, axis=0) if isinstance(array, np.ndarray) else array[rows]
    return np.asarray(found)


def on_host(array: Array, rows: np.ndarray) -> np.ndarray:
    """`array[rows]` of a set's array, wherever that lies."""
    if isinstance(array, jax.Array):  # A copy is on every device: one of them is asked.
        return np.asarray(array.addressable_data(0)[rows])
    return take_rows(array, rows)


class RowView:
    """Some rows of an array of examples, like a read-only array: read, and copied, when indexed.

    Row -1 is an image that is not there: zeros.
    """

    def __init__(self, array: StoredArray, rows: np.ndarray, dtype: npt.DTypeLike | None = None):
        """`array [n, ...]` may be mapped from a disk; `rows [N]`; `dtype`, None: the array's."""
        self._array, self._rows = array, rows
        self.dtype = array.dtype if dtype is None else np.dtype(dtype)
        self.shape = (len(rows), *array.shape[1:])
        self.ndim = array.ndim

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def there(self) -> "RowView":
        """The rows that are there."""
        return RowView(self._array, self._rows[self._rows >= 0], self.dtype)

    def __getitem__(self, key: Any, /) -> np.ndarray:
        rows, *cut = key if isinstance(key, tuple) else (key,)
        taken = self._rows[rows]
        if np.ndim(taken) == 0:
            found = self._array[taken] if taken >= 0 else np.zeros(self.shape[1:], self.dtype)
            return np.asarray(found[tuple(cut)], self.dtype)
        found = np.zeros((*taken.shape, *self.shape[1:]), self.dtype)
        is_there = taken >= 0
        found[is_there] = self._array[taken[is_there]]
        return found[(slice(None),) * taken.ndim + tuple(cut)]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("photos lie in another order: no array of them is without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)


_ROWS = 4096  # images, or feature vectors, that are looked at together ...
_BYTES = 2**28  # ... if they take no more than this


def parts(images: StoredArray) -> Iterator[np.ndarray]:
    """Some images at a time, `[n, ...]`: a data set need not be in memory."""
    rows = max(1, min(_ROWS, _BYTES * len(images) // max(1, images.nbytes)))
    for first in range(0, len(images), rows):
        yield np.asarray(images[first : first + rows])


def _parts(images: StoredArray) -> Iterator[np.ndarray]:
    """Values of some images at a time, `[n, C]`."""
    for part in parts(images):
        yield part.reshape(-1, images.shape[-1])


def _of_bytes(images: StoredArray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel `[C]` of uint8 images, from their exact histograms."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for part in _parts(images):
        for channel, values in enumerate(part.T):
            counts[channel] += np.bincount(values, minlength=256)
    return _moments(counts)


def _moments(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `[C]` of values that occur `counts [C, 256]` times."""
    values, total = np.arange(256.0), counts.sum(1)
    mean = counts @ values / total
    square = np.sum(counts * (values - mean[:, None]) ** 2, axis=1)
    return mean, np.sqrt(square / total)


def _of_floats(images: StoredArray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `[F]` of features, in two passes."""
    count = math.prod(images.shape[:-1])
    mean = sum(part.sum(0, dtype=np.float64) for part in _parts(images)) / count
    square = sum(np.sum((part - mean) ** 2, axis=0) for part in _parts(images))
    return mean, np.sqrt(square / count)


class LabelMaps(struct.PyTreeNode):
    """Label maps; those that nobody has given yet are hidden."""

    maps: Array
    """uint8 `[N, H, W]`, `IGNORED` for no class; None where only the rest was asked for."""
    pixels: Array
    """Pixels of each class, int32 `[N, K]`."""
    known: Array
    """Whether a map was given, bool `[N]`."""

    def visible(self) -> tuple[Array, jax.Array]:
        """Maps and pixels per class, with nothing in them where they are not known."""
        known = self.known.reshape(-1, 1)
        hide = lambda maps: jnp.where(known[..., None], maps, np.uint8(IGNORED))
        return jax.tree.map(hide, self.maps), jnp.where(known, self.pixels, 0)


Labels = Any
"""int32 `[N]`, -1 where unknown, as an `Array`; or `LabelMaps`."""


def with_labels(pool: "Resident | Streamed", labels: Array) -> "Resident | Streamed":
    """A pool with labels of its images, int32 `[N]`, -1 for none; of maps only which are known."""
    if isinstance(pool.labels, LabelMaps):
        return pool.replace(labels=pool.labels.replace(known=labels >= 0))
    return pool.replace(labels=labels)


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A training or test set that stays in host memory or on a disk, and is read when needed."""

    images: StoredArray
    """Images as in `Resident`, in memory, mapped from a disk, or decoded when they are read."""
    labels: Labels
    normalise: Normaliser
    thumbnails: np.ndarray | None = None

    def replace(self, **changes: object) -> "Streamed":
        """The set with other fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class Resident(struct.PyTreeNode):
    """A training or test set that lies on the devices whole."""

    images: Array
    """`[N, H, W, C]` uint8, or features `[N, F]` float32."""
    labels: Labels
    normalise: Normaliser
    thumbnails: Array | None = None
    """Small copies for the VAE, `[N, S, S, C]` uint8; None: it sees the images."""

    def plain(self, indices: jax.Array) -> jax.Array:
        """Normalised images without augmentation: `[B] -> [B, ...]`."""
        return jax.vmap(self.normalise)(self.images[indices])
