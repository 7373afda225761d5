"""Pictures of the picks: points of the plane (Figure 1) and images (Figure 13)."""

import itertools
import math
import pathlib
from collections.abc import Iterable

import numpy as np

from tavaal_jax.data import Dataset
from tavaal_jax.data.class_colours import palette
from tavaal_jax.data.pool import IGNORED
from tavaal_jax.report.plots import style
from tavaal_jax.report.plots.style import Arrays

_CLASS_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def plane(subsets: dict[str, Arrays], dataset: Dataset, path: pathlib.Path, title: str) -> None:
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
        for number, colour in zip(range(dataset.classes), itertools.cycle(_CLASS_COLOURS)):
            mine = classes == number
            axis.scatter(*points[mine].T, s=4, color=colour, alpha=0.25, linewidths=0)
            known = mine & labelled
            axis.scatter(
                *points[known].T, s=18, color=colour, edgecolors="white", linewidths=0.4,
                label=f"labelled, class {number}",
            )  # fmt: skip
        predicted = np.unique(arrays["classes"])
        for number in predicted[1:]:  # Two classes have one boundary.
            axis.contour(
                arrays["x"], arrays["y"], arrays["classes"] == number, levels=[0.5],
                colors="black", linestyles="dashed", linewidths=1,
            )  # fmt: skip
        picks = points[arrays["index"][arrays["rank"] >= 0]]
        axis.scatter(*picks.T, s=36, color="black", marker="x", linewidths=1.4, label="picks")
        axis.set(title=name, xticks=[], yticks=[])
    handles, labels = axes.flat[0].get_legend_handles_labels()
    wide = 3 * columns  # Entries of a row of the legend, about.
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(wide, len(labels)), frameon=False
    )
    figure.suptitle(title)
    style.save(figure, path)


def contact_sheet(
    subsets: dict[str, Arrays], dataset: Dataset, path: pathlib.Path, title: str
) -> None:
    """Figure 13: a method's first picks of one cycle, best first, and its picks per class.

    `subsets` has one trial's arrays of the choice per method.
    """
    picks = {name: _in_order(arrays) for name, arrays in subsets.items()}
    columns, most = 20, 60
    rows = math.ceil(min(most, max(map(len, picks.values()))) / columns)
    high, wide = dataset.shape[:2]
    figure, axes = style.axes(len(picks), 1, width=9, height=0.45 * rows * high / wide + 0.35)
    for axis, (name, indices) in zip(axes.flat, picks.items(), strict=True):
        small = [_small(dataset.train_images[index]) for index in indices[: rows * columns]]
        sheet = _sheet(np.stack(small), rows, columns)
        axis.imshow(sheet, cmap="gray", interpolation="nearest")
        counts = dataset.counts_of(indices).sum(0)
        unit = ", % of pixels" if dataset.has_maps else ""
        if unit:
            counts = (100 * counts / max(1, counts.sum())).round(1)
        named = _largest(zip(dataset.class_names, counts, strict=True))
        text = ", ".join(f"{label} {count}" for label, count in named)
        axis.set_title(f"{name}{unit}: {text}", fontsize="x-small", loc="left")
        axis.set_axis_off()
    figure.suptitle(title)
    style.save(figure, path)


_LONGER_SIDE_OF_CELL = 128  # pixels of an image on the contact sheet, about


def _small(image: np.ndarray) -> np.ndarray:
    """Shrinks an image to save memory, `[H, W, C] -> [h, w, C]`."""
    step = -(-max(image.shape[:2]) // _LONGER_SIDE_OF_CELL)
    return image[::step, ::step].copy()


_COLUMNS = "image", "label", "prediction", "mistakes"
_MOST_MAPS = 6
_SIDE_BY_SIDE = 3  # methods
_LONGER_SIDE = 512  # pixels of a map on the sheet


def maps(subsets: dict[str, Arrays], dataset: Dataset, path: pathlib.Path, title: str) -> None:
    """A method's first picks of one cycle: image, label, T's prediction and its mistakes.

    Mistakes are red, pixels without a label grey. `subsets` has one trial's arrays of the choice
    per method.
    """
    chosen = {name: arrays for name, arrays in subsets.items() if "prediction" in arrays}
    rows = max(len(arrays["prediction"]) for arrays in chosen.values())
    columns = min(_SIDE_BY_SIDE, len(chosen))
    height, width = dataset.shape[:2]
    figure, axes = style.axes(
        rows * math.ceil(len(chosen) / columns), 4 * columns, width=1.9,
        height=1.9 * height / width + 0.15,
    )  # fmt: skip
    colours = palette(dataset.class_names)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (name, arrays) in enumerate(chosen.items()):
        top, left = rows * (number // columns), 4 * (number % columns)
        mine = axes[top : top + rows, left : left + 4]
        for axis, text in zip(mine[0], _COLUMNS, strict=True):
            axis.set_title(f"{name}: {text}", fontsize="x-small")
        for line, index, predicted in zip(
            mine, _in_order(arrays), arrays["prediction"], strict=False
        ):
            shown = _map_pictures(
                dataset.train_images[index], dataset.train_labels[index], predicted
            )
            for axis, picture in zip(line, shown, strict=True):
                axis.imshow(picture if picture.ndim == 3 else colours[picture])
    from matplotlib import patches

    handles = [
        patches.Patch(color=colour / 255, label=label)
        for label, colour in zip(dataset.class_names, colours, strict=False)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(10, len(handles)), frameon=False,
        fontsize="x-small",
    )  # fmt: skip
    figure.suptitle(title, fontsize="small")
    style.save(figure, path)


def _map_pictures(
    image: np.ndarray, label: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The four pictures of a pick: colours `[h, w, 3]`, or classes `[h, w]`."""
    step = -(-max(label.shape) // _LONGER_SIDE)
    image, label, predicted = (np.asarray(x)[::step, ::step] for x in (image, label, predicted))
    image = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    mistakes = np.repeat(image.mean(-1, keepdims=True) / 2 + 120, 3, axis=-1).astype(np.uint8)
    mistakes[label != predicted] = 213, 94, 0
    mistakes[label == IGNORED] = 120
    return image, label, predicted, mistakes


def _in_order(arrays: Arrays) -> np.ndarray:
    """Pool indices of the picks in the order of picking."""
    picked = arrays["rank"] >= 0
    return arrays["index"][picked][np.argsort(arrays["rank"][picked])]


def _largest(named: Iterable[tuple[str, float]], most: int = 12) -> list[tuple[str, float]]:
    """Counts of all classes, or the largest of many."""
    named = list(named)
    return named if len(named) <= most else sorted(named, key=lambda pair: -pair[1])[:most]


def _sheet(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Images side by side with white lines between: `[n, H, W, C] -> [..., ..., C or none]`."""
    count, height, width, channels = images.shape
    top = float(images.max()) or 1.0
    cells = np.ones((rows * columns, height + 1, width + 1, channels), np.float32)
    cells[:count, :height, :width] = images / top
    grid = cells.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * (height + 1), columns * (width + 1), channels)
    return grid if channels == 3 else grid[..., 0]
