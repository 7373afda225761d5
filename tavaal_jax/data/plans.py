"""Which images a step sees: orders, pools and index plans, drawn on the host from keys."""

import functools

import jax
import numpy as np

from tavaal_jax.state import Stream, derive


@functools.partial(jax.jit, static_argnums=1)
def _permutation(key, size):
    return jax.random.permutation(key, size)


def permutation(key: jax.Array, size: int) -> np.ndarray:
    """A random order of all `size` images, `[N]`.

    Pools are drawn by filtering it: the shape never changes, so nothing is compiled again as the
    pools grow and shrink, and methods that share a key see the same order.
    """
    return np.asarray(_permutation(key, size))


def initial_pool(key: jax.Array, size: int, initial: int) -> np.ndarray:
    """int32 `[N]`: 0 for the `initial` images labelled at the start of a trial, -1 for the
    others."""
    labelled_in = np.full(size, -1, np.int32)
    labelled_in[permutation(derive(key, Stream.INITIAL), size)[:initial]] = 0
    return labelled_in


def subset(key: jax.Array, cycle: int, labelled: np.ndarray, count: int) -> np.ndarray:
    """The random subset of the unlabelled pool that is scored, `[M]` sorted indices; 0 means all.

    The order depends on trial and cycle alone: methods with the same pool get the same subset.
    """
    order = permutation(derive(key, Stream.SUBSET, cycle), len(labelled))
    unlabelled = order[~labelled[order]]
    return np.sort(unlabelled[: count or None])


class IndexStream:
    """Batches of a pool, pass after pass, each pass in its own order and in full batches only.

    A pool smaller than a batch is repeated to fill one. Random access: row i never depends on which
    rows were read before, so a run continues anywhere.
    """

    def __init__(self, key: jax.Array, pool: np.ndarray, batch_size: int):
        """`pool` is a mask, bool `[N]`; pass p is ordered by `fold_in(key, p)`."""
        self._key, self._pool, self._batch_size = key, pool, batch_size
        self.steps_per_pass = max(1, int(pool.sum()) // batch_size)
        self._order = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, number: int) -> np.ndarray:
        order = permutation(derive(self._key, number), len(self._pool))
        order = order[self._pool[order]]
        return np.resize(order, (self.steps_per_pass, self._batch_size)).astype(np.int32)

    def rows(self, first: int, count: int) -> np.ndarray:
        """Batches `first` to `first + count - 1`: int32 `[count, B]`."""
        numbers = (divmod(i, self.steps_per_pass) for i in range(first, first + count))
        return np.stack([self._order(number)[row] for number, row in numbers])
