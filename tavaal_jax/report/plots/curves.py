"""Curves over labels and over training: Figures 3, 6, 9 and 11."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tavaal_jax.algorithm import methods
from tavaal_jax.report import statistics
from tavaal_jax.report.diagnostics import LogRecord
from tavaal_jax.report.plots import style
from tavaal_jax.report.records import ClassIoU, Result
from tavaal_jax.report.statistics import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy(rows: Sequence[Result], path: pathlib.Path, title: str) -> None:
    """Figures 11 and 3: all means over labels, then each method's difference to the baseline.

    `rows` are those of results.csv. Differences, which need a baseline to pair with, are means with
    95 % intervals, a panel per method.
    """
    metric = rows[0]["metric"]
    curves = statistics.curves(rows, metric)
    differences = _to_baseline(curves)
    figure, panels = _panels(1 + len(differences))
    for name, curve in curves.items():
        labelled = sorted(curve)
        means = [np.mean(list(curve[x].values())) for x in labelled]
        width = 2.0 if name == methods.BASELINE else 1.0
        colour, marker = style.colour(name), style.marker(name)
        panels[0].plot(labelled, means, color=colour, marker=marker, markersize=3, linewidth=width)
    panels[0].set(title=f"{title}: all methods", ylabel=f"test {metric}")
    _plot_differences(panels[1:], differences)
    style.save(figure, path)


@style.own_settings()
def measured(points: Sequence[Mapping[str, float]], path: pathlib.Path) -> None:
    """Accuracy of one method over labels, with the interval that its test set allows.

    `points` have `labelled`, `accuracy`, `low`, `high` and `n`.
    """
    figure, axes = style.axes(1, 1)
    x, y, low, high = ([p[k] for p in points] for k in ("labelled", "accuracy", "low", "high"))
    errors = np.array([np.subtract(y, low), np.subtract(high, y)])
    axes[0, 0].errorbar(x, y, errors, marker="o", markersize=4, capsize=3)
    sizes = sorted({int(p["n"]) for p in points})
    tested = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    axes[0, 0].set(
        xlabel="images labelled for training", ylabel="accuracy, 95 % interval", ylim=(0, 1),
        title=f"{tested} test images",
    )  # fmt: skip
    style.save(figure, path)


def ablation(rows: Sequence[Result], path: pathlib.Path) -> bool:
    """Figure 6: differences of TA-VAAL and its parts to the baseline; False: there are none."""
    curves = statistics.curves(rows, rows[0]["metric"])
    chosen = {
        name: curve for name, curve in _to_baseline(curves).items() if name in methods.ABLATION
    }
    if not chosen:
        return False
    figure, panels = _panels(len(chosen))
    _plot_differences(panels, chosen)
    style.save(figure, path)
    return True


def ranking_losses(trials: dict[str, list[list[LogRecord]]], path: pathlib.Path) -> None:
    """Figure 9: the Ranker's loss over training with the margin and with the ranking loss.

    `trials` has, per method, the records of metrics.jsonl of each trial; the last cycle with all
    losses is shown, the mean over trials.
    """
    figure, axes = style.axes(1, 1)
    for name, logs in trials.items():
        records = [r for log in logs for r in log if "ranking_loss" in r]
        last = max(r["cycle"] for r in records)
        by_step: dict[int, list[float]] = {}
        for record in (r for r in records if r["cycle"] == last):
            by_step.setdefault(record["step"], []).append(record["ranking_loss"])
        # A first call may be of any length: steps that only some trials logged are left out.
        most = max(map(len, by_step.values()))
        steps = sorted(s for s, values in by_step.items() if len(values) == most)
        loss = methods.METHODS[name].ranking_loss
        axes[0, 0].plot(
            steps, [np.mean(by_step[s]) for s in steps], color=style.colour(name),
            marker=style.marker(name), markersize=4,
            label=f"{name}, {getattr(loss, '__name__', 'its own')} loss",
        )  # fmt: skip
    axes[0, 0].set(xlabel="step of the last cycle", ylabel="loss of the Ranker", ylim=(0, None))
    axes[0, 0].legend(frameon=False, fontsize="small")
    style.save(figure, path)


def class_iou(rows: Mapping[str, Sequence[ClassIoU]], path: pathlib.Path) -> None:
    """Intersection over union of each class over labels, a panel per class, means over trials.

    `rows` are those of class_iou.csv, by method.
    """
    classes = list(dict.fromkeys(row["class"] for mine in rows.values() for row in mine))
    figure, panels = _panels(len(classes))
    for axis, label in zip(panels, classes, strict=True):
        for name, mine in rows.items():
            values: dict[int, list[float]] = {}
            for row in mine:
                if row["class"] == label and np.isfinite(row["iou"]):
                    values.setdefault(row["labelled"], []).append(row["iou"])
            labelled = sorted(values)
            axis.plot(
                labelled, [np.mean(values[x]) for x in labelled], color=style.colour(name),
                marker=style.marker(name), markersize=3, linewidth=1, label=name,
            )  # fmt: skip
        axis.set_title(label, fontsize="medium")
        axis.set(xlabel="labelled images", ylim=(0, 1))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(7, len(names)), frameon=False
    )
    figure.supylabel("IoU", fontsize="medium")
    style.save(figure, path)


def _to_baseline(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Differences of all other methods to the baseline, by trial."""
    base = curves.get(methods.BASELINE, {})
    found = {
        name: {
            labelled: {t: v - base[labelled][t] for t, v in trials.items() if t in base[labelled]}
            for labelled, trials in curve.items()
            if set(trials) & set(base.get(labelled, ()))
        }
        for name, curve in curves.items()
        if base and name != methods.BASELINE
    }
    return {name: curve for name, curve in found.items() if curve}


def _panels(count: int) -> "tuple[Figure, list[Axes]]":
    """A figure of `count` panels, at most four in a row."""
    columns = min(4, count)
    figure, axes = style.axes(math.ceil(count / columns), columns, width=3.2, height=2.4)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def _plot_differences(panels: "list[Axes]", differences: dict[str, Curve]) -> None:
    """Draws a panel per method: mean difference with 95 % interval, all on the same scale."""
    for axis, (name, curve) in zip(panels, differences.items(), strict=True):
        labelled = sorted(curve)
        found = [statistics.paired(curve[x], dict.fromkeys(curve[x], 0.0)) for x in labelled]
        mean = np.array([f["difference"] for f in found])
        low = np.array([f.get("low", f["difference"]) for f in found])
        high = np.array([f.get("high", f["difference"]) for f in found])
        colour, marker = style.colour(name), style.marker(name)
        axis.axhline(0, color=style.colour(methods.BASELINE), linewidth=1)
        axis.errorbar(
            labelled, mean, yerr=[mean - low, high - mean], color=colour, marker=marker,
            markersize=4, capsize=2, linewidth=1,
        )  # fmt: skip
        most = max(len(curve[x]) for x in labelled)
        axis.set_title(f"{name} less {methods.BASELINE} (n={most})", fontsize="medium")
    if panels:
        limits = [axis.get_ylim() for axis in panels]
        for axis in panels:
            axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
            axis.set_xlabel("labelled images")
