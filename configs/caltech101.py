"""Caltech-101, 1000 + 500 labels per cycle, ResNet-18 at 224 pixels: Figure 4(c), on Table 1.

Command: python -m tavaal_jax.main --config=configs/caltech101.py
Time and score: not run at full size. TFDS downloads 137 MB; decoded it takes 1.4 GB.
The paper gives neither the number of cycles nor whether weights were pretrained. To start from
torchvision's ResNet-18 for ImageNet: --config.task.pretrained=FILE.npz, see configs/README.md.
"""

from tavaal_jax.config import default


def get_config():
    """Values of Table 1; images are resized, as in the paper's text, and not cropped."""
    config = default()
    config.dataset = "caltech101"
    config.initial, config.budget, config.subset = 1000, 500, 5000
    config.batch_size = config.score_batch_size = 16
    config.augmentation.update(pad=0, flip=True)
    config.task.update(stem="imagenet", learning_rate=0.01)
    config.ranker.loss_weight = 0.2
    config.vae.update(latent=128, learning_rate=1e-4, adversarial_weight=15.0)
    config.discriminator.learning_rate = 1e-4
    return config
