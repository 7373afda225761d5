"""Several processes of a pod or cluster: joining, broadcasting, agreeing.

All processes run the same program on the same data and hold the same state; the first alone reads
and writes files. What only one of them can know (a file, a signal, an error) is broadcast here, so
that all make the same calls to the devices. With one process every function is trivial.
"""

import pickle
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from tavaal_jax.errors import UserError

Value = TypeVar("Value")

LOST_AFTER = 30
"""Seconds of silence after which a process is taken for lost, by JAX's coordinator."""
_CHUNK = 2**26  # bytes of one broadcast


class Elsewhere(RuntimeError):
    """An error that is no UserError was raised in another process, which prints it."""


def join(coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Joins the other processes; call it before anything else touches JAX.

    `coordinator` is the first process's `host:port`, `count` the number of processes, `index` this
    one's; without them JAX must find its cluster itself: a TPU pod, GKE, Slurm, Open MPI. Raises
    UserError where that fails, and where processes have different numbers of devices.
    """
    _check(coordinator, count, index)
    # It would keep SIGTERM from `main`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator or None,
            count or None,
            index if coordinator else None,
            heartbeat_timeout_seconds=LOST_AFTER,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--distributed cannot join other processes ({reason}): leave it out on one machine,"
            " start it where JAX finds its cluster (a TPU pod, GKE, Slurm, Open MPI), or give"
            " --coordinator=host:port --process_count=P --process_index=p"
        ) from error
    every = np.bincount([device.process_index for device in jax.devices()])
    if every.min() < every.max():
        counts = ", ".join(map(str, every))
        raise UserError(f"the processes have {counts} devices: give each the same number")
    # Gloo finds the others now, when all are here: it would wait for a slow one 30 s at most, and
    # once they are found, for ever.
    broadcast(None)


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
    # The count alone would look for devices.
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that reads and writes files and prints."""
    return not several() or jax.process_index() == 0


def broadcast(value: Value) -> Value:
    """The first process's `value` on all processes; it must be picklable, arrays on the host."""
    if not several():
        return value
    text = pickle.dumps(value) if is_first() else b""
    sizes = np.array(divmod(len(text), _CHUNK), np.int32)
    whole, rest = map(int, multihost_utils.broadcast_one_to_all(sizes))
    chunks = []
    for number in range(whole + 1):
        size = _CHUNK if number < whole else rest
        padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)  # Few shapes to compile.
        if is_first():
            piece = text[number * _CHUNK : number * _CHUNK + size]
            padded[:size] = np.frombuffer(piece, np.uint8)
        chunks.append(multihost_utils.broadcast_one_to_all(padded)[:size].tobytes())
    received: Value = pickle.loads(b"".join(chunks))
    return received


def by_first(function: Callable[[], Value]) -> Value:
    """Calls `function` on the first process alone; all return its value, or raise its error."""
    if not several():
        return function()
    value, fault = None, None
    if is_first():
        try:
            value = function()
        except Exception as error:
            fault = error
    value, remote = broadcast((value, _for_others(fault)))
    _raise(remote, fault)
    return value  # type: ignore[return-value]


def _for_others(fault: Exception | None) -> Exception | None:
    """An error as other processes raise it; one that is no UserError may not be picklable."""
    if fault is None or isinstance(fault, UserError):
        return fault
    return Elsewhere(f"process {jax.process_index()} raised {type(fault).__name__}: {fault}")


def _raise(remote: Exception | None, own: Exception | None) -> None:
    """Raises the process's own error, with its cause; else that of another process."""
    if own is not None:
        raise own
    if remote is not None:
        if isinstance(remote, UserError):
            remote.told = True
        raise remote


def together(function: Callable[[], Value]) -> Value:
    """Calls `function` on every process; where it raises on one of them, all raise an error."""
    if not several():
        return function()
    value, fault = None, None
    try:
        value = function()
    except Exception as error:
        fault = error
    kind = 0 if fault is None else 1 + isinstance(fault, UserError)
    kinds = multihost_utils.process_allgather(np.int32(kind)).ravel()
    if kinds.any():
        text = f"process {np.flatnonzero(kinds)[0]} has stopped: its own message says why"
        _raise(UserError(text) if kinds.max() == 2 else Elsewhere(text), fault)
    return value  # type: ignore[return-value]


def agree(signal: int | None, fault: Exception | None = None) -> int | None:
    """The signal that any process has received, or None; the same on all.

    `fault` is an error that the first process alone has met since the last time: all raise it.
    """
    if several():
        own = np.array([signal or 0, fault is not None], np.int32)
        asked, failed = multihost_utils.process_allgather(own).reshape(-1, 2).max(axis=0)
        signal = int(asked) or None
        if failed:
            _raise(broadcast(_for_others(fault)), fault)
    _raise(None, fault)
    return signal


def check_alike(value: object, what: str) -> None:
    """Raises UserError on all processes where one of them has another `value` than the first."""
    first = broadcast(value)

    def compare() -> None:
        if value != first:
            raise UserError(
                f"process {jax.process_index()} has other {what} than the first: start the same"
                " command, of the same version, on the same data everywhere"
            )

    together(compare)
