"""Features of images: a cache of what a frozen backbone gives.

The cache has a folder for each backbone, weights, size and decoding, see `data.row_cache`; an image
is known in it by its content: a photo by that of its file, another one by that of its pixels.
"""

import abc
import contextlib
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from tavaal_jax.data.pictures import cache, decode
from tavaal_jax.data.pictures.decode import Overflow, Pixels
from tavaal_jax.data.pictures.reading import Fault, Path, decode_ahead
from tavaal_jax.data.pool import StoredArray, parts
from tavaal_jax.data.row_cache import RowCache, Source
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_VERSION = 1  # of how images get to a backbone; part of the folder's name
_ARRAYS = "images"
_SECONDS = 1.0  # of computing that a killed process may have done in vain
_MOST = 4096  # rows that are stored at once, however quick


class Embedder(Protocol):
    """What computes features, such as `engine.embedding.Embedder`."""

    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def features(self) -> int: ...  # noqa: D102
    @property
    def at_once(self) -> int: ...  # noqa: D102
    def __call__(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Begins with images uint8 `[n, H, W, C]`, n <= `at_once`; the result waits: `[n, F]`."""


class Decoding(NamedTuple):
    """How photos are decoded for a backbone, in its size and three channels."""

    resize: str = "stretch"
    """See `decode.RESIZE`: squeezed out of shape shows all of a photo."""
    low_high: tuple[float, ...] = ()


_WHOLE = Decoding()


class Row(NamedTuple):
    """Features of an image."""

    values: np.ndarray
    """`[F]`."""
    overflow: Overflow | None


def folder(data_dir: str, embedder: Embedder, decoding: Decoding | None) -> pathlib.Path:
    """Folder of a backbone's features of photos decoded so; None: of arrays of images."""
    how = _ARRAYS
    if decoding is not None:
        how = cache.decoding(embedder.image_size, 3, decoding.resize, decoding.low_high)
    name = f"{embedder.digest[:16]}-{how}-v{_VERSION}"
    return user_path(data_dir, "data_dir") / "features" / name


class _Computed(RowCache[Source]):
    """Features by content id, computed where they are not cached: rows float32 `[F]`."""

    _seconds = _SECONDS

    def __init__(self, folder: pathlib.Path, embedder: Embedder):
        self._embedder = embedder
        super().__init__(
            folder, (embedder.features,), np.float32, "features.f32", cache.FAULTS, embedder.digest
        )

    @property
    def _most(self) -> int:
        return _MOST

    @abc.abstractmethod
    def _images(self, todo: Sequence[tuple[str, Source]]) -> Generator[Pixels | Fault]:
        """The images of `todo`, in order."""

    def _made(self, todo: Sequence[tuple[str, Source]]) -> Generator[Row | Fault]:
        with contextlib.closing(self._images(todo)) as images:
            before: Iterator[Row | Fault] = iter(())
            while batch := list(itertools.islice(images, self._embedder.at_once)):
                now = self._begun(batch)  # Devices compute while the batch before is stored.
                yield from before
                before = now
            yield from before

    def _begun(self, batch: Sequence[Pixels | Fault]) -> Iterator[Row | Fault]:
        """Begins to compute a batch; its rows wait for the result."""
        pixels = [one.values for one in batch if isinstance(one, Pixels)]
        result = self._embedder(np.stack(pixels)) if pixels else None

        def rows() -> Iterator[Row | Fault]:
            values = iter(result() if result is not None else ())
            for one in batch:
                if isinstance(one, Fault):
                    yield one
                    continue
                row = next(values)
                if not np.isfinite(row).all():
                    raise UserError(
                        "the backbone gives features that are not finite: its weights are damaged"
                        " or not for this network, give others by backbone.weights"
                    )
                yield Row(row, one.overflow)

        return rows()


class PhotoFeatures(_Computed[Path]):
    """Features of photos, by content id and path."""

    def __init__(self, data_dir: str, embedder: Embedder, decoding: Decoding = _WHOLE):
        self._decoding = decoding
        super().__init__(folder(data_dir, embedder, decoding), embedder)

    def _images(self, todo: Sequence[tuple[str, Path]]) -> Generator[Pixels | Fault]:
        return decode_ahead(todo, self._decode_file, 2 * self._embedder.at_once)

    def _decode_file(self, file: BinaryIO) -> Pixels:
        return decode.decode_checked(file, self._embedder.image_size, 3, *self._decoding)


class ImageFeatures(_Computed[int]):
    """Features of an array of images, by the ids of `image_ids` and by index."""

    def __init__(self, data_dir: str, embedder: Embedder, images: StoredArray):
        """`images` are uint8 `[N, H, W, C]`; the backbone resizes them."""
        self._array_of_images = images
        super().__init__(folder(data_dir, embedder, None), embedder)

    def _images(self, todo: Sequence[tuple[str, int]]) -> Generator[Pixels | Fault]:
        for _, index in todo:
            yield Pixels(np.asarray(self._array_of_images[index]), None)


def image_ids(images: StoredArray) -> list[str]:
    """An id for each image of an array, `[N, ...]`, by its shape, type and values."""
    about = f"{images.dtype} {images.shape[1:]} ".encode()
    digest = lambda image: hashlib.sha256(about + image.tobytes()).hexdigest()[:32]
    return [f"a{digest(image)}" for some in parts(images) for image in some]
