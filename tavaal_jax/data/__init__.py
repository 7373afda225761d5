"""From files to examples. Knows no method."""

from tavaal_jax.data.dataset import Dataset, is_at_hand, load
from tavaal_jax.data.sets.catalogue import SOURCES

__all__ = ["SOURCES", "Dataset", "is_at_hand", "load"]
