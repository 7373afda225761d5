"""CIFAR-10 as the authors' released code runs it, where that differs from the paper.

Command: python -m tavaal_jax.main --config=configs/cifar10_released.py
Time and score: not run at full size.
"""

from configs import default


def get_config():
    """Two phases, Z = 32, a shallower discriminator that sees R(x) itself, U limited to the
    subset."""
    config = default.get_config()
    config.schedule = "two_phase"
    config.rank_to_discriminator = "raw"
    config.ranker.after, config.ranker.until_fraction = "detach", 0.6
    config.vae.latent = 32
    config.vae.unlabelled = "subset"
    config.discriminator.hidden = (512, 512)
    return config
