"""The picks themselves: points of the plane (Figure 1) and images (Figure 13)."""

import math
import pathlib

import numpy as np

from tavaal_jax.report.plots import style

_CLASS_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def plane(subsets: dict[str, dict], dataset, path: pathlib.Path, title: str) -> None:
    """Figure 1: labelled points, picks and T's decision boundary, one panel per method.

    `subsets` has one trial's arrays of the choice per method.
    """
    columns = min(4, len(subsets))
    rows = math.ceil(len(subsets) / columns)
    figure, axes = style.axes(rows, columns, width=3.6, height=3.0)
    points, classes = dataset.train_images, dataset.train_labels
    for axis in axes.flat[len(subsets) :]:
        axis.set_axis_off()
    for axis, (name, arrays) in zip(axes.flat, subsets.items(), strict=False):
        labelled = np.isin(np.arange(len(points)), arrays["labelled"])
        for number, colour in zip(range(dataset.classes), _CLASS_COLOURS, strict=False):
            mine = classes == number
            axis.scatter(*points[mine].T, s=4, color=colour, alpha=0.25, linewidths=0)
            known = mine & labelled
            axis.scatter(
                *points[known].T, s=18, color=colour, edgecolors="white", linewidths=0.4,
                label=f"labelled, class {number}",
            )  # fmt: skip
        if np.ptp(arrays["classes"]) > 0:
            axis.contour(
                arrays["x"], arrays["y"], arrays["classes"], levels=[0.5], colors="black",
                linestyles="dashed", linewidths=1,
            )  # fmt: skip
        picks = points[arrays["index"][arrays["rank"] >= 0]]
        axis.scatter(*picks.T, s=36, color="black", marker="x", linewidths=1.4, label="picks")
        axis.set(title=name, xticks=[], yticks=[])
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title)
    style.save(figure, path)


def contact_sheet(subsets: dict[str, dict], dataset, path: pathlib.Path, title: str) -> None:
    """Figure 13: a method's first picks of one cycle, best first, and its picks per class.

    `subsets` has one trial's arrays of the choice per method.
    """
    picks = {name: _in_order(arrays) for name, arrays in subsets.items()}
    columns, most = 20, 60
    rows = math.ceil(min(most, max(map(len, picks.values()))) / columns)
    figure, axes = style.axes(len(picks), 1, width=9, height=0.45 * rows + 0.3)
    for axis, (name, indices) in zip(axes.flat, picks.items(), strict=True):
        sheet = _sheet(dataset.train_images[indices[: rows * columns]], rows, columns)
        axis.imshow(sheet, cmap="gray", interpolation="nearest")
        counts = np.bincount(dataset.train_labels[indices], minlength=dataset.classes)
        named = zip(dataset.class_names, counts, strict=True)
        text = ", ".join(f"{label}: {count}" for label, count in _largest(named))
        axis.set_title(f"{name}: {text}", fontsize="small", loc="left")
        axis.set_axis_off()
    figure.suptitle(title)
    style.save(figure, path)


def _in_order(arrays):
    """Pool indices of the picks, the first one first."""
    picked = arrays["rank"] >= 0
    return arrays["index"][picked][np.argsort(arrays["rank"][picked])]


def _largest(named, most=12):
    """All counts, or the largest of many classes."""
    named = list(named)
    return named if len(named) <= most else sorted(named, key=lambda pair: -pair[1])[:most]


def _sheet(images, rows, columns):
    """Images side by side with white lines between: `[n, H, W, C] -> [..., ..., C or none]`."""
    count, height, width, channels = images.shape
    top = float(images.max()) or 1.0
    cells = np.ones((rows * columns, height + 1, width + 1, channels), np.float32)
    cells[:count, :height, :width] = images / top
    grid = cells.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * (height + 1), columns * (width + 1), channels)
    return grid if channels == 3 else grid[..., 0]
