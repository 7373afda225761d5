"""Style shared by all figures: a method has one colour and one marker everywhere.

Matplotlib takes half a second to import, so it is imported only where something is drawn.
"""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tavaal_jax.report import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = dict[str, np.ndarray]
"""A file of diagnostics/ of a trial, see `study/diagnosis.py`."""

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
    "least_confidence": "#7F7F7F",
    "margin": "#9E3D8F",
    "entropy": "#8C564B",
    "badge": "#17A398",
    "sraal": "#6A3D9A",
    "bald": "#F0A3C0",
    "power_margin": "#C39BD3",
    "power_bald": "#D7A86E",
    "typiclust": "#1B4F9C",
    "max_herding": "#6BBF59",
    "uherding": "#B22222",
    "drop_query": "#3D6B6B",
    "alfa_mix": "#8A9A5B",
}
_MARKERS = dict(zip(COLOURS, "oXsv^DPdph<>8H1234+x|", strict=True))


def colour(method: str) -> str:
    """Colour of a method; light grey for an unknown one."""
    return COLOURS.get(method, "#AAAAAA")


def marker(method: str) -> str:
    """Marker of a method; a star for an unknown one."""
    return _MARKERS.get(method, "*")


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Context in which Matplotlib has its defaults: no matplotlibrc counts, nor any MPLBACKEND.

    A notebook's kernel hands its backend to every command that it runs, where it may not be found.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with contextlib.suppress(ValueError):  # What this process draws itself is drawn by it.
            matplotlib.rcParams["backend"] = backend
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def axes(
    rows: int, columns: int, width: float = 5.2, height: float = 3.8
) -> "tuple[Figure, np.ndarray]":
    """Makes a figure and its axes `[rows, columns]`, without upper and right spines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)  # pyplot would keep the figure, and a backend, for the whole process.
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, grid


def save(figure: "Figure", path: pathlib.Path) -> None:
    """Writes a figure as PNG."""
    from matplotlib.text import Text

    buffer = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # A class may have a dollar in its name.
    figure.savefig(buffer, format="png", dpi=120)
    files.write(path, buffer.getvalue())
