"""CIFAR-10 as the authors' released code runs it, where that differs from the paper.

Command: python -m tavaal_jax.main --config=configs/cifar10_released.py
Time and score: not run at full size.
For its imbalanced CIFAR-10, in which every second class is reduced:
--config.imbalance.ratio=10 --config.cycles=5
"""

from tavaal_jax.config import default


def get_config():
    """Two phases, Z = 32, a shallower discriminator that is given the raw R(x), U is the subset."""
    config = default()
    config.schedule = "two_phase"
    config.rank_to_discriminator = "raw"
    config.vae.latent = 32
    config.vae.unlabelled = "subset"
    config.discriminator.hidden = (512, 512)
    config.augmentation.pad = 4
    config.normalisation.mean = (0.4914, 0.4822, 0.4465)
    config.normalisation.deviation = (0.2023, 0.1994, 0.2010)
    config.imbalance.classes = (0, 2, 4, 6, 8)
    return config
