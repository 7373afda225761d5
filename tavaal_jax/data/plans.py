"""Which images a step sees: orders, pools and index plans, drawn on the host from keys."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from tavaal_jax.data.pool import Array, Labels


class Examples(NamedTuple):
    """Examples in a plan, where a plan of resident data has their indices: `[n, B, ...]`.

    A field is None where the examples have no such thing, or the stage does not read it.
    """

    image: Array
    """Whole images, or the windows that T is trained on."""
    label: Labels
    condition: Array
    """The condition of decoder and D: any pytree of arrays."""
    thumbnail: Array = None
    """Small images for the VAE, where images are larger."""
    ranker_crop: Array = None
    """The windows that R sees; None: they are cut from `image`."""


class CropOrigins(NamedTuple):
    """Where windows of images begin: int32 `[n, B, 2]`, for further updates `[n, B, k, 2]`."""

    trained: Array
    """Origins in L of the windows that T is trained on; None where it is not."""
    labelled: Array
    """Origins in L of the windows that R sees."""
    unlabelled: Array
    """Origins in U of the windows that R sees."""


class ExtraUpdates(NamedTuple):
    """Indices for further updates of the adversary in the same steps: int32 `[n, B, k]`."""

    labelled: Array
    unlabelled: Array
    crop_origins: CropOrigins | None = None


class IndexPlan(NamedTuple):
    """Indices of the images of some steps, a row each: int32 `[n, B]`; or `Examples`."""

    labelled: Array
    unlabelled: Array
    positions: np.ndarray
    """Each example's position in the whole batch, from which its keys come."""
    more: ExtraUpdates | None = None
    """None: the adversary is updated once in a step."""
    crop_origins: CropOrigins | None = None
    """Windows to be read of images on a disk; None: whole images, or the devices cut them."""


@functools.partial(jax.jit, static_argnums=1)
def _permutation(key: jax.Array, size: int) -> jax.Array:
    return jax.random.permutation(key, size)


def permutation(key: jax.Array, size: int) -> np.ndarray:
    """A random order of all `size` images, `[N]`.

    Pools are drawn by filtering it: the shape never changes, so nothing is compiled again as the
    pools grow and shrink, and methods that share a key see the same order.
    """
    return np.asarray(_permutation(key, size))


def initial(key: jax.Array, size: int, count: int) -> np.ndarray:
    """Indices of the `count` images labelled first, in random order: `[count]`."""
    return permutation(key, size)[:count]


def subset(key: jax.Array, unlabelled: np.ndarray, count: int) -> np.ndarray:
    """`count` random unlabelled images (0: all, and no more than there are), `[M]` sorted indices.

    The order depends on `key` alone: methods with the same `unlabelled` (bool `[N]`) get the same.
    """
    order = permutation(key, len(unlabelled))
    return np.sort(order[unlabelled[order]][: count or None])


@functools.partial(jax.jit, static_argnums=(1, 3))
def _permutations(key: jax.Array, count: int, first: int, size: int) -> jax.Array:
    keys = jax.vmap(lambda number: jax.random.fold_in(key, first + number))(np.arange(count))
    return jax.vmap(lambda key: jax.random.permutation(key, size))(keys)


_DRAWN = 2**14  # indices drawn in one call: small pools get the orders of many passes at once


class IndexStream:
    """Batches of a pool, pass after pass, each pass in its own order and in full batches only.

    A pool smaller than a batch is repeated to fill one. Random access: row i never depends on which
    rows were read before, so a trial continues anywhere.
    """

    def __init__(self, key: jax.Array, pool: np.ndarray, batch_size: int):
        """`pool` is a mask, bool `[N]`; pass p is ordered by `fold_in(key, p)`."""
        self._key, self._pool, self._batch_size = key, pool, batch_size
        self.steps_per_pass = max(1, int(pool.sum()) // batch_size)
        self._count = min(64, max(1, _DRAWN // len(pool)))
        self._drawn = functools.lru_cache(maxsize=2)(self._draw)
        self._order = functools.lru_cache(maxsize=2)(self._batches)

    def _draw(self, first: int) -> np.ndarray:
        """Orders of the passes from `first` on, `[count, N]`."""
        return np.asarray(_permutations(self._key, self._count, first, len(self._pool)))

    def _batches(self, number: int) -> np.ndarray:
        """Batches of pass `number`, `[steps_per_pass, B]`."""
        group, place = divmod(number, self._count)
        order = self._drawn(group * self._count)[place]
        order = order[self._pool[order]]
        return np.resize(order, (self.steps_per_pass, self._batch_size)).astype(np.int32)

    def rows(self, first: int, count: int) -> np.ndarray:
        """Batches `first` to `first + count - 1`: int32 `[count, B]`."""
        begin, last = first // self.steps_per_pass, (first + count - 1) // self.steps_per_pass
        passes = np.concatenate([self._order(number) for number in range(begin, last + 1)])
        offset = first - begin * self.steps_per_pass
        return passes[offset : offset + count]

    def groups(self, first: int, count: int, size: int) -> np.ndarray:
        """Batches with `size` of them to a step: int32 `[count, B, size]`."""
        rows = self.rows(first * size, count * size)
        return np.moveaxis(rows.reshape(count, size, -1), 1, 2)
