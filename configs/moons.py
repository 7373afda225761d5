"""Two moons, 500 + 50 points, MLPs: section 4.1 and Figure 1 of the paper.

Command: python -m tavaal_jax.main --config=configs/moons.py
Time: 27 s on 2 cores of an AMD EPYC for two methods and 5 trials, compilation included.
Score at 70 labels, balanced test set, n = 50: 0.81 (0.08) for random, 0.86 (0.08) for core-set,
0.78 (0.14) for tavaal. Adam with the paper's 0.1 sometimes ends with a learner that only predicts
the larger class: 0.5.
"""

from tavaal_jax.config import default


def get_config():
    """Small networks; sizes that the paper does not give are ours."""
    config = default()
    config.dataset = "moons"
    config.cycles, config.initial, config.budget, config.subset = 6, 20, 10, 100
    config.epochs, config.batch_size = 100, 20
    config.augmentation.update(pad=0, flip=False)
    config.task.update(network="mlp", widths=(32, 32), optimiser="adam", weight_decay=0.0)
    config.ranker.features = 0
    config.vae.update(network="mlp", latent=2, widths=(32,), learning_rate=0.01)
    config.discriminator.update(hidden=(32,), learning_rate=0.01)
    return config
