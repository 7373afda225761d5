"""CIFAR-100 with VAAL's sizes, 5000 + 2500 labels per cycle: Figure 10 of the paper.

Command: python -m tavaal_jax.main --config=configs/cifar100_vaal.py
Time and score: not run at full size.
"""

from tavaal_jax import load_config


def get_config():
    """CIFAR-100's values, up to 40 % of the labels."""
    config = load_config("cifar100")
    config.initial, config.budget = 5000, 2500
    config.subset = 25_000
    config.cycles = 7
    return config
