"""TypiClust: the most typical image of each cluster that has no label."""

import jax
import numpy as np

from tavaal_jax.algorithm import blocks, clusters
from tavaal_jax.algorithm.blocks import MapBlocks
from tavaal_jax.algorithm.picks import Picks

_CLUSTERS = 500  # at most
_SMALL = 5  # members up to which a cluster is left out
_PADDED = 256  # rows at least, so that clusters of all sizes share few programs
_NO_DISTANCE = 1e-7  # beside a mean distance, which is 0 among duplicates


def typiclust(
    values: np.ndarray,
    count: int,
    key: jax.Array,
    labelled: np.ndarray | None = None,
    map_blocks: MapBlocks = blocks.one_device,
) -> Picks:
    """TypiClust ("Active learning on a budget", Hacohen et al., ICML 2022) on `values z [M, E]`.

    All z, those of L too, are put into `min(|L| + count, 500)` clusters by k-means. Clusters with
    the fewest labels come first, among them the largest; those of 5 or fewer members are left out,
    and come last where images are still wanted. From each in turn the most typical candidate is
    picked: largest is 1 / (mean distance to its 20 nearest in the cluster), its score. In a cluster
    of more than 2^14 the nearest are sought in a random sample of that many. Works without L.
    """
    count = min(count, len(values))
    if not count:
        return np.zeros(0, int), np.zeros(0, np.float32)
    known = values[:0] if labelled is None else labelled
    points = np.concatenate([known, values])
    number = min(len(known) + count, _CLUSTERS)
    key_clusters, key = jax.random.split(key)
    assigned = clusters.k_means(points, number, key_clusters, map_blocks).assigned
    labels = np.bincount(assigned[: len(known)], minlength=number)
    sizes = np.bincount(assigned, minlength=number)
    order = np.lexsort((np.arange(number), -sizes, labels, sizes <= _SMALL))
    large = order[sizes[order] > _SMALL]
    random = clusters.generator(key)
    queues: dict[int, tuple[list[int], np.ndarray]] = {}
    picks: list[int] = []
    scores: list[np.float32] = []
    # Round after round through the large clusters; once they are empty, through the small ones.
    for ordered in (large, order[len(large) :]):
        turn = ordered.tolist()
        while turn and len(picks) < count:
            for cluster in turn:
                if len(picks) == count:
                    break
                if cluster not in queues:
                    members = np.flatnonzero(assigned == cluster)
                    queues[cluster] = _typical_last(points, members, len(known), random, map_blocks)
                queue, typicality = queues[cluster]
                if queue:
                    picks.append(queue.pop())
                    scores.append(typicality[len(queue)])
            turn = [cluster for cluster in turn if cluster not in queues or queues[cluster][0]]
    return np.array(picks), np.array(scores, np.float32)


def _typical_last(
    points: np.ndarray,
    members: np.ndarray,
    known: int,
    random: np.random.Generator,
    map_blocks: MapBlocks,
) -> tuple[list[int], np.ndarray]:
    """Candidates among a cluster's members, the most typical last, with their typicality."""
    candidates = members[members >= known]
    if not len(candidates):
        return [], np.zeros(0, np.float32)
    near = members[clusters.sample(len(members), random)]
    rows = {"point": points[candidates], "number": candidates.astype(np.int32)}
    others = {"point": points[near], "number": near.astype(np.int32)}
    rows, others = (_padded(some) for some in (rows, others))
    parts = blocks.in_parts(others["point"]), blocks.in_parts(others["number"], -1)
    distances = map_blocks(blocks.neighbours, rows, *parts)[: len(candidates)]
    found = np.isfinite(distances)
    mean = np.where(found, distances, 0).sum(1) / np.maximum(found.sum(1), 1)
    typicality = (1 / (mean + _NO_DISTANCE)).astype(np.float32)
    order = np.argsort(-typicality, kind="stable")[::-1]
    return (candidates[order] - known).tolist(), typicality[order]


def _padded(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """At least `_PADDED` rows: the others are zeros, of number -1."""
    length = max(len(rows["number"]), _PADDED)
    return {
        "point": blocks.padded(rows["point"], length),
        "number": blocks.padded(rows["number"], length, -1),
    }
