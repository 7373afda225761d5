"""k-means, and the picks that are made of clusters: TypiClust, DropQuery, ALFA-Mix."""

import jax
import numpy as np
import pytest
from conftest import several_devices
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from tavaal_jax.algorithm import blocks, clusters
from tavaal_jax.algorithm.feature_picks import mixing
from tavaal_jax.algorithm.feature_picks.typicality import typiclust
from tavaal_jax.algorithm.picks import Labelled
from tavaal_jax.engine import sharded_picks

KEY = jax.random.key(0)


def far_blobs(count=210, centers=7, features=6, seed=0):
    """Points in clusters of different sizes that nothing could confuse, and their clusters."""
    sizes = np.arange(1, centers + 1) * count // (centers * (centers + 1) // 2)
    points, labels = make_blobs(sizes, features, cluster_std=0.1, random_state=seed)
    return points.astype(np.float32), labels


def partition(labels):
    return {frozenset(np.flatnonzero(labels == one)) for one in np.unique(labels)}


def test_far_clusters_are_found():
    points, labels = far_blobs()
    found = clusters.k_means(points, 7, KEY)
    assert partition(found.assigned) == partition(labels)
    for cluster in range(7):
        members = points[found.assigned == cluster]
        np.testing.assert_allclose(found.centers[cluster], members.mean(0), rtol=1e-4, atol=1e-4)
    apart = np.square(points - found.centers[found.assigned]).sum(1)
    np.testing.assert_allclose(found.squares, apart, rtol=1e-2, atol=1e-2)


def test_clusters_are_as_tight_as_scikit_learns(rng):
    points = rng.normal(size=(500, 5)).astype(np.float32)
    ours = np.mean(
        [clusters.k_means(points, 20, jax.random.key(n)).squares.sum() for n in range(5)]
    )
    theirs = np.mean([KMeans(20, n_init=1, random_state=n).fit(points).inertia_ for n in range(5)])
    assert ours < 1.05 * theirs


def test_a_large_pool_is_seen_in_batches(monkeypatch):
    points, labels = far_blobs(2100)
    monkeypatch.setattr(clusters, "_LARGE", 1000)
    monkeypatch.setattr(clusters, "_BATCH", 256)
    monkeypatch.setattr(clusters, "_BATCHES", 20)
    found = clusters.k_means(points, 7, KEY)
    assert partition(found.assigned) == partition(labels)


def test_duplicates_leave_clusters_empty():
    points = np.repeat(np.float32([[0, 0], [1, 1]]), 5, axis=0)
    found = clusters.k_means(points, 4, KEY)
    assert partition(found.assigned) == {frozenset(range(5)), frozenset(range(5, 10))}
    assert np.isfinite(found.centers).all()


def typical(points, members, candidates):
    """Typicality of candidates in float64, by definition."""
    found = []
    for candidate in candidates:
        others = members[members != candidate]
        apart = np.linalg.norm(points[others].astype(float) - points[candidate], axis=1)
        found.append(1 / np.sort(apart)[:20].mean())
    return np.array(found)


@pytest.mark.parametrize("known", [(), (0,), (0, 6, 6)])
def test_typiclust_equals_its_definition(known):
    """`known` are the clusters of labelled points."""
    points, labels = far_blobs(500)
    ours = [np.flatnonzero(labels == cluster)[n] for n, cluster in enumerate(known)]
    rest = np.setdiff1d(np.arange(len(points)), ours)
    count = 7 - len(known)  # As many clusters as there are.
    labelled = points[ours] if known else None
    positions, scores = typiclust(points[rest], count, KEY, labelled)
    expected, gains = [], []
    sizes = np.bincount(labels)
    for cluster in sorted(range(7), key=lambda c: (known.count(c), -sizes[c]))[:count]:
        members = np.flatnonzero(labels == cluster)
        candidates = np.setdiff1d(members, ours)
        typicality = typical(points, members, candidates)
        expected.append(candidates[typicality.argmax()])
        gains.append(typicality.max())
    np.testing.assert_array_equal(rest[positions], expected)
    np.testing.assert_allclose(scores, gains, rtol=1e-4)


def test_a_budget_larger_than_the_clusters_goes_round(monkeypatch):
    points, labels = far_blobs(210)
    monkeypatch.setattr("tavaal_jax.algorithm.feature_picks.typicality._CLUSTERS", 7)
    positions, _ = typiclust(points, len(points), KEY)
    assert sorted(positions) == list(range(len(points)))
    sizes = np.bincount(labels)
    large = np.flatnonzero(sizes > 5)
    assert set(labels[positions[: len(large)]]) == set(large)
    assert len(set(labels[positions[len(large) : 2 * len(large)]])) == len(large)


def test_small_clusters_come_last():
    points = np.concatenate([np.zeros((6, 2)), np.full((3, 2), 50)]).astype(np.float32)
    points += 0.01 * np.arange(9, dtype=np.float32)[:, None]
    positions, _ = typiclust(points, 2, KEY)
    assert all(position < 6 for position in positions)
    positions, _ = typiclust(points, 9, KEY)
    assert sorted(positions) == list(range(9))


def test_typiclust_of_duplicates():
    alike = np.ones((7, 3), np.float32)
    positions, scores = typiclust(alike, 7, KEY, alike[:2])
    assert sorted(positions) == list(range(7))
    assert np.isfinite(scores).all()
    assert len(typiclust(alike, 0, KEY)[0]) == 0


def test_drop_query_takes_the_nearest_to_each_center_among_those_that_disagree():
    points, labels = far_blobs(420)
    wanted = labels > 1
    values = {"embedding": points, "disagreement": np.where(wanted, 1.0, 1 / 3).astype(np.float32)}
    positions, scores = mixing.drop_query(values, 5, KEY)
    nearest = []
    for cluster in range(2, 7):
        members = np.flatnonzero(labels == cluster)
        apart = np.linalg.norm(points[members] - points[members].mean(0), axis=1)
        nearest.append(members[apart.argmin()])
    assert list(positions) == nearest[::-1]  # The largest cluster first.
    assert (scores >= 0).all()
    few = {**values, "disagreement": np.zeros(len(points), np.float32)}
    positions, _ = mixing.drop_query(few, 7, KEY)
    assert set(labels[positions]) == set(range(7))


def test_picks_from_centers_of_duplicates():
    values = {"embedding": np.ones((7, 3), np.float32), "disagreement": np.ones(7, np.float32)}
    positions, scores = mixing.drop_query(values, 7, KEY)
    assert sorted(positions) == list(range(7))
    np.testing.assert_allclose(scores, 0, atol=1e-3)


def test_alfa_mix_takes_those_whose_class_changes_towards_the_farthest_anchor(rng):
    """A linear layer, of which everything is known."""
    layer = rng.normal(size=(4, 3)).astype(np.float32)
    features, known = (rng.normal(size=(n, 4)).astype(np.float32) for n in (200, 12))
    labels = np.arange(12, dtype=np.int32) % 3
    logits = features @ layer
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = probability - np.eye(3)[logits.argmax(1)]
    gradient = error @ layer.T
    step = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    values = {"features": features, "logits": logits, "slope": (step @ layer).astype(np.float32)}
    changes = np.zeros(200, bool)
    for label in range(3):  # The paper's mixture itself.
        anchor = known[labels == label].mean(0)
        towards = anchor - features
        length = np.linalg.norm(towards, axis=1, keepdims=True)
        share = 0.2 / np.sqrt(4) * length * step / towards
        mixed = share * anchor + (1 - share) * features
        changes |= (mixed @ layer).argmax(1) != logits.argmax(1)
    assert 5 < changes.sum() < 150
    positions, _ = mixing.alfa_mix(values, 5, KEY, Labelled({"features": known}, labels))
    assert changes[positions].all()
    assert len(set(positions.tolist())) == 5
    every, _ = mixing.alfa_mix(values, 200, KEY, Labelled({"features": known}, labels))
    assert sorted(every) == list(range(200))


@several_devices
@pytest.mark.parametrize("size", [12, 1300])
def test_all_devices_pick_what_one_picks(size, rng):
    points = rng.normal(size=(size, 4)).astype(np.float32)
    values = {"embedding": points, "disagreement": np.ones(size, np.float32)}
    for pick, given in ((typiclust, points), (mixing.drop_query, values)):
        alone = pick(given, 6, KEY)
        for mine, whole in zip(
            sharded_picks.on_all_devices(pick)(given, 6, KEY), alone, strict=True
        ):
            np.testing.assert_array_equal(mine, whole)


def test_a_pick_without_a_signature_stays_as_it_is():
    assert sharded_picks.on_all_devices(print) is print
    assert sharded_picks.on_all_devices(max) is max


def test_sizes_that_grow_compile_nothing_new(rng):
    """Within a power of two, as when L grows from cycle to cycle."""
    points = rng.normal(size=(300, 4)).astype(np.float32)
    typiclust(points[:200], 9, KEY, points[200:250])
    programs = blocks._jitted(blocks.nearest), clusters._plus_plus
    sizes = [program._cache_size() for program in programs]
    typiclust(points[:195], 9, KEY, points[200:253])
    assert [program._cache_size() for program in programs] == sizes
