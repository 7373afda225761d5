"""CIFAR-10 with five classes thinned tenfold: Figure 4 of the paper.

Thinned a hundredfold: --config.imbalance.ratio=100.

Command: python -m tavaal_jax.main --config=configs/cifar10_imbalanced.py
Time and score: not run at full size.
"""

from tavaal_jax.config import default


def get_config():
    """CIFAR-10's values on an imbalanced pool."""
    config = default()
    config.imbalance.ratio = 10
    config.cycles = 5
    return config
