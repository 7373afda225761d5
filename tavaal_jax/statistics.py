"""Statistics of a study: differences to `random` are paired by trial, and few trials say so.

summary.csv has a row per method, metric and number of labels; `area` is the mean of a metric under
its curve over labels, `saved` the labels that a method saves at random's final value. The same, and
the diagnostics, are tables in summary.md.
"""

import math

import numpy as np
from scipy import stats

BASELINE = "random"
_EXACT = 13  # trials up to which every sign pattern is counted
FIELDS = (
    "method", "metric", "cycle", "labelled", "n", "mean", "deviation",
    "difference", "low", "high", "p",
)  # fmt: skip
# Columns of diagnostics.csv that summary.md shows, and their heads there.
DIAGNOSED = {
    "spearman": "Spearman of R(x) and true loss",
    "picks_loss": "true loss of the picks",
    "subset_loss": "of the subset",
    "picks_class_entropy": "class entropy of the picks",
    "discriminator_auc": "AUC of D",
    "discriminator_deviation": "spread of D",
    "overlap_highest_loss": "overlap with highest true loss",
    "overlap_highest_predicted": "with highest R(x)",
    "overlap_random": "with random's picks",
    "seconds_train": "seconds of training",
    "seconds_select": "of selecting",
}
PLANE = {
    "picks_boundary_distance": "distance to T's boundary",
    "picks_spread": "distance between two picks",
}

Curve = dict[int, dict[int, float]]
"""`{labelled: {trial: value}}`"""


def curves(rows: list[dict], metric: str) -> dict[str, Curve]:
    """Curves of all methods from the rows of results.csv."""
    found: dict[str, Curve] = {}
    for row in rows:
        if row["metric"] == metric:
            curve = found.setdefault(row["method"], {})
            curve.setdefault(row["labelled"], {})[row["trial"]] = row["value"]
    return found


def paired(values: dict[int, float], baseline: dict[int, float]) -> dict[str, float]:
    """Mean difference over the trials that both have, its 95 % interval (Student's t) and the p of
    Wilcoxon's signed-rank test; interval and p are missing where they cannot be had."""
    common = sorted(set(values) & set(baseline))
    # Rounded, so that equal differences of float32 numbers are equal.
    differences = np.round([values[t] - baseline[t] for t in common], 6)
    if not len(differences):
        return {}
    found = {"difference": float(differences.mean())}
    if len(differences) > 1:
        if np.ptp(differences) > 0:
            interval = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
            found |= {"low": float(interval.low), "high": float(interval.high)}
        if differences.any():
            found["p"] = float(stats.wilcoxon(differences, method=_method(len(differences))).pvalue)
    return found


def _method(count):
    """All sign patterns while there are few, ties or not; the normal approximation for more."""
    return stats.PermutationMethod(n_resamples=2**_EXACT) if count <= _EXACT else "asymptotic"


def summary(rows: list[dict]) -> list[dict]:
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
                table.append(_row(method, metric, curve[labelled], baseline) | place)
            if method == BASELINE or not base:
                table.append(_row(method, f"{metric} area", area(curve), None))
                continue
            mine, theirs = in_common(curve, base)
            table.append(_row(method, f"{metric} area", area(mine), area(theirs)))
            if mine:
                saved = labels_saved(mine, theirs)
                table.append({"method": method, "metric": f"{metric} saved", "mean": saved})
    return table


def _row(method, metric, values, baseline):
    array = np.array(list(values.values()))
    row = {"method": method, "metric": metric, "n": len(array)}
    if len(array):
        row["mean"] = float(array.mean())
    if len(array) > 1:
        row["deviation"] = float(array.std(ddof=1))
    return row | (paired(values, baseline) if baseline is not None else {})


def in_common(curve: Curve, baseline: Curve) -> tuple[Curve, Curve]:
    """Both curves at the labels and in the trials that both have: an unfinished run must not be
    compared with the rest of a finished one."""
    found: tuple[Curve, Curve] = {}, {}
    both = sorted(set(curve) & set(baseline))
    trials = set.intersection(*({*curve[x]} & {*baseline[x]} for x in both)) if both else set()
    for labelled in both if trials else ():
        for part, whole in zip(found, (curve, baseline), strict=True):
            part[labelled] = {t: whole[labelled][t] for t in sorted(trials)}
    return found


def area(curve: Curve) -> dict[int, float]:
    """Per trial, the mean height of its curve over labels, for trials with every point."""
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
    """Labels fewer than the baseline's last at which the mean curve first reaches the baseline's
    final mean, interpolated; NaN where it never does."""
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


def diagnosed(rows: list[dict], column: str) -> dict[str, dict[int, float]]:
    """`{method: {trial: mean over cycles}}` of a column of all diagnostics.csv, whose rows carry
    `method` and `trial`; empty cells are left out. Of seconds the median: the first cycle
    compiles."""
    collected: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row.get(column):
            trials = collected.setdefault(row["method"], {})
            trials.setdefault(int(row["trial"]), []).append(float(row[column]))
    centre = np.median if column.startswith("seconds") else np.mean
    return {m: {t: float(centre(v)) for t, v in ts.items()} for m, ts in collected.items()}


# summary.md


def markdown(rows: list[dict], diagnostics: list[dict], title: str) -> str:
    """All tables, from the rows of results.csv and of all diagnostics.csv."""
    table = summary(rows)
    parts = [f"# {title}", _preface(rows)]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        parts += [f"## Test {metric}: mean ± standard deviation", _means(table, metric)]
        if any("difference" in row for row in table):
            parts += [
                f"## Test {metric}: difference to random, paired by trial",
                "Mean, 95 % interval, p of Wilcoxon's signed-rank test.",
                _differences(table, metric),
            ]
        parts += [f"## Test {metric}: over the whole curve", _overall(table, metric)]
    if diagnostics:
        parts += [
            "## What was picked",
            "Means over cycles (seconds: medians), then mean ± standard deviation over trials."
            " Overlaps are shares of the budget.",
            _diagnosed_table(diagnostics, DIAGNOSED),
        ]
        if any(row.get("picks_spread") for row in diagnostics):
            parts += ["## Picks on the plane", *_plane(diagnostics)]
    return "\n\n".join(parts) + "\n"


def _preface(rows):
    methods = list(dict.fromkeys(row["method"] for row in rows))
    n = {m: len({r["trial"] for r in rows if r["method"] == m}) for m in methods}
    least = min(n.values())
    text = "Trials: " + ", ".join(f"{m} {count}" for m, count in n.items()) + "."
    if least < 2:
        return text + " One trial gives neither a deviation nor an interval nor a test."
    if least > _EXACT:
        return text
    text += f" With {least} trials no p of the two-sided signed-rank test is below"
    text += f" {2.0 ** (1 - least):.2g}"
    return text + (", so none can be called significant at 5 %." if least < 6 else ".")


def _table(head, body):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_label(table, metric, cell):
    mine = [row for row in table if row["metric"] == metric]
    labelled = sorted({row["labelled"] for row in mine})
    body = []
    for method in dict.fromkeys(row["method"] for row in mine):
        at = {row["labelled"]: row for row in mine if row["method"] == method}
        body.append([f"`{method}`", *(cell(at[x]) if x in at else "-" for x in labelled)])
    return _table(["labelled", *map(str, labelled)], body)


def _mean(row, digits=3):
    if row.get("mean") is None or math.isnan(row["mean"]):
        return "-"
    spread = f" ± {row['deviation']:.{digits}f}" if "deviation" in row else ""
    return f"{row['mean']:.{digits}f}{spread}"


def _difference(row):
    if "difference" not in row:
        return "-"
    text = f"{row['difference']:+.3f}"
    if "low" in row:
        text += f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return text + (f", p {row['p']:.2g}" if "p" in row else "")


def _means(table, metric):
    return _by_label(table, metric, _mean)


def _differences(table, metric):
    return _by_label([row for row in table if row["method"] != BASELINE], metric, _difference)


def _overall(table, metric):
    saved = {row["method"]: row["mean"] for row in table if row["metric"] == f"{metric} saved"}
    body = []
    for row in (row for row in table if row["metric"] == f"{metric} area"):
        labels = saved.get(row["method"])
        text = "-" if labels is None else "not reached" if math.isnan(labels) else f"{labels:.0f}"
        body.append([f"`{row['method']}`", _mean(row), _difference(row), text])
    head = ["method", "mean under the curve", "difference to random"]
    return _table([*head, "labels saved at random's final mean"], body)


def _diagnosed_table(rows, columns):
    values = {column: diagnosed(rows, column) for column in columns}
    present = {column: head for column, head in columns.items() if values[column]}
    body = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [
            _mean(_row(method, column, values[column].get(method, {}), None)) for column in present
        ]
        body.append([f"`{method}`", *cells])
    return _table(["method", *present.values()], body)


def _plane(rows):
    """TA-VAAL's claim of Figure 1: nearer to the boundary than VAAL, wider than learning loss."""
    claims = (
        ("picks_boundary_distance", "tavaal", "vaal"),
        ("picks_boundary_distance", "tavaal", "random"),
        ("picks_spread", "tavaal", "learning_loss"),
        ("picks_spread", "tavaal", "random"),
    )
    yield (
        "Distances in the units of the features, of the picks of one cycle: to the nearest point of"
        " the boundary of T as it was then, and between two picks; mean over picks and cycles."
    )
    yield _diagnosed_table(rows, PLANE)
    body = []
    for column, first, second in claims:
        values = diagnosed(rows, column)
        if first in values and second in values:
            mine, theirs = _same_cycles(rows, column, first, second)
            text = f"{PLANE[column]}: `{first}` less `{second}`"
            body.append([text, str(len(mine)), _difference(paired(mine, theirs))])
    if body:
        yield _table(["paired by trial and cycle", "trials", "difference"], body)


def _same_cycles(rows, column, first, second):
    """`{trial: mean}` of two methods over the cycles in which both have a value."""
    values = {
        (row["method"], int(row["trial"]), row["cycle"]): float(row[column])
        for row in rows
        if row.get(column)
    }
    means: tuple[dict, dict] = {}, {}
    for trial in sorted({t for _, t, _ in values}):
        cycles = {c for m, t, c in values if (m, t) == (first, trial)}
        cycles &= {c for m, t, c in values if (m, t) == (second, trial)}
        if cycles:
            for found, method in zip(means, (first, second), strict=True):
                found[trial] = float(np.mean([values[method, trial, c] for c in cycles]))
    return means
