"""Features of images that were made elsewhere, in a file, matched by id or file name."""

import copy
import hashlib
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from tavaal_jax.data.dataset import PhotoFiles
from tavaal_jax.data.pictures.reading import Path, Stamp
from tavaal_jax.data.pictures.values import Overflow
from tavaal_jax.data.pool import parts
from tavaal_jax.data.row_cache import Progress
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_KEY = "backbone.features"


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
        """Copy of this file's features, to be matched with photos anew.

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
