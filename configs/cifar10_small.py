"""CIFAR-10, all 50,000 images, 1000 + 1000 labels to 5,000, with networks for two CPU cores.

Command: python -m tavaal_jax.main --config=configs/cifar10_small.py
The first five classes thinned 10:1 or 100:1 (Figure 4): --config.imbalance.ratio=10, or 100.
As the released code trains VAE and D, a fifth of its steps, in another --workdir:
--config.methods=vaal,tavaal --config.schedule=two_phase --config.rank_to_discriminator=raw
--config.vae.unlabelled=subset --config.vae.epochs=20 (100: all of its steps).
The whole study, from a tar of the images, with all of these as methods of one table:
python benchmarks/cifar10_small.py run --data=cifar10.tar
Time and score: not run; estimates are in benchmarks/studies/cifar10_small/README.md.
Reduced, compared with `cifar10`: three blocks of 16 to 64 channels for ResNet-18; 160 of 200
epochs, but batches of 64, so that a cycle has two fifths of its steps; five of ten cycles, three
of five trials; VAE and discriminator of an eighth and a quarter of the channels.
"""

from tavaal_jax import load_config


def get_config():
    """Ten methods, small networks."""
    config = load_config("cifar10")
    config.methods = (
        "random,mc_dropout,coreset,learning_loss,learning_loss_v2,vaal,tavaal,sraal,margin,badge"
    )
    config.trials, config.cycles, config.epochs, config.batch_size = 3, 5, 40, 64
    config.task.update(widths=(16, 32, 64), blocks=(1, 1, 1))
    config.ranker.features = 32
    config.vae.update(latent=32, widths=(16, 32, 64))
    config.discriminator.hidden = (128, 128, 128, 128)
    config.parallel = "trials"  # A worker on each core: the networks are too small to share.
    return config
