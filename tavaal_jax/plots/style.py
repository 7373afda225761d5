"""What all figures share: one method has one colour and one marker everywhere."""

import pathlib

import matplotlib

matplotlib.use("Agg")  # Figures are files: no display is needed or opened.
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart by colour-blind people; markers tell them apart in grey.
COLOURS = {
    "random": "#000000",
    "mc_dropout": "#E69F00",
    "coreset": "#56B4E9",
    "learning_loss": "#009E73",
    "learning_loss_v2": "#B8A000",  # darker than Okabe and Ito's yellow, which paper swallows
    "vaal": "#0072B2",
    "vaal_learning_loss": "#CC79A7",
    "tavaal": "#D55E00",
}
_MARKERS = dict(zip(COLOURS, "oXsv^DPd", strict=True))


def colour(method: str) -> str:
    """The method's colour; grey for one that is not in the paper."""
    return COLOURS.get(method, "#777777")


def marker(method: str) -> str:
    """The method's marker."""
    return _MARKERS.get(method, "*")


def axes(rows: int, columns: int, width: float = 5.2, height: float = 3.8):
    """A figure and its axes, always as a square array, without upper and right spines."""
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for axis in grid.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, grid


def save(figure, path: pathlib.Path) -> None:
    """Writes a figure whole and forgets it."""
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    temporary.replace(path)
    plt.close(figure)
