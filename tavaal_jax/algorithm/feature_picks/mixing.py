"""DropQuery and ALFA-Mix: diverse picks among images whose predicted class is easily changed."""

from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm import blocks, clusters
from tavaal_jax.algorithm.blocks import MapBlocks
from tavaal_jax.algorithm.picks import Labelled, Picks

_SHARES = 0.2 * np.arange(1, 6)  # sizes of ALFA-Mix's share, until enough classes change


def drop_query(
    values: dict[str, np.ndarray],
    count: int,
    key: jax.Array,
    labelled: object = None,
    map_blocks: MapBlocks = blocks.one_device,
) -> Picks:
    """Clusters of images whose prediction does not outlast dropout (Gupte et al., TMLR 2024).

    DropQuery of "Revisiting active learning in the era of vision foundation models": candidates are
    the images for which more than half of the passes with dropout predict another class than T, or
    all where these are fewer than `count`. They are put into `count` clusters by k-means, and from
    each the nearest to its center is picked; a score is the distance to it. `values` are
    `{"embedding": [M, E], "disagreement": [M]}`.
    """
    del labelled
    return _nearest_to_centers(
        values["embedding"], values["disagreement"] > 0.5, count, key, map_blocks
    )


def alfa_mix(
    values: dict[str, np.ndarray],
    count: int,
    key: jax.Array,
    labelled: Labelled | None = None,
    map_blocks: MapBlocks = blocks.one_device,
) -> Picks:
    """Clusters of images whose class changes if features are mixed (Parvaneh et al., CVPR 2022).

    ALFA-Mix of "Active learning by feature mixing": an anchor `z*` is the mean of the labelled
    features of a class. The features of an image are mixed with it, `a z* + (1 - a) z`, by the
    share (of each feature) that raises the loss of the predicted class most,
    `a = e |z* - z| g / |g| / (z* - z)` with the loss's gradient `g` and `e = 0.2 / sqrt(F)`: the
    features move by `e |z* - z|` along `g / |g|`. Candidates are those whose predicted class then
    changes for any anchor: T's last layer being linear, for the farthest. Where they are fewer than
    `count`, `e` is made 2 to 5 times as large, and at last all are candidates. They are put into
    `count` clusters by k-means of their directions, and from each the nearest to its center is
    picked; a score is the distance to it.

    `values` are `{"features": [M, F], "logits": [M, K], "slope": [M, K]}`, the last the change of
    the logits along `g / |g|`.
    """
    if labelled is None:
        raise ValueError("alfa_mix needs L: set Method.compares and sees_labels")
    features, logits, slope = (values[name] for name in ("features", "logits", "slope"))
    anchors = np.stack(_class_means(labelled.values["features"], labelled.labels))
    there = blocks.in_parts(np.ones(len(anchors), np.float32))
    args = blocks.in_parts(anchors), there
    far = np.sqrt(map_blocks(blocks.farthest, features, *args))
    predicted = logits.argmax(1)
    is_changed = np.zeros(len(logits), bool)
    for share in _SHARES / np.sqrt(features.shape[1]):
        mixed = logits + (share * far).astype(logits.dtype)[:, None] * slope
        is_changed = mixed.argmax(1) != predicted
        if is_changed.sum() >= count:
            break
    return _nearest_to_centers(_directions(features), is_changed, count, key, map_blocks)


def _class_means(features: np.ndarray, labels: Any) -> list[np.ndarray]:
    """Mean features of each class among the labels, `[F]` each."""
    return [
        features[labels == label].mean(0, dtype=np.float64).astype(features.dtype)
        for label in np.unique(labels)
    ]


def _directions(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(features.dtype).tiny)


def _nearest_to_centers(
    points: np.ndarray, wanted: np.ndarray, count: int, key: jax.Array, map_blocks: MapBlocks
) -> Picks:
    """The nearest to each of `count` k-means centers of the wanted points, largest cluster first.

    All points take part where fewer than `count` are wanted. Where duplicates leave clusters empty,
    the rest are those nearest to their centers.
    """
    count = min(count, len(points))
    if not count:
        return np.zeros(0, int), np.zeros(0, np.float32)
    candidates = np.flatnonzero(wanted)
    if len(candidates) < count:
        candidates = np.arange(len(points))
    found = clusters.k_means(points[candidates], count, key, map_blocks)
    sizes = np.bincount(found.assigned, minlength=count)
    by_distance = np.lexsort((np.arange(len(candidates)), found.squares))
    _, first = np.unique(found.assigned[by_distance], return_index=True)
    nearest = by_distance[first]
    nearest = nearest[np.lexsort((nearest, -sizes[found.assigned[nearest]]))]
    rest = by_distance[~np.isin(by_distance, nearest)]
    picks = np.concatenate([nearest, rest])[:count]
    return candidates[picks], np.sqrt(found.squares[picks])
