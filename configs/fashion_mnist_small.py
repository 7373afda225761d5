"""Fashion-MNIST, all 60,000 images, 1000 + 1000 labels per cycle, with networks for two CPU cores.

Command: python -m tavaal_jax.main --config=configs/fashion_mnist_small.py
Time: 8 min on one H100, one process per method, compilation included.
Score: random 0.781 (0.001) at 1,000 labels and 0.871 (0.005) at 5,000, core-set the same, n = 3.
tavaal, in version 0.1 with Algorithm 1 to the letter: 0.763 (0.010) and 0.847 (0.010).
Leaves out, against `fashion_mnist`: ResNet-18 (three blocks of 16 to 64 channels here), 180 of 200
epochs, five of ten cycles, two of five trials, most channels of the VAE.
"""

from configs import fashion_mnist


def get_config():
    """All methods."""
    config = fashion_mnist.get_config()
    config.methods = "all"
    config.trials, config.cycles, config.epochs, config.batch_size = 3, 5, 20, 64
    config.task.update(widths=(16, 32, 64), blocks=(1, 1, 1))
    config.ranker.features = 32
    config.vae.update(latent=32, widths=(32, 64, 128))
    config.discriminator.hidden = (128, 128, 128, 128)
    return config
