"""Claim: which methods are better than others, in how many settings, by committed results.

    python benchmarks/which_method.py

compares all methods on features over all settings, from the results that `methods_on_features.py
report` has left in studies/features/, by the mean under the curve, paired by trial. The pairwise
penalty matrix (Ash et al., ICLR 2020) counts in how many settings the row's method is significantly
better than the column's: p of the paired t-test below 5 %, by Holm over all pairs of methods of a
setting. The heat map has each method's gain over random in each setting, significant by Holm over
the setting's methods where there is a *. Both are by accuracy, and by macro F1 over those settings
whose classes are unequal; a method with fewer than two trials is left out. Tables are written by
`python benchmarks/tables.py`; here the figures penalty.png and when.png are drawn.
"""

import functools
import itertools
import pathlib
from typing import NamedTuple

import ablation
import methods_on_features as study
import numpy as np

from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.report import statistics
from tavaal_jax.report.plots import style

UNEQUAL = ("clothing", "thinned")
"""In names of studies whose classes are unequal."""
HEADS = {"accuracy": "accuracy", "macro_f1": "macro F1, where classes are unequal"}
Areas = dict[str, dict[int, float]]
"""Mean under the curve of each trial, `{method: {trial: area}}`."""
Gains = dict[str, dict[str, dict[str, float]]]
"""`statistics.paired` of each method and random, `{setting: {method: ...}}`."""


class Matrix(NamedTuple):
    """Pairwise penalties."""

    methods: list[str]
    """Best first: by settings won less settings lost, as a share of all compared; then by gain."""
    wins: np.ndarray
    """Settings in which the row is significantly better than the column, int `[M, M]`."""
    compared: np.ndarray
    """Settings in which both have two trials in common, int `[M, M]`."""


@functools.cache
def areas(path: pathlib.Path, metric: str) -> Areas:
    """Areas of all methods of a study; a trial without all cycles has none."""
    curves = statistics.curves(ablation.read_packed(path), metric)
    last = max(max(curve) for curve in curves.values())
    return {m: statistics.area(curve) for m, curve in curves.items() if last in curve}


def settings(metric: str) -> dict[str, Areas]:
    """Areas of all studies for which a metric is shown, `{name: areas}`."""
    paths = sorted(study.STUDIES.glob("*.csv.gz"))
    names = {path.name.removesuffix(".csv.gz"): path for path in paths}
    if metric != "accuracy":
        names = {k: path for k, path in names.items() if any(word in k for word in UNEQUAL)}
    return {name: areas(path, metric) for name, path in names.items()}


def penalties(metric: str) -> Matrix:
    """Counts over all settings."""
    every = settings(metric)
    methods = sorted({method for found in every.values() for method in found})
    wins, compared = (np.zeros((len(methods),) * 2, int) for _ in range(2))
    for found in every.values():
        pairs = {
            (one, other): statistics.paired(found[one], found[other])
            for one, other in itertools.combinations(sorted(found), 2)
            if len(found[one].keys() & found[other].keys()) > 1
        }
        statistics.correct(pairs.values(), "p_t")
        for (one, other), pair in pairs.items():
            a, b = methods.index(one), methods.index(other)
            compared[[a, b], [b, a]] += 1
            if statistics.is_significant(pair):
                wins[(a, b) if pair["difference"] > 0 else (b, a)] += 1
    score = (wins.sum(1) - wins.sum(0)) / np.maximum(compared.sum(1), 1)
    by_gain = {method: place for place, method in enumerate(ordered(gains(metric)))}
    ties = [by_gain.get(method, len(methods)) for method in methods]
    order = np.array([at for at in np.lexsort((ties, -score)) if compared[at].any()], int)
    whole = np.ix_(order, order)
    return Matrix([methods[at] for at in order], wins[whole], compared[whole])


def gains(metric: str) -> Gains:
    """Gain over random of each method in each setting, `holm` within a setting."""
    found: Gains = {}
    for name, every in settings(metric).items():
        base = every.get(BASELINE, {})
        mine = {
            method: statistics.paired(of, base)
            for method, of in every.items()
            if method != BASELINE and len(of.keys() & base.keys()) > 1
        }
        statistics.correct(mine.values(), "p_t")
        found[name] = {
            m: gain | {"n": len(every[m].keys() & base.keys())} for m, gain in mine.items()
        }
    return found


def ordered(found: Gains) -> list[str]:
    """Methods by their mean gain over the settings that they were run in, highest first."""
    names = sorted({method for of_setting in found.values() for method in of_setting})
    mean = lambda m: np.mean([of[m]["difference"] for of in found.values() if m in of])
    return sorted(names, key=mean, reverse=True)


def label(name: str) -> str:
    """A setting in words: `cifar10_1_small_random` is "cifar10, 1 a class, small"."""
    for setting in sorted(filter(None, study.SETTINGS), key=len, reverse=True):
        data, found, first_by = name.partition(f"_{setting}_")
        if found:
            made = study.SETTINGS[setting]
            parts = [data, "thinned" * made.is_thinned, f"{made.start} a class", made.requests]
            return ", ".join([*filter(None, parts), *([first_by] if first_by != BASELINE else [])])
    data, _, first_by = name.rpartition("_")
    return data if first_by == BASELINE else f"{data}, {first_by} start"


def cell(gain: dict[str, float] | None) -> str:
    """Points gained, with a star if significant."""
    if gain is None:
        return "-"
    return f"{100 * gain['difference']:+.1f}" + "*" * statistics.is_significant(gain)


def when(metric: str) -> list[str]:
    """Table: points gained over random, a row per method, a column per setting."""
    found = gains(metric)
    counts = [[int(gain["n"]) for gain in of.values()] for of in found.values()]
    spans = [f"{min(c)} to {max(c)}" if min(c) < max(c) else str(c[0]) for c in counts]
    heads = [f"{label(name)} (n = {span})" for name, span in zip(found, spans, strict=True)]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for method in ordered(found):
        cells = [cell(of.get(method)) for of in found.values()]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return lines


def penalty(metric: str) -> list[str]:
    """Table: in how many of how many settings the row is significantly better than the column."""
    methods, wins, compared = penalties(metric)
    heads = [f"`{method}`" for method in methods]
    lines = ["| better than | " + " | ".join([*heads, "all"]) + " |"]
    lines.append("|---|" + "---:|" * (len(methods) + 1))
    share = lambda won, of: f"{won}/{of}" if of else "-"
    for at, head in enumerate(heads):
        cells = [*map(share, wins[at], compared[at]), share(wins[at].sum(), compared[at].sum())]
        lines.append("| " + " | ".join([head, *cells]) + " |")
    lost = map(share, wins.sum(0), compared.sum(0))
    lines.append("| all | " + " | ".join([*lost, "-"]) + " |")
    return lines


def draw(path: pathlib.Path, shown: str) -> None:
    """Writes when.png or penalty.png: a panel per metric."""
    metrics = [metric for metric in HEADS if settings(metric)]
    figure, panels = style.axes(1, len(metrics), 8.0, 7.0)
    for axis, metric in zip(panels[0], metrics, strict=True):
        if shown == "when":
            _draw_gains(axis, gains(metric))
            axis.set_title(f"points gained over random under the curve\n{HEADS[metric]}")
        else:
            _draw_matrix(axis, penalties(metric))
            axis.set_title(f"settings in which the row beats the column\n{HEADS[metric]}")
    style.save(figure, path)


def _draw_gains(axis, found: Gains) -> None:
    order = ordered(found)
    values = np.array([
        [100 * of[m]["difference"] if m in of else np.nan for of in found.values()] for m in order
    ])  # fmt: skip
    most = np.nanmax(np.abs(values))
    texts = [[cell(of.get(m)) if m in of else "" for of in found.values()] for m in order]
    # Purple and orange, told apart by colour-blind people; white: as random.
    _cells(axis, values, texts, "PuOr", (-most, most))
    axis.set_yticks(range(len(order)), order)
    names = [label(name) for name in found]
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)


def _draw_matrix(axis, found: Matrix) -> None:
    shares = np.where(found.compared > 0, found.wins / np.maximum(found.compared, 1), np.nan)
    texts = [[str(won) if of else "" for won, of in zip(*row, strict=True)] for row in
             zip(found.wins, found.compared, strict=True)]  # fmt: skip
    _cells(axis, shares, texts, "Blues", (0.0, 1.5))
    axis.set_yticks(range(len(found.methods)), found.methods)
    names = range(len(found.methods))
    axis.set_xticks(names, found.methods, rotation=60, ha="right", fontsize=8)
    axis.set_xlabel(f"of up to {found.compared.max()} settings; colour: their share", fontsize=9)


def _cells(axis, values, texts, colours: str, span: tuple[float, float]) -> None:
    axis.imshow(values, cmap=colours, vmin=span[0], vmax=span[1], aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            dark = abs(value) > 0.7 * span[1]
            look = {"ha": "center", "va": "center", "fontsize": 8}
            axis.text(column, row, texts[row][column], color="white" if dark else "black", **look)


if __name__ == "__main__":
    for name in ("when", "penalty"):
        draw(study.STUDIES / f"{name}.png", name)
