"""CIFAR-10, imbalanced: five classes keep a tenth of their images, Figure 4 of the paper.

To keep a hundredth: --config.imbalance.ratio=100.

Command: python -m tavaal_jax.main --config=configs/cifar10_imbalanced.py
Time and score: not run at full size.
"""

from tavaal_jax.config import default


def get_config():
    """CIFAR-10's values on an imbalanced pool, five cycles."""
    config = default()
    config.imbalance.ratio = 10
    config.cycles = 5
    return config
