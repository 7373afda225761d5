"""An order in which similar images lie together, from their features alone."""

import numpy as np

from tavaal_jax.labelling.view import maps

_AXES = 32  # principal components that the order is made from
_SMALL = 1e-20


def similarity_order(features: np.ndarray) -> np.ndarray:
    """Order `[N]` of images by features `[N, F]`: similar ones lie together.

    Images are divided in two where that leaves the least variance along their first principal
    axis, and each part again; parts are turned so that neighbours are alike. Linear memory.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True).astype(np.float32)
    points = maps.components(features / np.maximum(lengths, _SMALL), _AXES)
    order: list[int] = []
    todo = [np.arange(len(points))] if len(points) else []
    while todo:
        part = todo.pop()
        axis = _axis(points[part]) if len(part) > 1 else None
        if axis is None:
            order += part.tolist()
            continue
        along = points[part] @ axis
        places = np.argsort(along, kind="stable")
        cut = _cut(along[places])
        halves = part[places[:cut]], part[places[cut:]]
        # They lie between the images before and the part after.
        ends = points[order[-8:]], points[todo[-1] if todo else []]
        costs = [_distance(half, points, end) for end in ends for half in halves]
        is_turned = costs[1] + costs[2] < costs[0] + costs[3]
        todo += halves if is_turned else halves[::-1]
    return np.array(order, np.int64)


def _axis(points: np.ndarray) -> np.ndarray | None:
    """The first principal axis of points `[n, F]`; None where all are the same."""
    centred = (points - points.mean(0)).astype(np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axis: np.ndarray = axes[:, -1]
    return axis if variances[-1] > _SMALL else None


def _distance(part: np.ndarray, points: np.ndarray, end: np.ndarray) -> float:
    """Distance of the means of a part of `points` and of `end [n, F]`; 0 where that is empty."""
    return float(np.linalg.norm(points[part].mean(0) - end.mean(0))) if len(end) else 0.0


def _cut(values: np.ndarray) -> int:
    """Where sorted values `[n]`, n > 1, fall into two groups of the least variance within."""
    sums, counts = np.cumsum(values.astype(np.float64)), np.arange(1, len(values))
    left, right = sums[:-1], sums[-1] - sums[:-1]
    return int(np.argmax(left**2 / counts + right**2 / counts[::-1])) + 1
