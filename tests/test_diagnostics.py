"""Diagnostics against values computed by hand."""

import numpy as np
import pytest

from tavaal_jax.report import diagnostics


def choice(**changes):
    given = {
        "indices": np.array([2, 4, 5, 7]),
        "picked": np.array([True, False, True, False]),
        "losses": np.array([4.0, 3.0, 2.0, 1.0]),
        "predicted": np.array([0.9, 0.1, 0.2, 0.8]),
        "logits": np.array([-1.0, 1.0, -1.0, 1.0]),
        "labelled_logits": np.array([0.0, 2.0]),
        "random": np.array([0.5, 0.1, 0.9, 0.2]),
    }
    return diagnostics.ChoiceDiagnosis(**{**given, **changes})


COUNTS = np.eye(2, dtype=np.int32)[[0, 1, 1, 0]]  # of the subset
LABELLED = np.eye(2, dtype=np.int32)[[0, 1, 0, 0]]  # of L


def test_a_choice():
    found = diagnostics.choice_figures(choice(), COUNTS, LABELLED)
    expected = {
        "subset_loss": 2.5,
        "picks_loss": 3.0,
        "picks_class_entropy": np.log(2),  # labels 0 and 1
        "labelled_class_entropy": -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)),
        "overlap_highest_loss": 0.5,  # positions 0 and 1
        "overlap_highest_predicted": 0.5,  # positions 0 and 3
        "overlap_random": 0.0,  # positions 1 and 3
        "spearman": 0.2,  # 1 - 6 (0 + 9 - ...) / 60 of the ranks 4 3 2 1 and 4 1 2 3
        "discriminator_mean": 0.5,
        "discriminator_deviation": 1 / (1 + np.exp(-1)) - 0.5,
        "discriminator_auc": 6 / 8,  # pairs (labelled, subset) in the right order
    }
    assert found == pytest.approx(expected)
    assert set(found) <= set(diagnostics.FIELDS)


def test_what_a_method_lacks_is_left_out():
    found = diagnostics.choice_figures(
        choice(predicted=None, logits=None, labelled_logits=None), COUNTS, LABELLED
    )
    assert not {name for name in found if "discriminator" in name or "predicted" in name}
    assert "spearman" not in found


def test_a_constant_prediction_has_no_correlation():
    found = diagnostics.choice_figures(choice(predicted=np.ones(4)), COUNTS, LABELLED)
    assert "spearman" not in found


def test_an_image_without_a_label_has_no_true_loss_and_no_part_in_what_is_said_of_it():
    whole = choice()
    longer = diagnostics.ChoiceDiagnosis(
        *(np.insert(x, 1, x[1], 0) for x in whole[:5]), whole.labelled_logits,
        np.insert(whole.random, 1, 0.3),
    )  # fmt: skip
    longer.losses[1], longer.predicted[1], longer.picked[1] = np.nan, 5.0, True
    pixels = 7 * np.insert(COUNTS, 1, 0, 0)
    found = diagnostics.choice_figures(longer, pixels, LABELLED)
    expected = diagnostics.choice_figures(whole, COUNTS, LABELLED)
    for name in (
        "subset_loss",
        "picks_loss",
        "picks_class_entropy",
        "overlap_highest_loss",
        "spearman",
    ):
        assert found[name] == expected[name]
    assert found["overlap_highest_predicted"] == 2 / 3  # positions 0, 1 and 4

    none = diagnostics.choice_figures(
        longer._replace(losses=np.full(5, np.nan)), np.zeros((5, 2), int), LABELLED
    )
    assert {"subset_loss", "picks_loss", "overlap_highest_loss", "spearman"}.isdisjoint(none)
    assert np.isfinite(list(none.values())).all()


def test_distance_to_the_boundary_and_spread():
    points = np.array([[0.0, 0.0], [1.0, 1.0]])
    plane = diagnostics.Plane.around(points, side=101, margin=1.0)
    assert (plane.points.min(0) == -1).all()
    assert (plane.points.max(0) == 2).all()
    right = plane.points[:, 0] > 0.5  # a vertical boundary at x = 0.5
    plane = plane._replace(classes=right.reshape(101, 101).astype(np.int32))
    picks = np.array([[0.0, 0.0], [0.0, 3.0], [1.5, 0.0]])
    found = diagnostics.plane_figures(plane, picks)
    exact = (0.5 + np.hypot(0.5, 1.0) + 1.0) / 3
    assert found["picks_boundary_distance"] == pytest.approx(exact, abs=0.03)
    spread = (3.0 + 1.5 + np.hypot(1.5, 3.0)) / 3
    assert found["picks_spread"] == pytest.approx(spread)


def test_a_learner_of_one_class_has_no_boundary():
    plane = diagnostics.Plane.around(np.zeros((2, 2)))
    assert list(diagnostics.plane_figures(plane, np.eye(2))) == ["picks_spread"]


def record(cycle, stage, seconds, **values):
    return {
        "cycle": cycle,
        "stage": stage,
        "step": 1,
        "seconds": seconds,
    } | values


def test_rows_join_training_choice_and_times():
    records = [
        record(0, "joint", 3.0, kl=9.0, task_loss=1.0),
        record(0, "joint", 4.0, kl=0.5, discriminator_loss=1.4) | {"step": 2},
        record(0, "evaluate", 1.0, accuracy=0.5),
        record(0, "select", 2.0, first_score=0.1),
        record(0, "diagnose", 9.0, picks_loss=1.5, labelled=100.0, picks=10.0),
        record(1, "joint", 5.0, kl=0.4),
    ]
    (row,) = diagnostics.rows(records, 1)
    assert row == {
        "cycle": 0, "labelled": 100, "kl": 0.5, "discriminator_loss": 1.4, "picks_loss": 1.5,
        "seconds_train": 7.0, "seconds_evaluate": 1.0, "seconds_select": 2.0,
        "seconds_select_per_pick": 0.2,
    }  # fmt: skip
    assert set(row) <= set(diagnostics.FIELDS)


@pytest.mark.parametrize("steps", [[100, 130], [3, 100, 101, 130], [50, 100, 125, 130], [130]])
def test_figures_of_training_do_not_depend_on_the_size_of_calls(steps):
    if len(steps) == 1:
        steps = list(range(1, 131))
    values = np.random.default_rng(0).random(131, np.float32)
    mean = lambda first, last: float(values[first + 1 : last + 1].mean(dtype=np.float64))
    pairs = zip([0, *steps], steps, strict=False)
    records = [record(0, "joint", 1.0, kl=mean(a, b)) | {"step": b} for a, b in pairs]
    records.append(record(0, "diagnose", 9.0, labelled=10.0, picks=1.0))
    (row,) = diagnostics.rows(records, 50)
    assert row["kl"] == pytest.approx(mean(100, 130), rel=1e-12)


def test_a_log_without_a_diagnosis_has_no_rows():
    assert diagnostics.rows([], 50) == []
    assert diagnostics.rows([record(0, "task", 3.0, task_loss=1.0)], 50) == []


def test_every_diagnosed_cycle_has_its_own_times():
    records = [
        record(cycle, stage, seconds * (cycle + 1), **values)
        for cycle in (0, 1)
        for stage, seconds, values in (
            ("task", 2.0, {"task_loss": 1.0}), ("adversary", 3.0, {"kl": 0.5 + cycle}),
            ("select", 1.0, {}), ("diagnose", 9.0, {"labelled": 20.0 + 4 * cycle, "picks": 4.0}),
        )
    ]  # fmt: skip
    rows = diagnostics.rows(records, 50)
    assert [row["labelled"] for row in rows] == [20, 24]
    assert [row["kl"] for row in rows] == [0.5, 1.5]
    assert [row["seconds_train"] for row in rows] == [5.0, 10.0]
    assert [row["seconds_select_per_pick"] for row in rows] == [0.25, 0.5]


def test_the_entropy_of_class_counts():
    assert diagnostics.class_entropy(np.eye(4)[[3, 3, 3]]) == 0
    assert diagnostics.class_entropy(np.eye(10)) == pytest.approx(np.log(10))
    pixels = np.array([[10, 0, 5], [20, 0, 25]])  # Two maps: as many pixels of 0 and of 2.
    assert diagnostics.class_entropy(pixels) == pytest.approx(np.log(2))
    assert diagnostics.class_entropy(np.zeros((3, 4))) == 0


def test_a_single_pick_has_no_spread():
    plane = diagnostics.Plane.around(np.zeros((2, 2)))
    assert diagnostics.plane_figures(plane, np.eye(2)[:1]) == {}
