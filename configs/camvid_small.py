"""CamVid, 367 street scenes of three drives at half size (240x180), a small DRN for two CPU cores.

Command: python -m tavaal_jax.main --config=configs/camvid_small.py
--config.maps_folder.images=camvid/images --config.maps_folder.maps=camvid/labels
(or python benchmarks/camvid_small.py run --data=camvid.tar, which unpacks them and adds a method)
Tested on Seq05VD, the drive of which there is no training image: --config.maps_folder.test=FILE
with its names. The usual test set, which is the default, has 62 more, which go on where a drive of
the training set ends.
Time and score: not run; estimates are in benchmarks/studies/camvid_small/README.md.
"""

from tavaal_jax.config import default

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip


def get_config():
    """Seven methods, a small DRN."""
    config = default()
    config.dataset = "maps_folder"
    config.maps_folder.update(ignore=11, image_size=(180, 240), class_names=CLASSES, cache=True)
    config.methods = "random,entropy,coreset,learning_loss_v2,vaal,tavaal,sraal"
    config.trials, config.cycles, config.epochs, config.batch_size = 3, 5, 80, 4
    config.initial, config.budget, config.subset = 20, 20, 200
    config.augmentation.update(pad=0, flip=True)
    config.task.update(
        network="drn", widths=(8, 16, 32, 64, 64, 64, 64, 64), blocks=(1, 1, 1, 1, 1, 1, 1, 1),
        strides=(1, 2, 2, 2), optimiser="adam", learning_rate=5e-3, weight_decay=1e-4,
    )  # fmt: skip
    config.ranker.features = 32
    config.vae.update(latent=32, image_size=32, widths=(16, 32, 64), learning_rate=1e-3)
    config.discriminator.update(hidden=(128, 128), learning_rate=1e-3)
    config.mc_dropout.passes = 8
    config.score_batch_size = 8
    config.parallel = "trials"
    return config
