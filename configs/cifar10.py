"""CIFAR-10, 1000 + 1000 labels per cycle, ResNet-18: Figure 3(a) of the paper, on its Table 1.

Command: python -m tavaal_jax.main --config=configs/cifar10.py
Time and score: not run at full size. Others measured 46-54 % at 1,000 labels and 82-91 % at 10,000.
"""

from tavaal_jax.config import default


def get_config():
    """Returns the defaults, which are CIFAR-10's values."""
    return default()
