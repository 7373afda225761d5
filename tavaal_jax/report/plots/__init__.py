"""The paper's figures from the files of a study."""

from tavaal_jax.report.plots.figures import draw
from tavaal_jax.report.plots.style import COLOURS

__all__ = ["COLOURS", "draw"]
