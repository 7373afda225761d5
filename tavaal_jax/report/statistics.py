"""Statistics of a study: means and differences to `random`, paired by trial.

A row of summary.csv is a method, a metric and a number of labels; `area` is the mean of a metric
under its curve over labels, `saved` the labels that a method saves at random's final value.
`holm` is p by Holm over a family: all differences of a metric at numbers of labels are one, those
of its area another.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.report.records import DiagnosticsRow, Result

FIELDS = (
    "method", "metric", "cycle", "labelled", "n", "mean", "deviation",
    "difference", "low", "high", "p", "holm",
)  # fmt: skip

SIGNIFICANT = 0.05
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
Curve = dict[int, dict[int, float]]
"""A method's metric over labels, `{labelled: {trial: value}}`."""
SummaryRow = dict[str, Any]
"""A row of summary.csv: columns of `FIELDS`, those without a value left out."""


def curves(rows: Sequence[Result], metric: str) -> dict[str, Curve]:
    """Curves of all methods, `{method: curve}`, from the rows of results.csv."""
    found: dict[str, Curve] = {}
    for row in rows:
        if row["metric"] == metric:
            curve = found.setdefault(row["method"], {})
            curve.setdefault(row["labelled"], {})[row["trial"]] = row["value"]
    return found


def paired(values: dict[int, float], baseline: dict[int, float]) -> dict[str, float]:
    """Mean difference over the trials that both have, with 95 % interval and p.

    The interval and `p_t` are Student's t, `p` that of Wilcoxon's signed-rank test. Other keys are
    `difference`, `low` and `high`; those that too few trials do not allow are missing.
    """
    common = sorted(set(values) & set(baseline))
    # Rounded, so that equal differences of float32 numbers are equal.
    differences = np.round([values[t] - baseline[t] for t in common], 6)
    if not len(differences):
        return {}
    found = {"difference": float(differences.mean())}
    if len(differences) > 1:
        if np.ptp(differences) > 0:
            found |= _student(differences)
        if differences.any():
            found["p"] = _signed_rank(differences)
    return found


def _student(differences: np.ndarray) -> dict[str, float]:
    """95 % interval of the mean and two-sided p of Student's t, as `low`, `high`, `p_t`.

    SciPy's `ttest_1samp` takes milliseconds for each of a study's hundreds of pairs.
    """
    mean, freedom = differences.mean(), len(differences) - 1
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    half = scipy.special.stdtrit(freedom, 0.975) * error
    p = 2 * scipy.special.stdtr(freedom, -abs(mean) / error)
    return {"low": float(mean - half), "high": float(mean + half), "p_t": float(p)}


def holm(values: Sequence[float]) -> list[float]:
    """P corrected for their number, in their order (Holm, Scand. J. Statist. 1979)."""
    order = np.argsort(values, kind="stable")
    steps = np.array(values)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]


def correct(family: Iterable[dict[str, Any]], test: str) -> None:
    """Adds `holm` to all of a family of comparisons that have a p of this test, `p` or `p_t`."""
    tested = [found for found in family if test in found]
    for found, p in zip(tested, holm([found[test] for found in tested]), strict=True):
        found["holm"] = p


def is_significant(found: Mapping[str, float]) -> bool:
    """Whether p, by Holm over the comparison's family, is below 5 %."""
    return found.get("holm", 1.0) < SIGNIFICANT


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share among `count` (Wilson, JASA 1927), without SciPy's slow import."""
    found = round(share * count)
    square, share = _Z**2, found / count
    middle = (2 * found + square) / (2 * (count + square))
    half = _Z * math.sqrt(4 * found * (1 - share) + square) / (2 * (count + square))
    return middle - half if found else 0.0, middle + half if found < count else 1.0


def _signed_rank(differences: np.ndarray) -> float:
    """Exact p of Wilcoxon's two-sided signed-rank test, over all sign patterns, with ties.

    SciPy's exact test does not allow ties, and its permutation test takes seconds for each of the
    hundred p of a study. Zeros are dropped, as Wilcoxon does.
    """
    differences = differences[differences != 0]
    ranks = np.rint(2 * scipy.stats.rankdata(np.abs(differences))).astype(int)  # Ties have halves.
    patterns = np.ones(1)  # How many have each sum of positive ranks.
    for rank in ranks:
        patterns = np.concatenate([patterns, np.zeros(rank)])
        patterns[rank:] += patterns[:-rank].copy()
    observed = ranks[differences > 0].sum()
    tails = patterns[: observed + 1].sum(), patterns[observed:].sum()
    return float(min(1.0, 2 * min(tails) / patterns.sum()))


def summary(rows: Sequence[Result]) -> list[SummaryRow]:
    """Rows of summary.csv."""
    table = []
    cycles = {row["labelled"]: row["cycle"] for row in rows}
    for metric in dict.fromkeys(row["metric"] for row in rows):
        found = curves(rows, metric)
        base = found.get(BASELINE, {})
        for method, curve in found.items():
            for labelled in sorted(curve):
                place = {"cycle": cycles[labelled], "labelled": labelled}
                baseline = None if method == BASELINE else base.get(labelled, {})
                table.append(row_of(method, metric, curve[labelled], baseline) | place)
            if method == BASELINE or not base:
                table.append(row_of(method, f"{metric} area", area(curve), None))
                continue
            mine, theirs = in_common(curve, base)
            table.append(row_of(method, f"{metric} area", area(mine), area(theirs)))
            if mine:
                saved = labels_saved(mine, theirs)
                table.append({"method": method, "metric": f"{metric} saved", "mean": saved})
        for family in (metric, f"{metric} area"):
            correct([row for row in table if row["metric"] == family], "p")
    return table


def pairwise(rows: Sequence[Result], metric: str) -> dict[tuple[str, str], dict[str, float]]:
    """Differences between methods, `{(one, other): paired(one minus other)}`, of `area`.

    `holm` is that of `p_t` over all pairs.
    """
    every = curves(rows, metric)
    found: dict[tuple[str, str], dict[str, float]] = {}
    mirrored = {"difference": "difference", "low": "high", "high": "low"}
    for one, other in itertools.combinations(every, 2):
        pair = paired(*map(area, in_common(every[one], every[other])))
        if pair:
            found[one, other] = pair
    correct(found.values(), "p_t")
    for (one, other), pair in list(found.items()):
        found[other, one] = pair | {k: -pair[v] for k, v in mirrored.items() if v in pair}
    return found


def row_of(
    method: str, metric: str, values: dict[int, float], baseline: dict[int, float] | None
) -> SummaryRow:
    """Row of summary.csv from `{trial: value}` of a method and, if given, of the baseline."""
    array = np.array(list(values.values()))
    row: SummaryRow = {"method": method, "metric": metric, "n": len(array)}
    if len(array):
        row["mean"] = float(array.mean())
    if len(array) > 1:
        row["deviation"] = float(array.std(ddof=1))
    found = paired(values, baseline) if baseline is not None else {}
    return row | {k: v for k, v in found.items() if k in FIELDS}


def in_common(curve: Curve, baseline: Curve) -> tuple[Curve, Curve]:
    """Both curves at the labels and in the trials that both have.

    An unfinished trial must not be compared with the rest of a finished one.
    """
    found: tuple[Curve, Curve] = {}, {}
    both = sorted(set(curve) & set(baseline))
    trials = set.intersection(*({*curve[x]} & {*baseline[x]} for x in both)) if both else set()
    for labelled in both if trials else ():
        for common, whole in zip(found, (curve, baseline), strict=True):
            common[labelled] = {t: whole[labelled][t] for t in sorted(trials)}
    return found


def area(curve: Curve) -> dict[int, float]:
    """Mean height of each trial's curve, `{trial: area}`, of trials with every point."""
    labelled = sorted(curve)
    if len(labelled) < 2:
        return {}
    complete = set.intersection(*(set(curve[x]) for x in labelled))
    width = labelled[-1] - labelled[0]
    return {
        t: float(np.trapezoid([curve[x][t] for x in labelled], labelled)) / width
        for t in sorted(complete)
    }


def labels_saved(curve: Curve, baseline: Curve) -> float:
    """Labels saved: how many fewer than the baseline's last reach its final mean, interpolated.

    NaN where the mean curve never does.
    """
    labelled = sorted(curve)
    means = np.array([np.mean(list(curve[x].values())) for x in labelled])
    final = max(baseline)
    target = np.mean(list(baseline[final].values()))
    reached = np.flatnonzero(means >= target)
    if not len(reached):
        return math.nan
    first = reached[0]
    at = float(labelled[0])
    if first > 0:
        step = (target - means[first - 1]) / (means[first] - means[first - 1])
        at = labelled[first - 1] + step * (labelled[first] - labelled[first - 1])
    return float(final - at)


def diagnosed(rows: Sequence[DiagnosticsRow], column: str) -> dict[str, dict[int, float]]:
    """Means over cycles of a column of all diagnostics.csv, `{method: {trial: mean}}`.

    Empty cells are left out. Seconds are medians, since the first cycle compiles.
    """
    collected: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row.get(column):
            trials = collected.setdefault(row["method"], {})
            trials.setdefault(int(row["trial"]), []).append(float(row[column]))
    centre = np.median if column.startswith("seconds") else np.mean
    return {m: {t: float(centre(v)) for t, v in ts.items()} for m, ts in collected.items()}
