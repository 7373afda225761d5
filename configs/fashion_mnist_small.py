"""Fashion-MNIST, all 60,000 images, 1000 + 1000 labels per cycle, with networks for two CPU cores.

Command: python -m tavaal_jax.main --config=configs/fashion_mnist_small.py
Time: 2 h for `--config.methods=random,coreset,learning_loss_v2,vaal,tavaal` with
`--config.parallel=trials` on 2 cores of an AMD EPYC, 80 min for the six others without adversary,
68 min for `vaal_learning_loss,sraal`, each with other processes running; 8 min for eight methods on
one H100, a process each (version 0.1).
Score: random 0.781 (0.009) at 1,000 labels and 0.871 (0.003) at 5,000, core-set 0.781 (0.009) and
0.873 (0.004), learning_loss_v2 0.774 (0.002) and 0.881 (0.001), vaal 0.781 (0.009) and 0.867
(0.003), tavaal 0.774 (0.002) and 0.867 (0.012), sraal 0.781 (0.009) and 0.890 (0.006), margin
0.781 (0.009) and 0.896 (0.002), n = 3.
Reduced, compared with `fashion_mnist`: three blocks of 16 to 64 channels for ResNet-18; 180 of 200
epochs, five of ten cycles, two of five trials, most channels of the VAE left out.
"""

from tavaal_jax import load_config


def get_config():
    """The 13 methods on images that were compared, small networks."""
    config = load_config("fashion_mnist")
    config.methods = (
        "random,mc_dropout,coreset,learning_loss,learning_loss_v2,vaal,vaal_learning_loss,tavaal,"
        "sraal,least_confidence,margin,entropy,badge"
    )
    config.trials, config.cycles, config.epochs, config.batch_size = 3, 5, 20, 64
    config.task.update(widths=(16, 32, 64), blocks=(1, 1, 1))
    config.ranker.features = 32
    config.vae.update(latent=32, widths=(32, 64, 128))
    config.discriminator.hidden = (128, 128, 128, 128)
    return config
