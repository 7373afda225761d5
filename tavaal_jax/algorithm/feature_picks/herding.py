"""MaxHerding and uncertainty herding: greedy coverage of the pool by a kernel."""

from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm import blocks, clusters
from tavaal_jax.algorithm.blocks import MapBlocks
from tavaal_jax.algorithm.feature_picks import calibration
from tavaal_jax.algorithm.picks import Labelled, Picks

_PAIRED = 1000  # points whose median distance gives the radius
_KEPT = 2**26  # kernels of candidates and references that are computed once: 256 MiB
_FEW = 128  # candidates whose gains are computed anew at once, where kernels are kept
_LEAST = 0.02
"""Smallest radius of uncertainty herding, of that of MaxHerding: below it the rounding of float32
decides how near a point is to itself."""


def max_herding(
    values: np.ndarray,
    count: int,
    key: jax.Array,
    labelled: np.ndarray | None = None,
    map_blocks: MapBlocks = blocks.one_device,
    radius: float | None = None,
) -> Picks:
    """MaxHerding of embeddings `values [M, E]`, `labelled [L, E]` (Bae et al., ECCV 2024).

    "Generalized coverage for more robust low-budget active learning": with `k(x, y) = exp(-(|x - y|
    / h)^2)` and `m_n = max k(x_n, y)` over L and the picks so far, each pick has the largest
    `mean_n max(k(x, x_n) - m_n, 0)`, its score. The mean is over the candidates, since L adds
    nothing to it, and over a random sample of 2^14 where there are more; it stands for the whole
    pool where they are a random subset. `h` is `radius`, None: half the median distance of two of
    1,000 of them. Works without L: the first pick is then the densest.
    """
    random = clusters.generator(key)
    radius = _usual_radius(values, random) if radius is None else radius
    return _herd(values, np.ones(len(values)), labelled, count, radius, random, map_blocks)


def uherding(
    values: dict[str, Any],
    count: int,
    key: jax.Array,
    labelled: Labelled | None = None,
    map_blocks: MapBlocks = blocks.one_device,
) -> Picks:
    """MaxHerding weighted by uncertainty (Bae et al., ICLR 2025).

    "Uncertainty herding: one active learning method for all label budgets": the mean of MaxHerding
    is weighted by `u_n = 1 - margin_n`, the margin being that of T's probabilities of the classes
    in L at a calibrated temperature, see `calibration.scale`; `u_n = 1`
    where L is empty. `h` is the smallest distance, above 0, of two of L: it shrinks as L grows,
    from coverage of the pool to uncertainty alone, but not below 2 % of that of `max_herding`,
    which it is with less than two of L. `values` are
    `{"embedding": [M, E], "logits": [M, K]}`, or, for maps, T's margins as they are:
    `{"embedding", "certainty": [M]}`.
    """
    random = clusters.generator(key)
    points = values["embedding"]
    if labelled is None:
        radius = _usual_radius(points, random)
        return _herd(points, np.ones(len(points)), None, count, radius, random, map_blocks)
    known = labelled.values["embedding"]
    if "certainty" in values:
        margin = values["certainty"]
    else:
        margin = _calibrated_margin(values["logits"], known, labelled.labels)
    usual = _usual_radius(points, random)
    radius = max(_smallest_distance(known, map_blocks), _LEAST * usual) if len(known) > 1 else usual
    return _herd(points, 1 - margin, known, count, radius, random, map_blocks)


def _calibrated_margin(
    logits: np.ndarray, known: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """Margins `[M]` of T's logits `[M, K]`, calibrated on L, among the classes that L has."""
    present = np.unique(labels) if labels is not None else np.arange(logits.shape[1])
    if len(present) < 2:
        present = np.arange(logits.shape[1])
    numbers = None if labels is None else np.searchsorted(present, labels)
    scale = calibration.scale(known, numbers, len(present))
    return calibration.margin(logits[:, present], scale)


def _usual_radius(points: np.ndarray, random: np.random.Generator) -> float:
    """Half the median distance of two points, 1 where that is 0."""
    some = points
    if len(points) > _PAIRED:
        some = points[np.sort(random.choice(len(points), _PAIRED, replace=False))]
    some = some.astype(np.float64)
    squares = np.square(some).sum(1)
    pairs = squares[:, None] + squares[None] - 2 * some @ some.T
    apart = np.sqrt(np.maximum(pairs[np.triu_indices(len(some), 1)], 0))
    return float(np.median(apart)) / 2 or 1.0 if len(apart) else 1.0


def _smallest_distance(points: np.ndarray, map_blocks: MapBlocks) -> float:
    """Smallest distance of two different points; 0 where there are no two."""
    points = np.unique(points, axis=0)
    if len(points) < 2:
        return 0.0
    numbers = np.arange(len(points), dtype=np.int32)
    rows = {"point": points, "number": numbers}
    others = blocks.in_parts(points), blocks.in_parts(numbers, -1)
    distances = map_blocks(blocks.neighbours, rows, *others)
    above = distances[distances > 0]
    return float(above.min()) if len(above) else 0.0


def _herd(
    points: np.ndarray,
    weights: np.ndarray,
    labelled: np.ndarray | None,
    count: int,
    radius: float,
    random: np.random.Generator,
    map_blocks: MapBlocks,
) -> Picks:
    """Greedy picks of `count` of `points [M, E]`, lazily, which is exact.

    A gain only falls as more is covered, so what it was is a bound of what it is: gains are
    computed anew for the candidates with the highest bounds until the best of all is one of them.
    """
    count = min(count, len(points))
    chosen = clusters.sample(len(points), random)
    size = len(chosen)
    references, width = points[chosen], np.float32(radius)
    near = blocks.Held(blocks.in_parts(references))
    parts = blocks.in_parts(weights[chosen].astype(np.float32))
    is_small, importance = len(points) * parts.size <= _KEPT, blocks.Held(parts)
    covered = np.zeros(size, np.float32)

    def cover(by: np.ndarray) -> None:
        there = blocks.in_parts(np.ones(len(by), np.float32))
        args = blocks.in_parts(by), there, width
        np.maximum(covered, map_blocks(blocks.coverage, references, *args), out=covered)

    def gains(positions: np.ndarray | slice) -> np.ndarray:
        now = blocks.in_parts(covered), importance
        if kept is None:
            args = near, *now, width
            found: np.ndarray = map_blocks(blocks.gain_of_points, points[positions], *args)
        else:
            found = map_blocks(blocks.gain, kept[positions], *now)
        return found / np.float32(size)

    if not count:
        return np.zeros(0, int), np.zeros(0, np.float32)
    kept = map_blocks(blocks.kernels, points, near, width) if is_small else None
    if labelled is not None and len(labelled):
        cover(labelled)
    bounds = gains(slice(None))
    fresh = np.ones(len(points), bool)
    length = min(len(points), _FEW if is_small else 2 * blocks.block_length(len(points)))
    picks, scores = np.zeros(count, int), np.zeros(count, np.float32)
    for rank in range(count):
        best = int(np.argmax(bounds))  # Ties go to the smaller position.
        while not fresh[best]:
            stale = np.where(fresh, -np.inf, bounds)
            stale[best] = np.inf
            again = np.argpartition(-stale, length - 1)[:length]
            again = np.sort(again[~fresh[again]])
            bounds[again], fresh[again] = gains(again), True
            best = int(np.argmax(bounds))
        picks[rank], scores[rank] = best, bounds[best]
        cover(points[best][None])
        bounds[best] = -np.inf  # Never again.
        fresh[:] = False
        fresh[picks[: rank + 1]] = True
    return picks, scores
