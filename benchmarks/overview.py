"""Claim: README's figures show what the committed results say each method gains over random.

    python benchmarks/overview.py

writes studies/overview.png: per method and data set the mean test accuracy under the labelling
curve less that of `random`, paired by trial, in percentage points, with its 95 % interval; hollow
where p of the paired t-test, by Holm over the methods of the data set, is not below 5 %; and
features/people_clothing.png, accuracy over labels of the people's loop.
"""

import csv
import pathlib

import numpy as np

from tavaal_jax.report import records, statistics
from tavaal_jax.report.plots import style

STUDIES = pathlib.Path(__file__).parent / "studies"
SETS = {
    "digits": "digits, 64 to 224 labels",
    "moons": "two moons, 20 to 70 labels",
    "fashion_mnist_small": "Fashion-MNIST, 1,000 to 5,000 labels",
}


def gains(name: str) -> dict[str, dict[str, float]]:
    """Per method the mean gain over `random`, its 95 % interval, p and n, as fractions."""
    curves = statistics.curves(records.read_results(STUDIES / name), "accuracy")
    found = {}
    for method in curves.keys() - {"random"}:
        mine, random = statistics.in_common(curves[method], curves["random"])
        found[method] = statistics.paired(statistics.area(mine), statistics.area(random))
        found[method]["n"] = len(statistics.area(mine))
    statistics.correct(found.values(), "p_t")
    return found


def draw(path: pathlib.Path) -> None:
    """Writes the figure."""
    by_set = {name: gains(name) for name in SETS}
    order = sorted(by_set["digits"], key=lambda method: by_set["digits"][method]["difference"])
    figure, panels = style.axes(1, len(SETS), 3.9, 3.6)
    for axis, (name, found) in zip(panels[0], by_set.items(), strict=True):
        for place, method in enumerate(order):
            low, mean, high = (100 * found[method][k] for k in ("low", "difference", "high"))
            is_ours = method == "tavaal"
            axis.plot([low, high], [place, place], color=style.colour(method), lw=2 + is_ours)
            face = style.colour(method) if statistics.is_significant(found[method]) else "white"
            look = {"color": style.colour(method), "mfc": face, "ms": 7}
            axis.plot(mean, place, style.marker(method), **look)
        axis.axvline(0, color="black", lw=1)
        axis.set_title(f"{SETS[name]} (n = {found['tavaal']['n']})", fontsize=9)
        axis.set_xlabel("points of accuracy gained over random picks", fontsize=9)
        axis.set_yticks(range(len(order)), order if axis is panels[0][0] else [""] * len(order))
        for label, method in zip(axis.get_yticklabels(), order, strict=True):
            label.set_fontweight("bold" if method == "tavaal" else "normal")
    style.save(figure, path)


def draw_people(path: pathlib.Path) -> None:
    """Accuracy over labels of people's loop, from the output of `people_cycle.py`, beside it."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, panels = style.axes(1, 1)
    axis = panels[0, 0]
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        labels = sorted({int(row["labels"]) for row in mine})
        values = [[float(r["accuracy"]) for r in mine if int(r["labels"]) == n] for n in labels]
        colour = style.colour(mine[0]["method"]) if "nothing" not in way else "#D55E00"
        for at, found in zip(labels, values, strict=True):
            axis.plot([at] * len(found), found, ".", color=colour, alpha=0.4)
        seeds = len({row["seed"] for row in mine})
        label = f"{way} (n = {seeds})"
        axis.plot(labels, [np.mean(found) for found in values], "-", color=colour, label=label)
    axis.set_xlabel("labels")
    axis.set_ylabel("accuracy on 372 test photos")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, loc="lower right")
    style.save(figure, path.with_suffix(".png"))


if __name__ == "__main__":
    draw(STUDIES / "overview.png")
    draw_people(STUDIES / "features" / "people_clothing.csv")
