"""MaxHerding and uncertainty herding against their definitions; the temperature."""

import jax
import numpy as np
import pytest
from conftest import several_devices

from tavaal_jax.algorithm import blocks
from tavaal_jax.algorithm.feature_picks import calibration, herding
from tavaal_jax.algorithm.picks import Labelled
from tavaal_jax.engine import sharded_picks

KEY = jax.random.key(0)


def unit(points):
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def blobs(random, count=150, features=6, centers=7):
    middle = random.normal(size=(centers, features))
    return unit(middle[random.integers(centers, size=count)] + 0.4 * random.normal(
        size=(count, features)))  # fmt: skip


def kernel(left, right, radius):
    left, right = left.astype(np.float64), right.astype(np.float64)
    return np.exp(-np.square(left[:, None] - right[None]).sum(-1) / radius**2)


def by_definition(points, count, labelled, radius, weights=None):
    """Greedy picks in float64, and each one's gain."""
    weights = np.ones(len(points)) if weights is None else weights
    covered, found, gains = np.zeros(len(points)), [], []
    if labelled is not None:
        covered = kernel(points, labelled, radius).max(1)
    similar = kernel(points, points, radius)
    for _ in range(count):
        gain = (weights[None] * np.maximum(similar - covered[None], 0)).mean(1)
        gain[found] = -1
        found.append(int(gain.argmax()))
        gains.append(gain.max())
        covered = np.maximum(covered, similar[found[-1]])
    return found, gains


@pytest.mark.parametrize("known", [0, 1, 5])
@pytest.mark.parametrize("seed", range(3))
def test_max_herding_equals_its_definition(seed, known):
    random = np.random.default_rng(seed)
    points, labelled = blobs(random), blobs(random)[:known] if known else None
    positions, scores = herding.max_herding(points, 20, KEY, labelled, radius=0.4)
    expected, gains = by_definition(points, 20, labelled, 0.4)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(scores, gains, rtol=1e-3, atol=1e-6)


def test_without_labels_the_first_is_the_densest_and_the_radius_is_half_the_median_distance(rng):
    points = blobs(rng)
    apart = np.sqrt(np.square(points[:, None] - points[None]).sum(-1))
    radius = np.median(apart[np.triu_indices(len(points), 1)]) / 2
    positions, _ = herding.max_herding(points, 5, KEY)
    assert positions[0] == kernel(points, points, radius).mean(1).argmax()
    np.testing.assert_array_equal(positions, by_definition(points, 5, None, radius)[0])


def test_duplicates_are_picked_once_each_and_last():
    points = unit(np.repeat([[1.0, 0], [0, 1]], 4, axis=0))
    positions, scores = herding.max_herding(points, 8, KEY)
    assert sorted(positions) == list(range(8))
    assert {positions[0] // 4, positions[1] // 4} == {0, 1}
    np.testing.assert_allclose(scores[2:], 0, atol=1e-6)
    alike = np.ones((6, 3), np.float32)
    np.testing.assert_array_equal(herding.max_herding(alike, 6, KEY)[0], np.arange(6))
    assert len(herding.max_herding(alike, 9, KEY)[0]) == 6
    assert len(herding.max_herding(alike, 0, KEY)[0]) == 0


def herded_values(random, count=150, classes=4):
    logits = random.normal(size=(count, classes)).astype(np.float32)
    return {"embedding": blobs(random, count), "logits": logits}


def test_uncertainty_herding_equals_its_definition(rng):
    values, known = herded_values(rng), herded_values(rng, 12)
    labels = np.arange(12, dtype=np.int32) % 4
    positions, scores = herding.uherding(values, 15, KEY, Labelled(known, labels))
    apart = np.sqrt(np.square(known["embedding"][:, None] - known["embedding"][None]).sum(-1))
    radius = apart[np.triu_indices(12, 1)].min()
    scale = calibration.scale(known["embedding"], labels, 4)
    weights = 1 - calibration.margin(values["logits"], scale)
    points = values["embedding"]
    expected, gains = by_definition(points, 15, known["embedding"], radius, weights)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(scores, gains, rtol=1e-2, atol=1e-6)


def test_two_labelled_points_that_are_almost_one_leave_a_radius(rng):
    """Below it the rounding of float32 would decide how near a point is to itself."""
    values, known = herded_values(rng), herded_values(rng, 12)
    known["embedding"][1] = known["embedding"][0] + 1e-6
    labels = np.arange(12, dtype=np.int32) % 4
    positions, scores = herding.uherding(values, 15, KEY, Labelled(known, labels))
    points = values["embedding"]
    apart = np.sqrt(np.square(points[:, None] - points[None]).sum(-1))
    radius = 0.02 * np.median(apart[np.triu_indices(len(points), 1)]) / 2
    weights = 1 - calibration.margin(
        values["logits"], calibration.scale(known["embedding"], labels, 4)
    )
    expected, gains = by_definition(points, 15, known["embedding"], radius, weights)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(scores, gains, rtol=1e-2, atol=1e-6)


def test_classes_without_a_label_change_nothing(rng):
    values, known = herded_values(rng), herded_values(rng, 12)
    labels = np.arange(12, dtype=np.int32) % 4
    expected = herding.uherding(values, 15, KEY, Labelled(known, labels))
    # Class 0 and five at the end have no label, and logits that are much lower.
    absent = np.full((len(values["logits"]), 1), -30, np.float32)
    wide = {**values, "logits": np.hstack([absent, values["logits"], *[absent] * 5])}
    found = herding.uherding(wide, 15, KEY, Labelled(known, labels + 1))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)


def test_the_temperature_looks_at_all_classes_of_many_labels_in_order(rng):
    points = blobs(rng, 3000)
    labels = np.repeat([0, 1], [2500, 500]).astype(np.int32)
    mixed = rng.permutation(3000)
    found = calibration.scale(points, labels, 2)
    assert found < calibration._SCALES[-1]  # As certain as can be where all are of one class.
    assert found == pytest.approx(calibration.scale(points[mixed], labels[mixed], 2), rel=1)


def test_uncertainty_herding_without_labels_is_max_herding(rng):
    values = herded_values(rng)
    found, plain = (
        herding.uherding(values, 9, KEY),
        herding.max_herding(values["embedding"], 9, KEY),
    )
    np.testing.assert_array_equal(found[0], plain[0])
    same = {name: np.repeat(x[:1], 5, axis=0) for name, x in values.items()}
    for known in (1, 5):  # Two of L that are alike have no distance.
        labelled = Labelled({k: x[:known] for k, x in same.items()}, np.zeros(known, np.int32))
        assert np.isfinite(herding.uherding(values, 9, KEY, labelled)[1]).all()


def test_uncertainty_herding_of_maps_takes_margins_as_they_are(rng):
    points = blobs(rng)
    margin = np.where(np.arange(len(points)) < 100, 1, 0).astype(np.float32)
    known = {"embedding": blobs(rng, 3), "certainty": margin[:3]}
    values = {"embedding": points, "certainty": margin}
    positions, _ = herding.uherding(values, 5, KEY, Labelled(known, None))
    apart = np.sqrt(np.square(known["embedding"][:, None] - known["embedding"][None]).sum(-1))
    radius = apart[np.triu_indices(3, 1)].min()
    expected, _ = by_definition(points, 5, known["embedding"], radius, 1 - margin)
    np.testing.assert_array_equal(positions, expected)


@pytest.mark.parametrize(("kept", "gain"), [(0, blocks.gain_of_points), (2**26, blocks.gain)])
def test_lazy_picks_are_those_of_all_gains(kept, gain, rng, monkeypatch):
    """Few rows in a block and few references, so that bounds matter."""
    monkeypatch.setattr(herding, "_KEPT", kept)
    points = blobs(rng, 600)
    expected = by_definition(points, 30, None, 0.3)[0]
    monkeypatch.setattr(blocks, "_BLOCK", 32)
    evaluated = []

    def counted(function, rows, *shared):
        if function is gain:
            evaluated.append(len(rows))
        return blocks.one_device(function, rows, *shared)

    positions, _ = herding.max_herding(points, 30, KEY, map_blocks=counted, radius=0.3)
    np.testing.assert_array_equal(positions, expected)
    assert len(points) <= sum(evaluated) < 10 * len(points)  # of 30 times as many


def test_kernels_that_are_kept_change_no_bit(rng, monkeypatch):
    points = blobs(rng, 600)
    found = herding.max_herding(points, 30, KEY, points[:5], radius=0.3)
    monkeypatch.setattr(herding, "_KEPT", 0)
    again = herding.max_herding(points, 30, KEY, points[:5], radius=0.3)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_mean_is_over_a_sample_of_a_large_pool(rng, monkeypatch):
    monkeypatch.setattr(blocks, "SAMPLE", 64)
    points = blobs(rng, 300)
    positions, _ = herding.max_herding(points, 10, KEY)
    again, _ = herding.max_herding(points, 10, KEY)
    np.testing.assert_array_equal(positions, again)
    assert len(set(positions.tolist())) == 10


@several_devices
@pytest.mark.parametrize("size", [3, 150, 1100])
def test_all_devices_pick_what_one_picks(size, rng):
    points = blobs(rng, size)
    alone = herding.max_herding(points, min(9, size), KEY)
    together = sharded_picks.on_all_devices(herding.max_herding)(points, min(9, size), KEY)
    for mine, whole in zip(together, alone, strict=True):
        np.testing.assert_array_equal(mine, whole)


# The temperature


def test_the_scale_is_large_where_classes_are_apart_and_small_where_labels_say_nothing(rng):
    labels = np.arange(60, dtype=np.int32) % 3
    apart = unit(np.eye(3)[labels] + 0.05 * rng.normal(size=(60, 3)))
    assert calibration.scale(apart, labels, 3) >= 8
    assert calibration.scale(unit(rng.normal(size=(60, 3))), labels, 3) <= 1
    for points, some in ((apart[:1], labels[:1]), (apart, np.zeros(60, int)), (apart, None)):
        assert calibration.scale(points, some, 3) == 0.25


def test_leave_one_out_equals_leaving_one_out(rng, monkeypatch):
    """With one penalty and scale, the loss that is minimised is that of as many fits."""
    points, labels = rng.normal(size=(20, 5)), rng.integers(0, 3, 20)
    seen = []
    monkeypatch.setattr(calibration, "_PENALTIES", np.array([0.1]))
    original = calibration.unit_size
    monkeypatch.setattr(calibration, "unit_size", lambda x: seen.append(x) or original(x))
    calibration.scale(points, labels, 3)
    centered, target = points - points.mean(0), np.eye(3)[labels]
    penalty = 0.1 * np.linalg.svd(centered, compute_uv=False)[0] ** 2
    for left_out in range(20):
        rest = np.arange(20) != left_out
        x, y = points[rest], target[rest]
        inputs, outputs = x - x.mean(0), y - y.mean(0)
        weights = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(5), inputs.T @ outputs)
        predicted = y.mean(0) + (points[left_out] - x.mean(0)) @ weights
        np.testing.assert_allclose(seen[0][left_out], predicted, rtol=1e-6, atol=1e-8)


def test_a_margin_at_a_scale():
    logits = np.float32([[2, 0, -2], [0, 0, 0]])
    np.testing.assert_allclose(calibration.margin(logits, 1.0)[1], 0)
    assert calibration.margin(logits, 0.25)[0] < calibration.margin(logits, 4.0)[0] < 1
    np.testing.assert_array_equal(calibration.margin(0 * logits, 4.0), 0)
