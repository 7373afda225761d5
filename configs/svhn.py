"""SVHN (cropped digits), 1000 + 1000 labels per cycle, ResNet-18: the paper's supplement.

Command: python -m tavaal_jax.main --config=configs/svhn.py
Time and score: not run at full size. TFDS also downloads the unused `extra` split, 1.3 GB.
"""

from tavaal_jax.config import default


def get_config():
    """CIFAR-10's values without horizontal flips."""
    config = default()
    config.dataset = "svhn_cropped"
    config.augmentation.flip = False
    return config
