"""Networks (Flax linen), each with the function that builds it from a config."""

from tavaal_jax.models.drn import DRN
from tavaal_jax.models.heads import (
    Discriminator,
    LatentClassifier,
    Ranker,
    build_discriminator,
    build_ranker,
)
from tavaal_jax.models.layers import Dropout, TaskOutput, dropout
from tavaal_jax.models.mlp import MLP
from tavaal_jax.models.networks import NETWORKS, Network, Published, TaskNetwork, build_learner
from tavaal_jax.models.resnet import ResNet
from tavaal_jax.models.vae import (
    MLPVAE,
    ConvVAE,
    UnifiedVAE,
    build_unified_vae,
    build_vae,
    draw,
)
from tavaal_jax.ops.convolution import portable

__all__ = [
    "DRN", "MLP", "MLPVAE", "NETWORKS", "ConvVAE", "Discriminator", "Dropout", "LatentClassifier",
    "Network", "Published", "Ranker", "ResNet", "TaskNetwork", "TaskOutput", "UnifiedVAE",
    "build_discriminator", "build_learner", "build_ranker", "build_unified_vae", "build_vae",
    "draw", "dropout", "portable",
]  # fmt: skip
