"""Networks (Flax linen), and how they are built from a config."""

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from tavaal_jax.models.drn import DRN
from tavaal_jax.models.heads import Discriminator, LatentClassifier, Ranker
from tavaal_jax.models.layers import Dropout, TaskOutput, dropout
from tavaal_jax.models.mlp import MLP
from tavaal_jax.models.networks import NETWORKS, Network, Published, TaskNetwork, build_learner
from tavaal_jax.models.resnet import ResNet
from tavaal_jax.models.vae import MLPVAE, ConvVAE, UnifiedVAE, draw, image_size
from tavaal_jax.ops.convolution import portable

__all__ = [
    "DRN", "MLP", "MLPVAE", "NETWORKS", "ConvVAE", "Discriminator", "Dropout", "LatentClassifier",
    "Network", "Published", "Ranker", "ResNet", "TaskNetwork", "TaskOutput", "UnifiedVAE",
    "build_discriminator", "build_learner", "build_ranker", "build_unified_vae", "build_vae",
    "draw", "dropout", "portable",
]  # fmt: skip

# `axis_name` names the devices that share a batch, for BatchNorm; None: one device, no mapping.


def build_ranker(config: ConfigDict) -> Ranker:
    """R for any learner's taps."""
    return Ranker(config.ranker.features, jnp.dtype(config.dtype))


def build_vae(
    config: ConfigDict, shape: tuple[int, ...], axis_name: str | None = None
) -> nn.Module:
    """The VAE for images `[H, W, C]` or features `[F]` of `shape`."""
    settings, dtype = config.vae, jnp.dtype(config.dtype)
    widths = tuple(settings.widths)
    if settings.network == "mlp":
        return MLPVAE(settings.latent, widths, shape[-1], dtype)
    size = settings.image_size or image_size(*shape[:2])
    return ConvVAE(settings.latent, widths, size, shape[-1], axis_name, dtype)


def build_unified_vae(
    config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None = None
) -> UnifiedVAE:
    """SRAAL's VAE, which gives half of its latent to the class."""
    head = LatentClassifier(classes, tuple(config.sraal.hidden), jnp.dtype(config.dtype))
    return UnifiedVAE(build_vae(config, shape, axis_name), head)


def build_discriminator(config: ConfigDict) -> Discriminator:
    """D for any latent and rank."""
    return Discriminator(tuple(config.discriminator.hidden), jnp.dtype(config.dtype))
