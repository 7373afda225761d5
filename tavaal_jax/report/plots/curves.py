"""Curves over labels and over training: Figures 3, 6, 9 and 11."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tavaal_jax.algorithm import methods
from tavaal_jax.report import statistics
from tavaal_jax.report.plots import style


def accuracy(rows: Sequence[Mapping[str, Any]], path: pathlib.Path, title: str) -> None:
    """Figures 11 and 3: mean and deviation over labels, and the paired difference.

    `rows` are those of results.csv. The second panel is left out where there is no random baseline
    to pair with.
    """
    metric = rows[0]["metric"]
    curves = statistics.curves(rows, metric)
    differences = _differences(curves)
    figure, axes = style.axes(1, 2 if differences else 1, width=4.6)
    for name, curve in curves.items():
        _band(axes[0, 0], name, curve)
    axes[0, 0].set(xlabel="labelled images", ylabel=f"test {metric}", title=title)
    if differences:
        _difference_panel(axes[0, 1], differences)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small")
    style.save(figure, path)


def ablation(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Figure 6: what TA-VAAL is made of, as differences to random."""
    curves = statistics.curves(rows, rows[0]["metric"])
    chosen = {name: curve for name, curve in _differences(curves).items() if name in methods.PARTS}
    figure, axes = style.axes(1, 1, width=6)
    _difference_panel(axes[0, 0], chosen)
    axes[0, 0].set_title("ablation, paired by trial")
    axes[0, 0].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    style.save(figure, path)


def ranking_losses(trials: dict[str, list[list[dict]]], path: pathlib.Path) -> None:
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


def _differences(curves):
    base = curves.get(methods.BASELINE, {})
    return {
        name: {
            labelled: {t: v - base[labelled][t] for t, v in trials.items() if t in base[labelled]}
            for labelled, trials in curve.items()
            if set(trials) & set(base.get(labelled, ()))
        }
        for name, curve in curves.items()
        if base and name != methods.BASELINE
    }


def _difference_panel(axis, differences):
    axis.axhline(0, color=style.colour(methods.BASELINE), linewidth=1)
    for name, curve in differences.items():
        _band(axis, name, curve)
    axis.set(
        xlabel="labelled images",
        ylabel=f"difference to {methods.BASELINE}",
        title="paired by trial",
    )


def _band(axis, name, curve):
    labelled = sorted(curve)
    values = [np.array(list(curve[x].values())) for x in labelled]
    mean = np.array([v.mean() for v in values])
    deviation = np.array([v.std(ddof=1) if len(v) > 1 else 0.0 for v in values])
    label = f"{name} (n={max((len(v) for v in values), default=0)})"
    colour = style.colour(name)
    axis.plot(labelled, mean, color=colour, marker=style.marker(name), markersize=4, label=label)
    axis.fill_between(labelled, mean - deviation, mean + deviation, color=colour, alpha=0.1, lw=0)
