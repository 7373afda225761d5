"""Features of images: a cache of what a frozen backbone gives, and files made elsewhere.

The cache has a folder for each backbone, weights, size and decoding, see `data.row_cache`; an image
is known in it by its content: a photo by that of its file, another one by that of its pixels.
"""

import abc
import contextlib
import copy
import hashlib
import itertools
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from tavaal_jax.data.dataset import PhotoFiles
from tavaal_jax.data.pictures import cache, decode
from tavaal_jax.data.pictures.decode import Overflow, Pixels
from tavaal_jax.data.pictures.reading import Fault, Path, Stamp, decode_ahead
from tavaal_jax.data.pool import StoredArray, parts
from tavaal_jax.data.row_cache import Progress, RowCache, Source
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_VERSION = 1  # of how images get to a backbone; part of the folder's name
_ARRAYS = "images"
_SECONDS = 1.0  # of computing that a killed process may have done in vain
_MOST = 4096  # rows that are stored at once, however quick
_KEY = "backbone.features"


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


# Features made elsewhere


class FeatureFile:
    """Features in a file, by id or file name: `add`, `rows` and `array` as a cache has them."""

    def __init__(self, path: str):
        """`path` is an .npz with `features [N, F]` and `ids [N]`, or an .npy beside a .txt of ids.

        Ids are content ids, ids of the data set, or names or paths of files. Raises UserError for
        a file that is none, in one line.
        """
        self.path = user_path(path, _KEY)
        before = _stamps(self.paths(path))
        self.array, self._ids = _read(self.path)
        self.digest = _digest(self.paths(path))
        """SHA-256 of the features and their ids."""
        if _stamps(self.paths(path)) != before:
            raise UserError(
                f"{_KEY} is {path}, which was written to while it was read: wait for it"
            )
        _check_finite(self.array, self.path, self._ids)
        self._row_by_id = {name: row for row, name in enumerate(self._ids)}
        if len(self._row_by_id) < len(self._ids):
            twice = Counter(self._ids).most_common(1)[0][0]
            raise UserError(f"{_KEY} is {path}: it has the id {twice!r} twice, give each once")
        self._rows_by_name: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(self._ids):
            self._rows_by_name[_parts_of(name)[-1]].append(row)
        self._known: frozenset[str] = frozenset()
        self._row_by_photo: dict[str, int] = {}  # of photos that are named in it
        self._owners: dict[int, str] = {}  # content id of the photo that has a row

    @staticmethod
    def paths(path: str) -> list[pathlib.Path]:
        """The file of features and, beside an .npy, that of its ids."""
        file = user_path(path, _KEY)
        return [file, file.with_suffix(".txt")] if file.suffix == ".npy" else [file]

    def matching(self, known: Collection[str] = ()) -> "FeatureFile":
        """The same features, to be matched with photos anew.

        Of photos that are named alike, the one `known` by content id has the row, if it is one.
        """
        found = copy.copy(self)
        found._known, found._row_by_photo, found._owners = frozenset(known), {}, {}
        return found

    @property
    def features(self) -> int:
        """F"""
        return int(self.array.shape[1])

    def add(
        self, todo: Sequence[tuple[str, Path]], progress: Progress | None = None
    ) -> dict[str, str]:
        """Finds the features of photos, ids and paths; returns why some have none, by id."""
        del progress
        self._owners |= {self._row_by_id[n]: n for n, _ in todo if n in self._row_by_id}
        found = {n: self._named(path) for n, path in todo if n not in self._row_by_id}
        claims: dict[int, list[str]] = defaultdict(list)
        for name, row in found.items():
            if row is not None:
                claims[row].append(name)
        for row, names in claims.items():
            first = [name for name in names if name in self._known] or names
            if len(first) == 1:
                self._owners.setdefault(row, first[0])
        missing: dict[str, str] = {}
        for name, row in found.items():
            if row is None:
                missing[name] = f"no features in {self.path.name}"
            elif self._owners.get(row) != name:
                missing[name] = f"{self.path.name} has its name for several images"
            else:
                self._row_by_photo[name] = row
        return missing

    def _named(self, path: Path) -> int | None:
        """The row whose name is the end of a path, the longest one; None where none is."""
        whole = _parts_of(os.fspath(path))
        rows = self._rows_by_name.get(whole[-1], [])
        fitting = [row for row in rows if _is_end(_parts_of(self._ids[row]), whole)]
        return max(fitting, key=lambda row: len(_parts_of(self._ids[row])), default=None)

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of `array` with these ids, int64 `[n]`; -1 where there is none."""
        found = lambda name: self._row_by_id.get(name, self._row_by_photo.get(name, -1))
        return np.array([found(str(name)) for name in ids], np.int64)

    def overflows(self, ids: Iterable[str]) -> list[Overflow]:
        """None: no photo is decoded."""
        del ids
        return []

    def rows_of(self, dataset: str, ids: Sequence[str], photos: PhotoFiles | None) -> np.ndarray:
        """Rows of all images of a data set, by id or file; UserError where one has none."""
        rows, reasons = self.rows(ids), dict[str, str]()
        if photos is not None:
            reasons = self.add(list(zip(map(str, photos.ids), photos.paths, strict=True)))
            rows = np.where(rows < 0, self.rows(photos.ids.tolist()), rows)
        lost = np.flatnonzero(rows < 0)
        if len(lost):
            names = ", ".join(str(ids[row]) for row in lost[:3]) + (", ..." * (len(lost) > 3))
            first = "" if photos is None else reasons.get(str(photos.ids[lost[0]]), "")
            reason = f" ({first})" if "several" in first else ""
            raise UserError(
                f"{_KEY} is {self.path}: it has none of {len(lost):,} of the {len(ids):,} images of"
                f" {dataset}, {names}{reason}: add them, named by id, by content id or by file"
            )
        return rows


def _parts_of(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _is_end(part: list[str], whole: list[str]) -> bool:
    return whole[-len(part) :] == part


def _read(path: pathlib.Path) -> tuple[np.ndarray, list[str]]:
    """Features `[N, F]` and ids of a file; an .npy stays on the disk."""
    wrong = f"{_KEY} is {path}"
    beside = path.with_suffix(".txt")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                if {"features", "ids"} - set(file):
                    has = ", ".join(file) or "nothing"
                    raise UserError(f"{wrong}: it holds {has}: give it features [N, F] and ids [N]")
                features, ids = file["features"], [_text(name) for name in file["ids"].ravel()]
        elif path.suffix == ".npy":
            features = np.load(path, "r", allow_pickle=False)
            ids = beside.read_text("utf-8").splitlines()
        else:
            raise UserError(f"{wrong}: give an .npz, or an .npy with its ids in a .txt beside it")
    except FileNotFoundError as error:
        what = beside if path.exists() else path
        lines = ", a line with the id of each row" if path.exists() else ""
        raise UserError(f"{wrong}, and there is no file {what}: give it{lines}") from error
    except (OSError, ValueError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{wrong}, which cannot be read ({reason}): save float arrays, and ids as np.array(ids,"
            " str)"
        ) from error
    if features.ndim != 2 or features.dtype not in (np.float16, np.float32) or not features.size:
        raise UserError(
            f"{wrong}: its features are {features.dtype} {features.shape}: give float16 or float32"
            " [N, F]"
        )
    if len(ids) != len(features):
        raise UserError(f"{wrong}: it has {len(features)} features and {len(ids)} ids")
    return features, ids


def _stamps(paths: Sequence[pathlib.Path]) -> list[Stamp | None]:
    return [Stamp.from_stat(path.stat()) if path.exists() else None for path in paths]


def _digest(paths: Sequence[pathlib.Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _check_finite(features: np.ndarray, path: pathlib.Path, ids: Sequence[str]) -> None:
    first = 0
    for some in parts(features):
        finite = np.isfinite(some).all(1)
        if not finite.all():
            name = ids[first + int(np.argmin(finite))]
            raise UserError(
                f"{_KEY} is {path}: the features of {name} are not finite: leave it out"
            )
        first += len(some)
