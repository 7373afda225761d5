"""How examples come to a training step: looked up on the devices, or read ahead from a disk.

Both follow the same plans, so a step sees the same examples either way.
"""

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from tavaal_jax.data.plans import Given, More, Plan
from tavaal_jax.data.pool import Resident, Streamed


class Ahead:
    """Plans whose examples two threads read from `pool` while the devices are at work.

    Random access as the plans have it: nothing of what was read is a state that a checkpoint would
    have to hold.
    """

    def __init__(
        self, plan: Callable[[int, int], Plan], pool: Streamed, told: Any, last: int, steps: int
    ):
        """`plan(first, count)` names the examples of steps before `last`; `steps` are read ahead.

        `told` holds arrays `[N, ...]` in host memory, or is None.
        """
        self._plan, self._pool, self._told = plan, pool, told
        self._last, self._steps = last, steps
        self._threads = concurrent.futures.ThreadPoolExecutor(2, "read")
        self._reading: dict[int, concurrent.futures.Future[Plan]] = {}
        self._asked = 0
        self._waited = 0.0

    def __call__(self, first: int, count: int) -> Plan:
        """The plan of some steps, with the examples in the place of their indices."""
        self._read_on(first, count)
        begin = time.monotonic()
        steps = [self._reading.pop(number).result() for number in range(first, first + count)]
        self._waited += time.monotonic() - begin
        return jax.tree.map(lambda *rows: np.concatenate(rows), *steps)

    def _read_on(self, first: int, count: int) -> None:
        """Sets the threads to work on what nobody has asked them for yet."""
        begin = max(first, self._asked)
        end = min(self._last, first + count + self._steps)
        if begin < end:
            plan = self._plan(begin, end - begin)
            for number in range(begin, end):
                one = jax.tree.map(lambda rows, at=number - begin: rows[at : at + 1], plan)
                self._reading[number] = self._threads.submit(self._read, one)
            self._asked = end

    def _read(self, plan: Plan) -> Plan:
        """One step's: leaves `[1, B, ...]`."""
        given = lambda rows: None if rows is None else self._given(rows)
        more = None if plan.more is None else More(*map(given, plan.more))
        return plan._replace(
            labelled=given(plan.labelled), unlabelled=given(plan.unlabelled), more=more
        )

    def _given(self, rows: np.ndarray) -> Given:
        take = lambda array: np.take(array, rows, axis=0)
        return Given(
            take(self._pool.images), take(self._pool.labels), jax.tree.map(take, self._told)
        )

    def take_waited(self) -> float:
        """Seconds for which calls were kept waiting, since the last time this was asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    def close(self) -> None:
        """Drops what was read in vain."""
        self._threads.shutdown(wait=True, cancel_futures=True)


_BYTES_AHEAD = 2**28  # of images that are read before they are needed


@contextlib.contextmanager
def feed(
    pool: Resident | Streamed, told: Any, plan: Callable[[int, int], Plan], steps: tuple[int, int]
) -> Iterator[tuple[tuple[Resident, Any], Callable[[int, int], Plan], Callable[[], float]]]:
    """What a training stage gives its program: `data, plan, waited`.

    `plan(first, count)` names examples of steps; `steps` are the last one and how many a call may
    run. `waited()` is for how many seconds reading has held up calls since the last time.
    """
    if isinstance(pool, Resident):
        yield (pool, told), plan, lambda: 0.0
        return
    last, most = steps
    one = sum(leaf.size for leaf in jax.tree.leaves(plan(0, 1))) * pool.images[:1].nbytes
    ahead = Ahead(plan, pool, told, last, max(1, min(2 * most, _BYTES_AHEAD // one)))
    try:
        yield (Resident(None, None, pool.normalise), None), ahead, ahead.take_waited
    finally:
        ahead.close()
