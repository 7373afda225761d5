"""Conditional VAEs: the decoder sees the latent and the normalised rank (section 3.2).

The convolutional one is the released code's, for any image size that is a power of two. As there,
the encoder's convolutions and the decoder's first layer start He normal with biases at zero, and
transposed convolutions, the last layer (a transposed one there), mean and log-variance as PyTorch's
default. `mean` and `log_variance` are float32 whatever `dtype` is.
"""

from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from tavaal_jax.models import layers
from tavaal_jax.models.heads import LatentClassifier

Reconstruction = tuple[jax.Array, jax.Array, jax.Array]
"""Decoded images `[B, ...]`, mean and log variance of their latents, each `[B, Z]`."""


class VAE(Protocol):
    """Documents the two directions of a VAE."""

    def encode(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """`images [B, ...] -> mean [B, Z], log_variance [B, Z]`."""

    def decode(self, latent: jax.Array, rank: jax.Array | None, train: bool) -> jax.Array:
        """`latent [B, Z], rank [B, 1] or None -> [B, ...]`."""


def image_size(height: int, width: int) -> int:
    """Default side of a VAE's images: the next power of two, 4 to 64."""
    return min(64, max(4, 1 << (max(height, width) - 1).bit_length()))


def stage_widths(size: int, widths: Sequence[int]) -> tuple[int, ...]:
    """Channels of the encoder's stages from `size` down to 2x2; the last of `widths` repeats."""
    stages = size.bit_length() - 2
    return tuple(widths[min(i, len(widths) - 1)] for i in range(stages))


class ConvVAE(nn.Module):
    """Stages of 4x4 convolutions, stride 2, BatchNorm, ReLU, down to 2x2, and back from 4x4."""

    latent: int
    widths: Sequence[int]
    size: int
    channels: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Layers of both directions."""
        widths = stage_widths(self.size, self.widths)
        latent = lambda: layers.dense_from(4 * widths[-1], self.latent)
        self.down = [
            layers.Conv(f, 4, 2, 1, kernel_init=layers.he_normal, dtype=self.dtype) for f in widths
        ]
        self.down_norm = [self._norm() for _ in widths]
        self.mean, self.log_variance = latent(), latent()
        self.expand = nn.Dense(16 * widths[-1], kernel_init=layers.he_normal, dtype=self.dtype)
        self.up = [layers.ConvTranspose(f, dtype=self.dtype) for f in widths[-2::-1]]
        self.up_norm = [self._norm() for _ in widths[:-1]]
        self.to_image = layers.Conv(
            self.channels, 1, use_bias=True, kernel_init=layers.pytorch_uniform_transposed,
            bias_init=layers.pytorch_bias(self.channels), dtype=jnp.float32,
        )  # fmt: skip

    def _norm(self) -> nn.BatchNorm:
        return nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=self.dtype, axis_name=self.axis_name)

    def encode(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """`images [B, size, size, C] -> mean [B, Z], log_variance [B, Z]`."""
        x = images
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            x = nn.relu(norm(conv(x), use_running_average=not train))
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return self.mean(x), self.log_variance(x)

    def decode(self, latent: jax.Array, rank: jax.Array | None, train: bool) -> jax.Array:
        """`latent [B, Z], rank [B, 1] or None -> [B, size, size, C]`."""
        x = latent if rank is None else jnp.concatenate([latent, rank], axis=-1)
        x = self.expand(x).reshape(x.shape[0], 4, 4, -1)
        for conv, norm in zip(self.up, self.up_norm, strict=True):
            x = nn.relu(norm(conv(x), use_running_average=not train))
        return self.to_image(x)

    def __call__(
        self, images: jax.Array, noise: jax.Array, rank: jax.Array | None, train: bool
    ) -> Reconstruction:
        """`images, noise [B, Z], rank -> decoded, mean, log_variance`."""
        return reconstruct(self, images, noise, rank, train)


class MLPVAE(nn.Module):
    """Two dense layers each way, for feature vectors; all start He normal, which is ours."""

    latent: int
    widths: Sequence[int]
    channels: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Layers of both directions."""
        dense = lambda features: nn.Dense(features, kernel_init=layers.he_normal, dtype=self.dtype)
        self.encoder_hidden = [dense(f) for f in self.widths]
        self.mean, self.log_variance = dense(self.latent), dense(self.latent)
        self.decoder_hidden = [dense(f) for f in reversed(self.widths)]
        self.to_features = dense(self.channels)

    def encode(self, features: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """`features [B, F] -> mean [B, Z], log_variance [B, Z]`."""
        del train
        x = features
        for layer in self.encoder_hidden:
            x = nn.relu(layer(x))
        return self.mean(x).astype(jnp.float32), self.log_variance(x).astype(jnp.float32)

    def decode(self, latent: jax.Array, rank: jax.Array | None, train: bool) -> jax.Array:
        """`latent [B, Z], rank [B, 1] or None -> [B, F]`."""
        del train
        x = latent if rank is None else jnp.concatenate([latent, rank], axis=-1)
        for layer in self.decoder_hidden:
            x = nn.relu(layer(x))
        return self.to_features(x).astype(jnp.float32)

    def __call__(
        self, features: jax.Array, noise: jax.Array, rank: jax.Array | None, train: bool
    ) -> Reconstruction:
        """`features, noise [B, Z], rank -> decoded, mean, log_variance`."""
        return reconstruct(self, features, noise, rank, train)


class UnifiedVAE(nn.Module):
    """SRAAL's generator: one half of the latent is decoded, the other gives the class.

    Its latent is the unified representation of image and annotation (Zhang et al., CVPR 2020,
    section 3.2: unsupervised image reconstructor and supervised target learner on one encoder). If
    Z is odd, both halves have the middle.
    """

    vae: nn.Module
    """The VAE whose latent is halved."""
    classifier: nn.Module
    """The supervised target learner's head."""

    @property
    def latent(self) -> int:
        """Z, both halves together."""
        return int(self.vae.latent)

    @property
    def size(self) -> int:
        """Side of its images."""
        return int(self.vae.size)

    def encode(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """`images [B, ...] -> mean [B, Z], log_variance [B, Z]`."""
        encoded: tuple[jax.Array, jax.Array] = self.vae.encode(images, train)
        return encoded

    def decode(self, latent: jax.Array, rank: jax.Array | None, train: bool) -> jax.Array:
        """`latent [B, Z], rank [B, 1] or None -> [B, ...]`, from the first half alone."""
        return jnp.asarray(self.vae.decode(latent[:, : (self.latent + 1) // 2], rank, train))

    def classify(self, latent: jax.Array) -> jax.Array:
        """`latent [B, Z] -> logits [B, K]`, from the second half alone."""
        return jnp.asarray(self.classifier(latent[:, self.latent // 2 :]))

    def __call__(
        self, images: jax.Array, noise: jax.Array, rank: jax.Array | None, train: bool
    ) -> Reconstruction:
        """`images, noise [B, Z], rank -> decoded, mean, log_variance`."""
        if self.is_initializing():
            self.classify(noise)
        return reconstruct(self, images, noise, rank, train)


def reconstruct(
    vae: VAE, images: jax.Array, noise: jax.Array, rank: jax.Array | None, train: bool
) -> Reconstruction:
    """One pass through a VAE: decoded images, and mean and log variance of their latents."""
    mean, log_variance = vae.encode(images, train)
    latent = draw(mean, log_variance, noise)
    return vae.decode(latent, rank, train), mean, log_variance


def draw(mean: jax.Array, log_variance: jax.Array, noise: jax.Array) -> jax.Array:
    """The latent `[B, Z]` from the encoder's output and standard normal `noise [B, Z]`."""
    return mean + jnp.exp(0.5 * log_variance) * noise


def build_vae(
    config: ConfigDict, shape: tuple[int, ...], axis_name: str | None = None
) -> nn.Module:
    """The VAE for images `[H, W, C]` or features `[F]` of `shape`.

    `axis_name` names the devices that share a batch, for BatchNorm; None: one device, no mapping.
    """
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
