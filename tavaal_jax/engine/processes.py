"""Several processes, of a pod or cluster: joining them, what the first tells the others, agreeing.

All processes run the same program on the same data and hold the same state; the first alone reads
and writes files. What only one of them can know (a file, a signal, a fault) is told to the others
here, so that all make the same calls to the devices. With one process every function is trivial.
"""

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from tavaal_jax.errors import UserError

Value = TypeVar("Value")

LOST_AFTER = 30
"""Seconds of silence after which a process is taken for lost, by JAX's coordinator."""


def join(coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Joins the others; to be called before anything else touches JAX.

    By explicit address `host:port` of the first process, number of processes and this one's number;
    or, without them, where JAX finds its cluster itself: a TPU pod, GKE, Slurm, Open MPI. Raises
    UserError where that fails, and where processes have different numbers of devices.
    """
    _check(coordinator, count, index)
    try:
        jax.distributed.initialize(
            coordinator or None,
            count or None,
            index if coordinator else None,
            heartbeat_timeout_seconds=LOST_AFTER,
            shutdown_timeout_seconds=LOST_AFTER,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--distributed cannot join other processes ({reason}): leave it out on one machine,"
            " start it where JAX finds its cluster (a TPU pod, GKE, Slurm, Open MPI), or give"
            " --coordinator=host:port --process_count=P --process_index=p"
        ) from error
    every = multihost_utils.process_allgather(np.int32(jax.local_device_count()))
    if len(set(every.ravel().tolist())) > 1:
        raise UserError(
            f"the processes have {', '.join(map(str, every.ravel()))} devices: give each the same"
            " number"
        )


def _check(coordinator: str, count: int, index: int) -> None:
    """UserError unless the three flags are given together, or none of them."""
    if not coordinator and count == 0 and index == -1:
        return
    flags = f"--coordinator={coordinator} --process_count={count} --process_index={index}"
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"{flags}: give as coordinator the first process's host:port")
    if not 0 <= index < count:
        raise UserError(f"{flags}: give a count of 1 or more and an index of 0 to count - 1")


def several() -> bool:
    """Whether other processes must make the same calls as this one."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that reads and writes files, and speaks."""
    return jax.process_index() == 0


def tell(value: Value) -> Value:
    """The first process's `value`, on all; it must be picklable, arrays on the host."""
    if not several():
        return value
    text = pickle.dumps(value) if is_first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)  # Few shapes to compile.
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    told: Value = pickle.loads(multihost_utils.broadcast_one_to_all(padded)[:size].tobytes())
    return told


def by_first(function: Callable[[], Value]) -> Value:
    """`function()`, called by the first process alone; its value, or its UserError, on all."""
    if not several():
        return function()
    outcome: tuple[Any, UserError | None] = (None, None)
    if is_first():
        try:
            outcome = function(), None
        except UserError as error:
            outcome = None, error
    value, fault = tell(outcome)
    _raise(fault, outcome[1])
    return value


def _raise(told: UserError | None, own: UserError | None) -> None:
    """A fault of the first process: there as it is, with its cause; as a told one elsewhere."""
    if own is not None:
        raise own
    if told is not None:
        told.told = True
        raise told


def together(function: Callable[[], Value]) -> Value:
    """`function()`, called by every process; UserError on all where one of them raises it."""
    if not several():
        return function()
    value, fault = None, None
    try:
        value = function()
    except UserError as error:
        fault = error
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(fault is not None)).ravel())
    if fault is not None:
        raise fault
    if len(failed):
        _raise(UserError(f"process {failed[0]} has stopped: its own message says why"), None)
    return value  # type: ignore[return-value]


def agree(signal: int | None, fault: UserError | None = None) -> int | None:
    """A signal that any process has got, or None, on all.

    `fault` is what the first process alone has run into since the last time: raised by all.
    """
    if several():
        mine = np.array([signal or 0, fault is not None], np.int32)
        asked, failed = multihost_utils.process_allgather(mine).reshape(-1, 2).max(axis=0)
        signal = int(asked) or None
        if failed:
            _raise(tell(fault), fault)
    _raise(None, fault)
    return signal


def check_alike(digest: bytes, what: str) -> None:
    """Raises RuntimeError where processes hold different things, as far as `digest` tells."""
    if several() and tell(digest) != digest:
        raise RuntimeError(f"process {jax.process_index()} has other {what} than the first one")
