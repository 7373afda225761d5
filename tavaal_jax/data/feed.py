"""How examples come to a training step: looked up on the devices, or read ahead from a disk.

Both follow the same plans, so a step sees the same examples either way.
"""

import concurrent.futures
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from tavaal_jax.data.plans import CropOrigins, Examples, ExtraUpdates, IndexPlan
from tavaal_jax.data.pool import (
    IGNORED,
    Array,
    LabelMaps,
    Labels,
    Resident,
    StoredArray,
    Streamed,
    take_rows,
)


class Reads(NamedTuple):
    """Fields of `Examples` that a training stage reads, by pool.

    A label that is a map comes with `map`; without it only what an adversary sees: how many pixels.
    """

    labelled: frozenset[str] = frozenset({"image", "label", "map"})
    unlabelled: frozenset[str] = frozenset({"image"})
    window: int = 0
    """Side of the windows that are cut from images and maps; 0: they are read whole."""

    def of_updates(self) -> "Reads":
        """Reads of the adversary's further updates: of L what it sees of U, and labels."""
        return self._replace(labelled=self.unlabelled | {"label"})

    def bytes_of(self, pool: Streamed) -> int:
        """Bytes to be read of one image, about."""
        height, width, *rest = pool.images.shape[1:] if pool.images.ndim == 4 else (1, 1)
        pixels = min(height, self.window or height) * min(width, self.window or width)
        return max(1, pixels * math.prod(rest or pool.images.shape[1:]))


WHOLE = Reads()
"""Reads of all that examples have."""


def windows(
    array: StoredArray, rows: np.ndarray, size: int, fill: int, *crop_origins: np.ndarray
) -> list[np.ndarray]:
    """Square windows of images or maps: `rows [...], origins [..., 2] -> [..., size, size, ...]`.

    One for each of `crop_origins`, and each row is read once. Below and to the right of smaller
    images they hold `fill`.
    """
    cuts = [
        np.full((rows.size, size, size, *array.shape[3:]), fill, array.dtype) for _ in crop_origins
    ]
    for place, row in enumerate(rows.ravel() if crop_origins else ()):
        whole = array[int(row)]
        for cut, at in zip(cuts, crop_origins, strict=True):
            y, x = map(int, at.reshape(-1, 2)[place])
            part = whole[y : y + size, x : x + size]
            cut[place, : part.shape[0], : part.shape[1]] = part
    return [cut.reshape(*rows.shape, *cut.shape[1:]) for cut in cuts]


Origins = np.ndarray | None
"""Where windows begin; None: images are read whole."""


class Ahead:
    """Plans whose examples two threads read from `pool` while the devices are at work.

    Random access as the plans have it: nothing of what was read is a state that a checkpoint would
    have to hold.
    """

    def __init__(
        self,
        plan: Callable[[int, int], IndexPlan],
        pool: Streamed,
        condition: Array,
        last: int,
        steps: int,
        reads: Reads = WHOLE,
    ):
        """`plan(first, count)` names the examples of steps before `last`; `steps` are read ahead.

        `condition` is a pytree of arrays `[N, ...]` in host memory, or None.
        """
        self._plan, self._pool, self._condition, self._reads = plan, pool, condition, reads
        self._last, self._steps = last, steps
        self._threads = concurrent.futures.ThreadPoolExecutor(2, "read")
        self._reading: dict[int, concurrent.futures.Future[IndexPlan]] = {}
        self._asked = 0
        self._waited = 0.0

    def __call__(self, first: int, count: int) -> IndexPlan:
        """The plan of some steps, with the examples in the place of their indices."""
        self._read_on(first, count)
        begin = time.monotonic()
        steps = [self._reading.pop(number).result() for number in range(first, first + count)]
        self._waited += time.monotonic() - begin
        return jax.tree.map(lambda *rows: np.concatenate(rows), *steps)

    def _read_on(self, first: int, count: int) -> None:
        """Gives the threads the steps that they are not reading yet."""
        begin = max(first, self._asked)
        end = min(self._last, first + count + self._steps)
        if begin < end:
            plan = self._plan(begin, end - begin)
            for number in range(begin, end):
                one = jax.tree.map(lambda rows, at=number - begin: rows[at : at + 1], plan)
                self._reading[number] = self._threads.submit(self._read, one)
            self._asked = end

    def _read(self, plan: IndexPlan) -> IndexPlan:
        """Reads a step: leaves `[1, B, ...]`."""
        more = plan.more
        if more is not None:
            more = ExtraUpdates(*self._pools(more, self._reads.of_updates()))
        return IndexPlan(*self._pools(plan, self._reads), plan.positions, more)

    def _pools(
        self, rows: IndexPlan | ExtraUpdates, reads: Reads
    ) -> tuple[Examples, Examples | None]:
        """Examples of both pools."""
        crop_origins = rows.crop_origins or CropOrigins(None, None, None)
        labelled = self._examples(
            rows.labelled, reads.labelled, crop_origins.trained, crop_origins.labelled
        )
        unlabelled = None
        if rows.unlabelled is not None:
            unlabelled = self._examples(
                rows.unlabelled, reads.unlabelled, None, crop_origins.unlabelled
            )
        return labelled, unlabelled

    def _examples(
        self, rows: Array, wanted: frozenset[str], trained: Origins, seen: Origins
    ) -> Examples:
        """Examples `rows`; windows begin at `trained` and, for R, at `seen`."""
        pool = self._pool
        crop_origins = {"image": trained, "ranker_crop": seen}
        images = {name: at for name, at in crop_origins.items() if name in wanted}
        found = dict(zip(images, self._cut(pool.images, rows, 0, *images.values()), strict=True))
        pictures = pool.images if pool.thumbnails is None else pool.thumbnails
        return Examples(
            found.get("image"),
            self._label(rows, "map" in wanted, trained) if "label" in wanted else None,
            jax.tree.map(lambda array: take_rows(array, rows), self._condition),
            take_rows(pictures, rows) if "thumbnail" in wanted else None,
            found.get("ranker_crop"),
        )

    def _label(self, rows: np.ndarray, with_map: bool, trained: Origins) -> Labels:
        """Labels, or what is known of maps; the maps themselves only `with_map`."""
        labels = self._pool.labels
        if not isinstance(labels, LabelMaps):
            return take_rows(labels, rows)
        maps = self._cut(labels.maps, rows, IGNORED, trained)[0] if with_map else None
        return LabelMaps(maps, take_rows(labels.pixels, rows), take_rows(labels.known, rows))

    def _cut(
        self, array: StoredArray, rows: np.ndarray, fill: int, *crop_origins: Origins
    ) -> list[np.ndarray]:
        """Windows at each of `crop_origins`; whole images where one is None."""
        size, given = self._reads.window, [at for at in crop_origins if at is not None]
        if not size or len(given) < len(crop_origins):
            return [take_rows(array, rows) for _ in crop_origins]
        return windows(array, rows, size, fill, *given)

    def take_waited(self) -> float:
        """Seconds for which calls have waited since this was last called."""
        waited, self._waited = self._waited, 0.0
        return waited

    def close(self) -> None:
        """Ends the threads and drops what they have read."""
        self._threads.shutdown(wait=True, cancel_futures=True)


_BYTES_AHEAD = 2**28  # of images that are read before they are needed


@contextlib.contextmanager
def feed(
    pool: Resident | Streamed,
    condition: Array,
    plan: Callable[[int, int], IndexPlan],
    steps: tuple[int, int],
    reads: Reads = WHOLE,
) -> Iterator[tuple[tuple[Resident, Array], Callable[[int, int], IndexPlan], Callable[[], float]]]:
    """Arguments of a training stage's program: `data, plan, waited`.

    `plan(first, count)` names examples of steps; `steps` are the last one and how many a call may
    run. `waited()` is for how many seconds reading has held up calls since the last time.
    """
    if isinstance(pool, Resident):
        yield (pool, condition), plan, lambda: 0.0
        return
    last, most = steps
    one = sum(leaf.size for leaf in jax.tree.leaves(plan(0, 1))) * reads.bytes_of(pool)
    ahead = Ahead(plan, pool, condition, last, max(1, min(2 * most, _BYTES_AHEAD // one)), reads)
    try:
        yield (Resident(None, None, pool.normalise), None), ahead, ahead.take_waited
    finally:
        ahead.close()
