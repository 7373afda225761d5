"""Cityscapes, 200 + 200 labels per cycle, DRN-D-22 on windows of 412 pixels: Figure 5, on Table 1.

Command: python -m tavaal_jax.main --config=configs/cityscapes.py --config.cityscapes.folder=FOLDER
Time and score: not run at full size. Others measured a mean IoU of 0.53 to 0.59 at 30 % of the
labels with pretrained weights: --config.task.pretrained=FILE.npz, see configs/README.md. Training
from scratch on 200 images does not come near that.
A batch of 4 allows at most two devices. Weight decay is that of DRN's authors; the paper does not
give the number of cycles.
"""

from tavaal_jax.config import default


def get_config():
    """Table 1, 3 trials, the six methods of Figure 5."""
    config = default()
    config.dataset = "cityscapes"
    config.methods = "random,mc_dropout,coreset,learning_loss,vaal,tavaal"
    config.trials, config.epochs, config.batch_size = 3, 100, 4
    config.initial, config.budget, config.subset = 200, 200, 2000
    config.augmentation.update(pad=0, crop=412, flip=True)
    config.task.update(
        network="drn", widths=(16, 32, 64, 128, 256, 512, 512, 512),
        blocks=(1, 1, 2, 2, 2, 2, 1, 1), strides=(1, 2, 2, 2), learning_rate=1e-3,
        weight_decay=1e-4,
    )  # fmt: skip
    config.ranker.loss_weight = 0.1
    config.vae.update(latent=128, learning_rate=1e-4, adversarial_weight=25.0)
    config.discriminator.learning_rate = 1e-4
    config.score_batch_size, config.steps_per_call = 1, 8
    return config
