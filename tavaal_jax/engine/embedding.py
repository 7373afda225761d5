"""Features of images by a frozen backbone, on all devices of this process."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tavaal_jax.data.pool import StoredArray
from tavaal_jax.engine import devices, memory
from tavaal_jax.errors import UserError
from tavaal_jax.models.backbones import Backbone, Variables

_AT_ONCE = {"cpu": 8}
_AT_ONCE_ELSEWHERE = 64
"""Images per device and call, of `_SIDE` pixels or less and of fewer where they are larger.

A CPU takes one after the other, so that few are computed in vain.
"""
_SIDE = 224
_CHANNELS = (1, 3)
_MEND = "give a smaller backbone.image_size, or another backbone.name"


class Embedder:
    """A backbone's features of images, some at a time; it is compiled once for images of a shape.

    The features of an image do not depend on the images beside it: everything is in evaluation
    mode, and each call has the same number of images, the last one padded.
    """

    def __init__(self, backbone: Backbone):
        """The weights are put on all devices of this process at the first call."""
        self.backbone = backbone
        self.digest, self.image_size = backbone.digest, backbone.image_size
        self.features = backbone.features
        local = jax.local_devices()
        each = _AT_ONCE.get(jax.default_backend(), 0)
        each = each or max(1, _AT_ONCE_ELSEWHERE * _SIDE**2 // max(_SIDE, self.image_size) ** 2)
        self._devices = len(local)
        self.at_once = each * self._devices
        mesh = Mesh(np.array(local), (devices.AXIS,))
        self._sharding = NamedSharding(mesh, PartitionSpec(devices.AXIS))
        embed = functools.partial(embed_images, backbone)
        spec = PartitionSpec(devices.AXIS)
        self._program = jax.jit(
            jax.shard_map(embed, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=spec)
        )

    @functools.cached_property
    def _variables(self) -> Variables:
        return devices.place(self.backbone.variables)

    def __call__(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Begins with images uint8 `[n, H, W, C]`, n <= `at_once`; the result waits: `[n, F]`.

        Where a device's memory is full it goes on with half as many at once, OutOfMemory at one.
        """
        check(images.shape)
        try:
            padded = np.resize(images, (self.at_once, *images.shape[1:]))
            result = self._program(self._variables, jax.device_put(padded, self._sharding))
        except jax.errors.JaxRuntimeError as error:
            return functools.partial(self._by_fewer, images, self.at_once, error)
        return functools.partial(self._fetched, images, self.at_once, result)

    def _fetched(self, images: np.ndarray, at_once: int, result: jax.Array) -> np.ndarray:
        try:
            return np.asarray(result)[: len(images)]
        except jax.errors.JaxRuntimeError as error:
            return self._by_fewer(images, at_once, error)

    def _by_fewer(
        self, images: np.ndarray, at_once: int, error: jax.errors.JaxRuntimeError
    ) -> np.ndarray:
        """The features of images of which `at_once` were too many, some at a time."""
        if not memory.is_full(error):
            raise error
        if at_once == self.at_once:  # Else it has been lowered since.
            if at_once <= self._devices:
                with memory.explain_full(f"features by {self.backbone.name}", _MEND):
                    raise error
            self.at_once = max(1, at_once // self._devices // 2) * self._devices
        return self.over(images)

    def over(self, images: StoredArray) -> np.ndarray:
        """Features of all images, nothing is stored: uint8 `[n, H, W, C]` -> float32 `[n, F]`."""
        found = np.empty((len(images), self.features), np.float32)
        for start, rows in self._parts(images):
            found[start : start + len(rows)] = rows
        return found

    def _parts(self, images: StoredArray) -> Iterator[tuple[int, np.ndarray]]:
        """Features of some images at a time, fetched one call late so that devices never wait."""
        before, start = None, 0
        while start < len(images):
            some = np.asarray(images[start : start + self.at_once])
            now, start = (start, self(some)), start + len(some)
            if before is not None:
                yield before[0], before[1]()
            before = now
        if before is not None:
            yield before[0], before[1]()


def check(shape: tuple[int, ...], what: str = "images") -> None:
    """Raises UserError where images of a shape `[n, H, W, C]` are none for a backbone."""
    if len(shape) != 4 or shape[-1] not in _CHANNELS:
        raise UserError(
            f"{what} have shape {shape}, and a backbone takes [n, H, W, C] with 1 or 3 channels:"
            ' give such, or backbone.name=""'
        )


def embed_images(backbone: Backbone, variables: Variables, images: jax.Array) -> jax.Array:
    """A backbone's features of stored images, uint8 `[B, H, W, C]` -> float32 `[B, F]`.

    Grey images have their channel three times. Images of another size than the backbone's are
    resized to it, bilinearly and antialiased, out of shape where they are not square.
    """
    return backbone.apply(variables, jax.vmap(functools.partial(_prepared, backbone))(images))


def _prepared(backbone: Backbone, image: jax.Array) -> jax.Array:
    """`[H, W, C]` uint8 -> `[S, S, 3]` float32, normalised as the backbone was trained."""
    shape = (backbone.image_size, backbone.image_size, image.shape[-1])
    values = image.astype(jnp.float32)
    if values.shape != shape:
        values = jax.image.resize(values, shape, "linear", precision=lax.Precision.HIGHEST)
    mean, deviation = (
        np.array(one, np.float32)[None, None] for one in (backbone.mean, backbone.deviation)
    )
    return (jnp.broadcast_to(values, (*shape[:2], 3)) / 255.0 - mean) / deviation
