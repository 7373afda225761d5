"""Statistics against values computed by hand or by SciPy's own functions."""

import math

import numpy as np
import pytest
from conftest import results
from scipy import stats

from tavaal_jax.report import statistics


def test_a_paired_difference_has_an_interval_and_a_test():
    first = {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.9, 9: 5.0}
    second = {0: 0.4, 1: 0.5, 2: 0.65, 3: 0.6, 8: -5.0}
    differences = np.array([0.1, 0.2, -0.05, 0.3])
    found = statistics.paired(first, second)
    half = stats.t.ppf(0.975, 3) * differences.std(ddof=1) / 2
    assert found["difference"] == pytest.approx(0.1375)
    assert found["low"] == pytest.approx(0.1375 - half)
    assert found["high"] == pytest.approx(0.1375 + half)
    assert found["p"] == pytest.approx(0.25)  # Ranks 2, 3, -1, 4: 4 of 16 are as extreme.


def test_interval_and_p_are_those_of_scipys_t_test():
    values = dict(enumerate(np.random.default_rng(0).normal(0.1, 0.2, 9).round(6)))
    found = statistics.paired(values, dict.fromkeys(values, 0.0))
    peer = stats.ttest_1samp(list(values.values()), 0.0)
    assert found["p_t"] == pytest.approx(peer.pvalue, rel=1e-12)
    interval = peer.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(interval), rel=1e-12)


@pytest.mark.parametrize(
    ("p", "corrected"),
    [  # As R's p.adjust and statsmodels' multipletests have them.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holms_correction(p, corrected):
    assert statistics.holm(p) == pytest.approx(corrected)


def test_a_family_is_all_that_was_tested_of_a_table():
    better = lambda by: [[0.2, 0.4 + by + 0.001 * t] for t in range(8)]
    curves = {"random": [[0.2, 0.4]] * 8, "vaal": better(0.01), "tavaal": better(0.0)}
    table = statistics.summary(results(**curves))
    tested = {row["method"]: row for row in table if row["metric"] == "accuracy area"}
    assert tested["vaal"]["p"] == 2 / 2**8
    assert tested["vaal"]["holm"] == 4 / 2**8
    assert tested["tavaal"]["p"] == tested["tavaal"]["holm"] == 2 / 2**7  # One difference is zero.
    # In the first cycle nothing differs: two comparisons, too.
    assert [row["holm"] for row in table if row.get("labelled") == 20 and "holm" in row] == [
        4 / 2**8, 2 / 2**7,
    ]  # fmt: skip
    pairs = statistics.pairwise(results(**curves), "accuracy")
    mine, theirs = (pairs["vaal", name] for name in ("random", "tavaal"))
    assert mine["p_t"] < mine["holm"] < 0.05
    assert "p_t" not in theirs  # All differ by the same: nothing to test.


def test_what_cannot_be_had_is_left_out():
    assert statistics.paired({0: 1.0}, {1: 1.0}) == {}
    assert statistics.paired({0: 1.0}, {0: 0.75}) == {"difference": 0.25}
    assert statistics.paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) == {"difference": 0.0}


@pytest.mark.parametrize("n", [5, 13, 20])
def test_ties_of_float32_are_ties_and_p_keeps_its_floor(n):
    # 0.954 - 0.934 and 0.952 - 0.932 differ in float32, and not in truth.
    pairs = [(0.954, 0.934), (0.952, 0.932)] * n
    ours, base = (
        {t: float(np.float32(pair[side])) for t, pair in enumerate(pairs[:n])} for side in (0, 1)
    )
    p = statistics.paired(ours, base)["p"]
    assert p == pytest.approx(2.0 ** (1 - n))


def test_an_unfinished_run_is_compared_over_what_both_have():
    whole = [[0.2, 0.4, 0.9]] * 3
    table = statistics.summary(results(random=whole, tavaal=[[0.3, 0.5], [0.3, 0.5]]))
    area = next(r for r in table if r["metric"] == "accuracy area" and r["method"] == "tavaal")
    assert (area["n"], area["mean"]) == (2, pytest.approx(0.4))
    assert area["difference"] == pytest.approx(0.1)
    saved = next(r for r in table if r["metric"] == "accuracy saved")
    assert saved["mean"] == pytest.approx(5)  # of 20 labels, at random's 0.4


def test_area_is_the_mean_height_of_complete_trials():
    curve = {10: {0: 0.0, 1: 1.0, 2: 0.0}, 20: {0: 1.0, 1: 1.0}, 40: {0: 1.0, 1: 1.0}}
    assert statistics.area(curve) == pytest.approx({0: (5 + 20) / 30, 1: 1.0})
    assert statistics.area({10: {0: 1.0}}) == {}


def test_labels_saved_are_interpolated():
    base = {10: {0: 0.2}, 20: {0: 0.4}, 30: {0: 0.6}}
    assert statistics.labels_saved({10: {0: 0.5}, 20: {0: 0.7}}, base) == pytest.approx(15)
    assert statistics.labels_saved({10: {0: 0.8}}, base) == pytest.approx(20)
    assert statistics.labels_saved(base, base) == 0
    assert math.isnan(statistics.labels_saved({10: {0: 0.5}}, base))


def test_summary_has_a_row_per_method_metric_and_labels():
    table = statistics.summary(
        results(random=[[0.2, 0.4], [0.4, 0.6]], tavaal=[[0.3, 0.5], [0.5, 0.9]])
    )
    first = next(r for r in table if r["method"] == "tavaal" and r.get("labelled") == 20)
    assert first["mean"] == pytest.approx(0.7)
    assert first["deviation"] == pytest.approx(0.4 / math.sqrt(2))
    assert first["difference"] == pytest.approx(0.2)
    assert set(first) <= set(statistics.FIELDS)
    area = next(r for r in table if r["metric"] == "accuracy area" and r["method"] == "tavaal")
    assert area["difference"] == pytest.approx(0.15)
    saved = next(r for r in table if r["metric"] == "accuracy saved")
    assert (saved["method"], saved["mean"]) == ("tavaal", pytest.approx(20 - 13.3333333))
    assert all("difference" not in r for r in table if r["method"] == "random")


def test_curves_are_by_labels_and_trial():
    found = statistics.curves(results(random=[[0.2, 0.4], [0.3]]), "accuracy")
    assert found == {"random": {10: {0: 0.2, 1: 0.3}, 20: {0: 0.4}}}
    assert statistics.curves(results(random=[[0.2]]), "loss") == {}


def test_a_column_is_averaged_over_cycles_and_seconds_by_their_median():
    diagnosed = [
        {"method": "vaal", "trial": trial, "cycle": str(cycle), "kl": kl, "seconds_train": seconds}
        for trial, cycle, kl, seconds in (
            (0, 0, "1.0", "100"), (0, 1, "2.0", "3"), (0, 2, "", "4"), (1, 0, "5.0", "7"),
        )
    ]  # fmt: skip
    assert statistics.diagnosed(diagnosed, "kl") == {"vaal": {0: 1.5, 1: 5.0}}
    assert statistics.diagnosed(diagnosed, "seconds_train") == {"vaal": {0: 4.0, 1: 7.0}}
    assert statistics.diagnosed(diagnosed, "spearman") == {}


@pytest.mark.parametrize("seed", range(6))
def test_signed_rank_test_counts_every_sign_pattern(seed):
    """As SciPy's does where it can: without ties, and by permutations with ties and zeros."""
    random = np.random.default_rng(seed)
    plain = random.standard_normal(9)
    exact = stats.wilcoxon(plain, method="exact").pvalue
    np.testing.assert_allclose(statistics._signed_rank(plain), exact, rtol=1e-12)
    tied = random.integers(-3, 5, 8) / 450
    if tied.any():
        method = stats.PermutationMethod(n_resamples=2**8)
        permuted = stats.wilcoxon(tied, method=method).pvalue
        np.testing.assert_allclose(statistics._signed_rank(tied), permuted, rtol=1e-12)
