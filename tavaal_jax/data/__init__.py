"""Data sets as arrays: `load` gives a `Dataset`, whatever its source."""

from tavaal_jax.data.dataset import Dataset, load
from tavaal_jax.data.sources import SOURCES

__all__ = ["SOURCES", "Dataset", "load"]
