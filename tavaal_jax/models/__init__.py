"""Networks (Flax linen) and the one place that builds them from a config."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from tavaal_jax.models.discriminator import Discriminator
from tavaal_jax.models.mlp import MLP
from tavaal_jax.models.outputs import Dropout
from tavaal_jax.models.ranker import Ranker
from tavaal_jax.models.resnet import ResNet
from tavaal_jax.models.vae import MLPVAE, ConvVAE, image_size


class Networks(NamedTuple):
    """The four networks of the paper; a method that needs no Ranker or no VAE leaves them
    unused."""

    learner: nn.Module
    ranker: Ranker
    vae: nn.Module
    discriminator: Discriminator


def build(config, example_shape: tuple[int, ...], classes: int, axis_name: str | None) -> Networks:
    """Networks for examples of `example_shape` (`[H, W, C]` or `[F]`) and `classes` classes."""
    dtype = jnp.dtype(config.dtype)
    task, vae = config.task, config.vae
    learner: nn.Module
    autoencoder: nn.Module
    dropout = Dropout(config.mc_dropout.place, config.mc_dropout.rate)
    if task.network == "resnet":
        learner = ResNet(classes, tuple(task.widths), tuple(task.blocks), axis_name, dropout, dtype)
    else:
        learner = MLP(classes, tuple(task.widths), dropout, dtype)
    if vae.network == "conv":
        size = vae.image_size or image_size(*example_shape[:2])
        channels = example_shape[-1]
        widths = tuple(vae.widths)
        autoencoder = ConvVAE(vae.latent, widths, size, channels, axis_name, dtype)
    else:
        autoencoder = MLPVAE(vae.latent, tuple(vae.widths), example_shape[-1], dtype)
    return Networks(
        learner,
        Ranker(config.ranker.features, dtype),
        autoencoder,
        Discriminator(tuple(config.discriminator.hidden), dtype),
    )
