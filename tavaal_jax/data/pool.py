"""Examples on the devices, and what makes network input of stored images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

Array = Any
"""jax.Array on the devices, np.ndarray before."""


class Normaliser(struct.PyTreeNode):
    """Mean and deviation per channel or feature, in the units of the stored images."""

    mean: Array
    """`[1, 1, C]` or `[F]` float32."""
    deviation: Array

    def __call__(self, image: jax.Array) -> jax.Array:
        """`[H, W, C]` or `[F]` in stored units -> float32 of mean 0 and deviation 1."""
        return (image.astype(jnp.float32) - self.mean) / self.deviation

    @classmethod
    def of(cls, images: np.ndarray) -> "Normaliser":
        """The statistics of `images [N, ...]`, over all but the last axis."""
        axes = tuple(range(images.ndim - 1))
        mean = images.mean(axes, dtype=np.float64)
        return cls._shaped(mean, images.std(axes, dtype=np.float64), images.ndim)

    @classmethod
    def constant(cls, mean: Any, deviation: Any) -> "Normaliser":
        """Given constants `[C]` for images scaled to [0, 1]; stored images are uint8."""
        scale = lambda values: 255 * np.asarray(values, np.float64)
        return cls._shaped(scale(mean), scale(deviation), 4)

    @classmethod
    def _shaped(cls, mean, deviation, rank):
        shape = (1,) * (rank - 2) + (-1,)
        deviation = np.where(deviation > 0, deviation, 1.0)
        return cls(*(x.reshape(shape).astype(np.float32) for x in (mean, deviation)))


class Resident(struct.PyTreeNode):
    """A training or test set that lies on the devices whole."""

    images: Array
    """`[N, H, W, C]` uint8, or features `[N, F]` float32."""
    labels: Array
    """int32 `[N]`, -1 where nobody has said."""
    normalise: Normaliser

    def plain(self, indices: jax.Array) -> jax.Array:
        """Normalised images without augmentation: `[B] -> [B, ...]`."""
        return jax.vmap(self.normalise)(self.images[indices])
