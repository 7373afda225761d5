"""From files to examples. Knows no method."""

from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.loading import facts, fingerprint, is_at_hand, load
from tavaal_jax.data.sets.catalogue import SETS
from tavaal_jax.data.sets.source import DataFacts, DataSource

__all__ = [
    "SETS", "DataFacts", "DataSource", "Dataset", "facts", "fingerprint", "is_at_hand", "load",
]  # fmt: skip
