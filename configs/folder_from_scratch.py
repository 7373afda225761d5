"""Your own images, labelled by people between the cycles; networks that start from nothing.

Command: python -m tavaal_jax.main --config=folder_from_scratch --config.folder.images=FOLDER
Time: with 2,000 photos of 28x28 pixels, two cores of an AMD EPYC, other processes running: 32 s
until the first request, then 75 to 95 s from answers to the next one (207 s the first time, with
compilation).
Score: depends on your images; on Fashion-MNIST 0.67 (n = 15 test images) to 0.71 (n = 45).
It stops with exit code 75 when labels are needed; run the same command again after labelling.
"""

from tavaal_jax.config import default


def get_config():
    """Core-set, which does well with few labels in our studies; networks for two CPU cores."""
    config = default()
    config.dataset = "people"
    config.methods, config.trials, config.diagnostics = "coreset", 1, False
    config.cycles, config.initial, config.budget, config.subset = 0, 60, 40, 0
    config.epochs, config.batch_size = 60, 16
    config.augmentation.update(pad=4, flip=True)
    config.task.update(widths=(16, 32, 64, 128), blocks=(1, 1, 1, 1))
    config.ranker.features = 32
    config.vae.update(latent=32, widths=(32, 64, 128, 128), learning_rate=1e-3)
    config.discriminator.update(hidden=(128, 128), learning_rate=1e-3)
    return config
