"""Scenes: drawn street scenes of 96x48 pixels, 11 classes, with a small DRN for two CPU cores.

Command: python -m tavaal_jax.main --config=configs/scenes.py
Time: 21 min on two cores of an AMD EPYC, six methods, 3 trials, compilation included.
Score: mean IoU 0.374 (0.026) with 24 labels; with 96 random 0.554 (0.008), core-set 0.641 (0.013),
entropy 0.647 (0.012), tavaal 0.516 (0.040), n = 3; benchmarks/studies/scenes/README.md has all.
"""

from tavaal_jax.config import default


def get_config():
    """Six methods, a small DRN."""
    config = default()
    config.dataset = "scenes"
    config.methods = "random,coreset,entropy,learning_loss_v2,vaal,tavaal"
    config.trials, config.cycles, config.epochs, config.batch_size = 3, 4, 60, 8
    config.initial, config.budget, config.subset = 24, 24, 240
    config.augmentation.update(pad=0, flip=True)
    config.task.update(
        network="drn", widths=(8, 16, 16, 32, 32, 32, 32, 32), blocks=(1, 1, 1, 1, 1, 1, 1, 1),
        strides=(1, 2, 2, 1), optimiser="adam", learning_rate=5e-3, weight_decay=1e-4,
    )  # fmt: skip
    config.ranker.features = 32
    config.vae.update(latent=32, image_size=32, widths=(16, 32, 64), learning_rate=1e-3)
    config.discriminator.update(hidden=(128, 128), learning_rate=1e-3)
    config.mc_dropout.passes = 8
    config.score_batch_size = 32
    config.parallel = "trials"  # A worker on each core: the networks are too small to share.
    return config
