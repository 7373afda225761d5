"""The paper's figures from the files of a study."""

from tavaal_jax.plots.figures import draw
from tavaal_jax.plots.style import COLOURS

__all__ = ["COLOURS", "draw"]
