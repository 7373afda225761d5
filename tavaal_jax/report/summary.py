"""summary.csv, summary.md and the table on the terminal, from the files of a study."""

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from tavaal_jax.algorithm import methods
from tavaal_jax.report import files, hint, records, statistics
from tavaal_jax.report.records import DiagnosticsRow, Result
from tavaal_jax.report.statistics import SummaryRow

# Columns of diagnostics.csv in summary.md, with their heads there.
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
OF_HINTS = (
    "By each method's curve so far, with 95 % interval; where that is less than the labels are"
    " worth, it is time to stop."
)
OF_PAIRS = (
    "Mean under the curve, the row's less the column's, paired by trial; * where p of the paired"
    " t-test, by Holm over all pairs of this table, is below 5 %."
)
OF_DIFFERENCES = "Mean, 95 % interval, p of Wilcoxon's signed-rank test by Holm over this table."
OF_CHOICES = (
    "Means over cycles (seconds: medians), then mean ± standard deviation over trials."
    " Overlaps are shares of the budget."
)
OF_THE_PLANE = (
    "Distances in the units of the features, of the picks of one cycle: to the nearest point of"
    " the boundary of T as it was then, and between two picks; mean over picks and cycles."
)


FEW = 13  # trials up to which the least possible p is worth a sentence


class Cells(NamedTuple):
    """A table of text, names of methods in backticks."""

    head: list[str]
    body: list[list[str]]


def write(workdir: pathlib.Path, rows: Sequence[Result], title: str) -> None:
    """Writes summary.csv and summary.md from the rows of results.csv."""
    records.write_table(workdir / "summary.csv", statistics.FIELDS, statistics.summary(rows))
    text = markdown(rows, records.read_diagnostics(workdir), title)
    files.write(workdir / "summary.md", text)


def markdown(rows: Sequence[Result], diagnostics: Sequence[DiagnosticsRow], title: str) -> str:
    """Text of summary.md, from the rows of results.csv and of all diagnostics.csv."""
    table = statistics.summary(rows)
    parts = [f"# {title}", preface(rows)]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        parts += [f"## Test {metric}: mean ± standard deviation", _text(means(table, metric))]
        if any("difference" in row for row in table):
            parts += [
                f"## Test {metric}: difference to {methods.BASELINE}, paired by trial",
                OF_DIFFERENCES,
                _text(baseline_differences(table, metric)),
            ]
        parts.append(f"## Test {metric}: over the whole curve")
        if any("difference" in row for row in table):
            parts.append(f"Differences: {OF_DIFFERENCES[0].lower()}{OF_DIFFERENCES[1:]}")
        parts.append(_text(overall(table, metric)))
        pairs = pairwise(rows, metric)
        if pairs.body:
            parts += [f"## Test {metric}: methods against each other", OF_PAIRS, _text(pairs)]
    hints = hint.lines(rows)
    if hints:
        parts += ["## What the next labels would bring", OF_HINTS, _items(hints)]
    if diagnostics:
        parts += [
            "## What was picked",
            OF_CHOICES,
            _text(diagnosed(diagnostics, DIAGNOSED)),
        ]
        if any(row.get("picks_spread") for row in diagnostics):
            parts += ["## Picks on the plane", OF_THE_PLANE, _text(diagnosed(diagnostics, PLANE))]
            compared = claims(diagnostics)
            parts += [_text(compared)] if compared.body else []
    return "\n\n".join(parts) + "\n"


def preface(rows: Sequence[Result]) -> str:
    """Number of trials, and the least p that as many allow, alone and by Holm over all methods."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    n = {m: len({r["trial"] for r in rows if r["method"] == m}) for m in methods}
    least = min(n.values())
    text = "Trials: " + ", ".join(f"{m} {count}" for m, count in n.items()) + "."
    if least < 2:
        return text + " One trial gives neither a deviation nor an interval nor a test."
    if least > FEW:
        return text
    text += f" With {least} trials no p of the two-sided signed-rank test is below"
    floor, compared = 2.0 ** (1 - least), max(len(methods) - 1, 1)
    text += f" {floor:.2g}"
    if floor <= statistics.SIGNIFICANT < floor * compared:
        text += f", by Holm over {compared} methods {floor * compared:.2g}"
    sure = floor * compared <= statistics.SIGNIFICANT
    return text + ("." if sure else ", so none can be called significant at 5 %.")


def _text(cells: Cells) -> str:
    """The table in Markdown."""
    lines = [cells.head, ["---"] + ["---:"] * (len(cells.head) - 1), *cells.body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_label(table: Sequence[SummaryRow], metric: str, cell: Callable[[SummaryRow], str]) -> Cells:
    """A row per method, a column per number of labels."""
    mine = [row for row in table if row["metric"] == metric]
    labelled = sorted({row["labelled"] for row in mine})
    body = []
    for method in dict.fromkeys(row["method"] for row in mine):
        at = {row["labelled"]: row for row in mine if row["method"] == method}
        body.append([f"`{method}`", *(cell(at[x]) if x in at else "-" for x in labelled)])
    return Cells(["labelled", *map(str, labelled)], body)


def _items(sentences: Sequence[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _mean(row: SummaryRow) -> str:
    if row.get("mean") is None or math.isnan(row["mean"]):
        return "-"
    std = f" ± {row['deviation']:.3f}" if "deviation" in row else ""
    return f"{row['mean']:.3f}{std}"


def _difference(row: SummaryRow) -> str:
    if "difference" not in row:
        return "-"
    text = f"{row['difference']:+.3f}"
    if "low" in row:
        text += f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return text + (f", p {row['holm']:.2g}" if "holm" in row else "")


def means(table: Sequence[SummaryRow], metric: str) -> Cells:
    """Means and standard deviations per number of labels, from the rows of summary.csv."""
    return _by_label(table, metric, _mean)


def baseline_differences(table: Sequence[SummaryRow], metric: str) -> Cells:
    """Differences to the baseline per number of labels, from the rows of summary.csv."""
    return _by_label(
        [row for row in table if row["method"] != methods.BASELINE], metric, _difference
    )


def overall(table: Sequence[SummaryRow], metric: str) -> Cells:
    """Area under each method's curve and labels saved, from the rows of summary.csv."""
    saved = {row["method"]: row["mean"] for row in table if row["metric"] == f"{metric} saved"}
    body = []
    for row in (row for row in table if row["metric"] == f"{metric} area"):
        labels = saved.get(row["method"])
        text = "-" if labels is None else "not reached" if math.isnan(labels) else f"{labels:.0f}"
        body.append([f"`{row['method']}`", _mean(row), _difference(row), text])
    head = ["method", "mean under the curve", f"difference to {methods.BASELINE}"]
    return Cells([*head, f"labels saved at {methods.BASELINE}'s final mean"], body)


def pairwise(rows: Sequence[Result], metric: str) -> Cells:
    """Difference of every method to every other, from the rows of results.csv.

    Empty where only differences to the baseline exist.
    """
    found = statistics.pairwise(rows, metric)
    names = [m for m in dict.fromkeys(row["method"] for row in rows) if any(m in p for p in found)]
    if len(names) < 3 and methods.BASELINE in names:
        names = []
    body = [[f"`{one}`", *(_pair(found.get((one, two))) for two in names)] for one in names]
    return Cells(["less", *(f"`{name}`" for name in names)], body)


def _pair(pair: Mapping[str, float] | None) -> str:
    if not pair:
        return "-"
    return f"{pair['difference']:+.3f}{'*' if statistics.is_significant(pair) else ''}"


def diagnosed(rows: Sequence[DiagnosticsRow], columns: Mapping[str, str]) -> Cells:
    """Means of diagnostics.csv, `{column: head}`; columns without any value are left out."""
    values = {column: statistics.diagnosed(rows, column) for column in columns}
    present = {column: head for column, head in columns.items() if values[column]}
    body = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [
            _mean(statistics.row_of(method, column, values[column].get(method, {}), None))
            for column in present
        ]
        body.append([f"`{method}`", *cells])
    return Cells(["method", *present.values()], body)


def claims(rows: Sequence[DiagnosticsRow]) -> Cells:
    """Figure 1's claims, nearer to the boundary than VAAL and wider than learning loss."""
    found = []
    for column, first, second in methods.CLAIMS:
        values = statistics.diagnosed(rows, column)
        if first in values and second in values:
            mine, theirs = _same_cycles(rows, column, first, second)
            text = f"{PLANE[column]}: `{first}` less `{second}`"
            found.append((text, str(len(mine)), statistics.paired(mine, theirs)))
    statistics.correct([pair for *_, pair in found], "p")
    body = [[text, count, _difference(pair)] for text, count, pair in found]
    return Cells(["paired by trial and cycle", "trials", "difference"], body)


def _same_cycles(
    rows: Sequence[DiagnosticsRow], column: str, first: str, second: str
) -> tuple[dict[int, float], dict[int, float]]:
    """Means of two methods, `{trial: mean}`, over the cycles in which both have a value."""
    values = {
        (row["method"], int(row["trial"]), row["cycle"]): float(row[column])
        for row in rows
        if row.get(column)
    }
    means: tuple[dict[int, float], dict[int, float]] = {}, {}
    for trial in sorted({t for _, t, _ in values}):
        cycles = {c for m, t, c in values if (m, t) == (first, trial)}
        cycles &= {c for m, t, c in values if (m, t) == (second, trial)}
        if cycles:
            for found, method in zip(means, (first, second), strict=True):
                found[trial] = float(np.mean([values[method, trial, c] for c in cycles]))
    return means


def table(rows: Sequence[Result]) -> Table:
    """Terminal's table: mean and standard deviation (n - 1) over trials, per number of labels."""
    metrics = sorted({row["metric"] for row in rows})
    found = Table(title="mean ± standard deviation over trials")
    found.add_column("labelled")
    found.add_column("n", justify="right")
    counts = sorted({row["labelled"] for row in rows})
    for labelled in counts:
        found.add_column(str(labelled), justify="right")
    for metric in metrics:
        for name in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if (row["method"], row["metric"]) == (name, metric)]
            at = {x: [row["value"] for row in mine if row["labelled"] == x] for x in counts}
            n = len({row["trial"] for row in mine})
            label = name if len(metrics) == 1 else f"{name}, {metric}"
            found.add_row(label, str(n), *map(_mean_and_std, at.values()))
    return found


def _mean_and_std(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.3f}\n± {variance**0.5:.3f}"
