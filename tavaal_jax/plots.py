"""Figures from results."""

import pathlib

import matplotlib
import numpy as np

matplotlib.use("Agg")  # Figures are files: no display is needed or opened.
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart by colour-blind people; one method has one colour everywhere.
COLOURS = {
    "random": "#000000",
    "mc_dropout": "#E69F00",
    "coreset": "#56B4E9",
    "learning_loss": "#009E73",
    "learning_loss_v2": "#F0E442",
    "vaal": "#0072B2",
    "vaal_learning_loss": "#CC79A7",
    "tavaal": "#D55E00",
}
_BASELINE = "random"


def accuracy(rows: list[dict], path: pathlib.Path, title: str) -> None:
    """Mean and spread per method over labelled images, and the paired difference to random.

    `rows` are those of results.csv. The second panel is left out where there is no random baseline
    to pair with.
    """
    curves = {name: _by_trial(rows, name) for name in dict.fromkeys(row["method"] for row in rows)}
    paired = [name for name in curves if name != _BASELINE and _BASELINE in curves]
    figure, axes = plt.subplots(
        1,
        2 if paired else 1,
        figsize=(10 if paired else 5.5, 4),
        layout="constrained",
        squeeze=False,
    )
    for name, curve in curves.items():
        _band(axes[0, 0], name, curve)
    axes[0, 0].set(xlabel="labelled images", ylabel=f"test {rows[0]['metric']}", title=title)
    axes[0, 0].legend(frameon=False)
    if paired:
        axes[0, 1].axhline(0, color=COLOURS[_BASELINE], linewidth=1)
        for name in paired:
            _band(axes[0, 1], name, _difference(curves[name], curves[_BASELINE]))
        axes[0, 1].set(
            xlabel="labelled images", ylabel="difference to random", title="paired by trial"
        )
        axes[0, 1].legend(frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)
    plt.close(figure)


def _by_trial(rows, name):
    """`{labelled: {trial: value}}` of one method and the first metric."""
    metric = rows[0]["metric"]
    curve: dict[int, dict[int, float]] = {}
    for row in rows:
        if row["method"] == name and row["metric"] == metric:
            curve.setdefault(row["labelled"], {})[row["trial"]] = row["value"]
    return curve


def _difference(curve, baseline):
    return {
        labelled: {
            t: v - baseline[labelled][t] for t, v in trials.items() if t in baseline[labelled]
        }
        for labelled, trials in curve.items()
        if set(trials) & set(baseline.get(labelled, ()))
    }


def _band(axis, name, curve):
    labelled = sorted(curve)
    values = [np.array(list(curve[x].values())) for x in labelled]
    mean = np.array([v.mean() for v in values])
    deviation = np.array([v.std(ddof=1) if len(v) > 1 else 0.0 for v in values])
    label = f"{name} (n={max((len(v) for v in values), default=0)})"
    axis.plot(labelled, mean, color=COLOURS[name], marker="o", markersize=3, label=label)
    axis.fill_between(
        labelled, mean - deviation, mean + deviation, color=COLOURS[name], alpha=0.15, linewidth=0
    )
