"""From stored examples to network input, on the device, one example at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax


class DeviceData(struct.PyTreeNode):
    """A training or test set on the devices, with what normalises it."""

    images: jax.Array | np.ndarray
    """`[N, H, W, C]` uint8, or features `[N, F]` float32."""
    labels: jax.Array | np.ndarray
    """`[N]` int32, or label maps `[N, H, W]`."""
    mean: jax.Array | np.ndarray
    """`[1, 1, C]` or `[F]` float32, in the units of `images`, over the training set."""
    deviation: jax.Array | np.ndarray

    def normalise(self, image: jax.Array) -> jax.Array:
        """`[H, W, C]` or `[F]` in stored units -> float32 of mean 0 and deviation 1."""
        return (image.astype(jnp.float32) - self.mean) / self.deviation

    def plain(self, indices: jax.Array) -> jax.Array:
        """Normalised images without augmentation: `[B] -> [B, H, W, C]`."""
        return jax.vmap(self.normalise)(self.images[indices])

    def augmented(self, indices: jax.Array, keys: jax.Array, pad: int, flip: bool) -> jax.Array:
        """Normalised images after random crop and flip, each from its key: `[B], [B] -> [B, H, W,
        C]`."""

        def one(image, key):
            return self.normalise(augment(image, key, pad, flip))

        return jax.vmap(one)(self.images[indices], keys)


def augment(image: jax.Array, key: jax.Array, pad: int, flip: bool) -> jax.Array:
    """Random crop from `pad` pixels of zeros on all sides, then a horizontal flip half of the
    time."""
    crop_key, flip_key = jax.random.split(key)
    if pad:
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        corner = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        image = lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
    if flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    return image
