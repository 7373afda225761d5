"""Figures of the picks: 7(a), 7(b) and 8."""

import pathlib
from collections.abc import Sequence

import numpy as np

from tavaal_jax.report.plots import style
from tavaal_jax.report.plots.style import Arrays
from tavaal_jax.report.records import DiagnosticsRow


def class_entropy(rows: Sequence[DiagnosticsRow], path: pathlib.Path) -> None:
    """Figure 7(a): entropy of the picks' class counts, mean and standard deviation over trials.

    `rows` are those of all diagnostics.csv, with `method`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    labelled = sorted({int(row["labelled"]) for row in rows})
    figure, axes = style.axes(1, 1, width=max(6, 1.6 * len(labelled) + 2))
    axis = axes[0, 0]
    width = 0.85 / len(methods)
    for number, name in enumerate(methods):
        values = [
            [
                float(row["picks_class_entropy"])
                for row in rows
                if row["method"] == name and int(row["labelled"]) == count
            ]
            for count in labelled
        ]
        axis.bar(
            np.arange(len(labelled)) + (number - (len(methods) - 1) / 2) * width,
            [np.mean(v) if v else np.nan for v in values], width,
            yerr=[np.std(v, ddof=1) if len(v) > 1 else 0 for v in values],
            color=style.colour(name), label=name, error_kw={"lw": 0.8},
        )  # fmt: skip
    axis.set_xticks(np.arange(len(labelled)), labelled)
    axis.set(xlabel="labelled images when picking", ylabel="class entropy of the picks, nats")
    axis.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    style.save(figure, path)


def likelihood(subsets: dict[str, list[Arrays]], path: pathlib.Path) -> None:
    """Figure 7(b): likelihood of being unlabelled, 1 - D, over the subset of the last picks.

    `subsets` has, per method with a discriminator, the arrays of each trial.
    """
    figure, axes = style.axes(1, 1)
    for name, trials in subsets.items():
        values = np.concatenate([_unlabelled(arrays["logit"]) for arrays in trials])
        axes[0, 0].hist(
            values, bins=np.linspace(0, 1, 51), weights=np.full(len(values), 1 / len(trials)),
            histtype="step", linewidth=1.5, color=style.colour(name),
            label=f"{name} (n={len(trials)})",
        )  # fmt: skip
    axes[0, 0].set(xlabel="likelihood of being unlabelled, 1 - D", ylabel="images per trial")
    axes[0, 0].legend(frameon=False, fontsize="small")
    style.save(figure, path)


def loss_against_likelihood(subsets: dict[str, Arrays], path: pathlib.Path, title: str) -> None:
    """Figure 8: true loss against likelihood of being unlabelled, picks marked.

    `subsets` has one trial's arrays per method with a discriminator; an image without a label has
    no true loss and is left out.
    """
    figure, axes = style.axes(1, len(subsets), width=4)
    for axis, (name, arrays) in zip(axes.flat, subsets.items(), strict=True):
        known = ~np.isnan(arrays["loss"])
        picked = arrays["rank"][known] >= 0
        x, y = arrays["loss"][known], _unlabelled(arrays["logit"][known])
        axis.scatter(x[~picked], y[~picked], s=5, color="#bbbbbb", linewidths=0, label="subset")
        axis.scatter(
            x[picked], y[picked], s=14, color=style.colour(name), linewidths=0, label="picks"
        )
        axis.set(xlabel="true loss, nats", ylabel="1 - D", title=name)
    handles, labels = axes.flat[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small")
    figure.suptitle(title)
    style.save(figure, path)


def _unlabelled(logits: np.ndarray) -> np.ndarray:
    """Likelihood 1 - D of being unlabelled."""
    return 1 / (1 + np.exp(np.asarray(logits, np.float64)))
