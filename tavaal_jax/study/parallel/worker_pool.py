"""Pool of worker processes for a study's trials, each with a device, or cores, of its own.

For networks that are too small to be spread over devices. Results are those of one process: trials
are independent.
"""

import contextlib
import importlib.machinery
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Protocol, Self, cast

import cloudpickle

from tavaal_jax.engine.device_shares import Share
from tavaal_jax.errors import Interrupted, TrialError, UserError
from tavaal_jax.study.parallel import worker
from tavaal_jax.study.parallel.runner import Outcomes
from tavaal_jax.study.parallel.worker import Job, Message, TrialOrder
from tavaal_jax.study.trial import TrialHooks

_LAST = worker.Stopped | worker.Failed | worker.Bug
_MAIN = f"from {worker.__name__} import main; main()"
_POLL = 0.2  # seconds between checks for a signal
_PATIENCE = 600.0  # seconds that workers have to finish a call and to save


def run(
    job: Job, shares: Sequence[Share], todo: Sequence[tuple[str, int]], hooks: TrialHooks
) -> Outcomes:
    """Runs `todo`, pairs of method and trial, in one worker per share of the machine.

    The workers are ended, whatever happens.
    """
    pickled = pickled_job(job)
    left = [TrialOrder(*place) for place in todo]
    with WorkerPool(list(job.methods)) as pool:
        pool.start(pickled, shares[: len(todo)])
        while left or pool.is_busy():
            stop_signal = hooks.stop()
            if stop_signal is not None:
                raise end_of_all(stop_signal, pool.end(stop_signal))
            pool.give(left)
            for handle, message in pool.messages():
                if isinstance(message, worker.TrackerCall):
                    hooks.track(*message.arguments, **message.place)
                elif isinstance(message, worker.HasResults):
                    hooks.on_results()
                elif isinstance(message, worker.Ready):
                    handle.is_ready = True
                else:
                    fault = _fault(handle, message)
                    handle.order = None
                    yield fault


def end_of_all(number: int, faults: list[UserError]) -> Exception:
    """What a study that was stopped by a signal raises; `faults` are of trials not saved."""
    if len(faults) > 1:
        return UserError("; ".join(map(str, faults)))
    return faults[0] if faults else Interrupted(number)


class WorkerPool:
    """Worker processes, ended when its context is left."""

    def __init__(self, methods: list[str]):
        self._methods = methods
        self._workers: list[_WorkerHandle] = []

    def start(self, pickled: bytes, shares: Sequence[Share]) -> None:
        """Starts a worker for each of `shares` and sends it the pickled job."""
        self._workers += [_WorkerHandle(*_launch(share)) for share in shares]
        for handle, share in zip(self._workers, shares, strict=True):  # All start meanwhile.
            with contextlib.suppress(OSError):
                handle.pipe.send(share.cores)
                handle.pipe.send_bytes(pickled)

    def is_busy(self) -> bool:
        """Whether any worker has a trial."""
        return any(handle.order for handle in self._workers)

    def messages(self) -> Iterator[tuple["_WorkerHandle", Message | None]]:
        """Messages of the next moment with their senders; None where a worker has ended unasked."""
        by_pipe = {handle.pipe: handle for handle in self._workers if handle.is_alive}
        if not by_pipe:
            raise UserError(
                "no worker process is left, see above; the same command continues, with"
                " --config.workers=1 if memory was short"
            )
        for pipe in wait(list(by_pipe), _POLL):
            handle = by_pipe[cast(Connection, pipe)]
            yield handle, handle.receive()

    def give(self, left: list[TrialOrder]) -> None:
        """Gives each idle worker a trial, of a method that it has compiled if there is one."""
        for number, handle in enumerate(self._workers):
            if left and handle.is_alive and handle.is_ready and handle.order is None:
                order = min(left, key=lambda order: not self._is_for(number, order.method))
                left.remove(order)
                handle.send(order)
                handle.order = order

    def _is_for(self, number: int, method: str) -> bool:
        """Whether a worker compiles this method before it takes over others' trials."""
        workers, methods = len(self._workers), len(self._methods)
        index = self._methods.index(method)
        return index % workers == number if methods >= workers else number % methods == index

    def end(self, number: int) -> list[UserError]:
        """Has all workers save and end, `-> errors` of those that could not.

        `number` is that of the signal.
        """
        faults = []
        for handle in self._workers:
            if handle.order is None:
                handle.kill()  # There is nothing to save.
            else:
                handle.send(worker.StopOrder(number))
        until = time.monotonic() + _PATIENCE
        while any(handle.is_alive for handle in self._workers) and time.monotonic() < until:
            for handle, message in self.messages():
                if not isinstance(message, worker.TrackerCall | worker.HasResults | worker.Stopped):
                    fault = _fault(handle, message)
                    faults += [] if fault is None else [fault]
        for handle in self._workers:
            if handle.is_alive:
                faults.append(TrialError(f"{handle.place()} did not save within {_PATIENCE:.0f} s"))
        self.kill()
        return faults

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):  # No reason for the others to lose anything.
            with contextlib.suppress(Exception):
                self.end(signal.SIGTERM)
        self.kill()

    def kill(self) -> None:
        """Ends all workers at once; may be called again."""
        for handle in self._workers:
            handle.kill()


class Process(Protocol):
    """The part of `subprocess.Popen` that a pool uses."""

    def kill(self) -> None:
        """Ends the process at once."""

    def wait(self) -> int:
        """Waits for its end, `-> exit code`, negative for a signal."""


def _launch(share: Share) -> tuple[Process, Connection]:
    """Starts a worker process, `-> process, our end of its pipe`."""
    pipe, theirs = Pipe()
    # What this process can import, a notebook's own modules for example.
    path = os.pathsep.join([str(pathlib.Path(__file__).parents[3]), *filter(None, sys.path)])
    process = subprocess.Popen(
        # With `-m`, what it sends would be of a module `__main__`.
        [sys.executable, "-c", _MAIN, str(theirs.fileno())],
        env={**share.environment, "PYTHONPATH": path},
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    return process, pipe


class _WorkerHandle:
    """The pool's side of one worker."""

    def __init__(self, process: Process, pipe: Connection):
        self.process, self.pipe = process, pipe
        self.order: TrialOrder | None = None
        """The trial that it runs."""
        self.is_alive, self.is_ready = True, False

    def place(self) -> str:
        """Name of its trial, for messages."""
        return f"{self.order.method} trial {self.order.trial}" if self.order else "no trial"

    def send(self, message: object) -> None:
        """Sends a message, unless the worker has ended."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Message | None:
        """Receives its next message; None where it has ended."""
        message: Message | None = None
        with contextlib.suppress(EOFError, OSError):
            message = self.pipe.recv()
        if message is None or isinstance(message, _LAST):
            self.is_alive = False
        return message

    def kill(self) -> None:
        """Ends the worker at once; may be called again."""
        self.is_alive = False
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def pickled_job(job: Job) -> bytes:
    """A pickle with the code of rows that a config file or a notebook has defined."""
    rows = (*job.methods.values(), *job.networks.values(), *job.sets.values())
    parts = [getattr(part, "func", part) for row in rows for part in row]
    names = {getattr(part, "__module__", None) for part in parts}
    found = importlib.machinery.PathFinder.find_spec
    theirs = [
        sys.modules[name]
        for name in names
        if name in sys.modules
        and name.partition(".")[0] not in ("__main__", "tavaal_jax")
        and found(name.partition(".")[0]) is None
    ]
    for module in theirs:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled: bytes = cloudpickle.dumps(job)
    except (pickle.PicklingError, TypeError) as error:
        raise UserError(
            f"parallel is {job.config.parallel!r}, and the study cannot be given to other processes"
            f" ({error}): give 'devices', or define its methods, network and data set in a module"
        ) from error
    finally:
        for module in theirs:
            cloudpickle.unregister_pickle_by_value(module)
    return pickled


def _fault(handle: _WorkerHandle, message: Message | None) -> UserError | None:
    """The error that a trial has ended with; raises what concerns all of them."""
    if message is not None:
        return outcome(message)
    code = handle.process.wait()
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return TrialError(
        f"a worker process ended in {handle.place()} with {how}: the same command continues, with"
        " fewer --config.workers if memory was short"
    )


def outcome(message: Message) -> UserError | None:
    """The error of a worker's last message about a trial; raises what concerns all of them."""
    if isinstance(message, worker.Bug):
        raise RuntimeError(f"in a worker process:\n{message.text}")
    if isinstance(message, worker.Failed):
        raise message.error
    if isinstance(message, worker.Ended):
        if message.error is not None:
            message.error.__cause__ = message.cause
        return message.error
    return None
