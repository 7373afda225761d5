"""The whole program in seconds, on digits with tiny networks: for tests and a first try.

Command: python -m tavaal_jax.main --config=configs/smoke.py
Time: 44 s on 2 cores of an AMD EPYC, compilation included.
Score: chance level.
"""

from tavaal_jax import load_config


def get_config():
    """Networks and epochs too small to learn much."""
    config = load_config("digits")
    config.trials, config.cycles, config.initial, config.budget, config.subset = 1, 3, 32, 16, 64
    config.epochs, config.batch_size = 4, 8
    config.task.update(widths=(8, 8), blocks=(1, 1))
    config.vae.update(latent=4, widths=(8, 8))
    config.discriminator.hidden = (16, 16)
    config.checkpoint_every_steps = 10
    return config
