"""A study's trials given to worker processes, each with a device, or cores, of its own.

For networks that are too small to be spread over devices. Results are those of one process: a trial
knows nothing of the others.
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
from multiprocessing.connection import Pipe, wait
from typing import Any, Self

import cloudpickle

from tavaal_jax.engine.device_shares import Share
from tavaal_jax.errors import Interrupted, TrialError, UserError, WorkdirLocked
from tavaal_jax.study.parallel import worker
from tavaal_jax.study.parallel.runner import Outcomes, TrialHooks
from tavaal_jax.study.parallel.worker import Job, Order

_LAST = worker.Stopped | worker.Failed | worker.Bug
_MAIN = f"from {worker.__name__} import main; main()"
_LOOK_EVERY = 0.2  # seconds, for a signal
_LOOK_AGAIN = 2.0  # seconds, for the end of a trial that another process runs
_PATIENCE = 600.0  # seconds that workers have to finish a call and to save


def run(
    job: Job,
    shares: Sequence[Share],
    todo: Sequence[tuple[str, int]],
    told: TrialHooks,
    to_the_end: bool = True,
) -> Outcomes:
    """Runs `todo`, pairs of method and trial.

    Starts a worker for each of `shares`, and ends them, whatever happens. Trials that other
    processes are running are waited for, or, unless `to_the_end`, left to them.
    """
    pickled = _pickled(job)
    left, later = [Order(*place) for place in todo], _Later()
    with WorkerPool(list(job.methods)) as pool:
        pool.start(pickled, shares[: len(todo)])
        while left or later or pool.is_at_work():
            asked = told.stop()
            if asked is not None:
                faults = pool.end(asked)
                if faults:
                    raise faults[0] if len(faults) == 1 else UserError("; ".join(map(str, faults)))
                raise Interrupted(asked)
            left += later.due()
            pool.give(left)
            for member, message in pool.messages():
                if isinstance(message, worker.TrackerCall):
                    told.tracker(*message.arguments, **message.place)
                elif isinstance(message, worker.HasResults):
                    told.on_results()
                elif isinstance(message, worker.Ready):
                    member.is_ready = True
                else:
                    had, fault = member.order, _fault(member, message)
                    member.order = None
                    if not isinstance(fault, WorkdirLocked):
                        yield fault
                    elif to_the_end and had is not None:
                        if had not in later.known:
                            told.tracker(f"waits for {had.method} trial {had.trial}: {fault}")
                        later.add(had)


class _Later:
    """Trials that other processes were running when they were last looked at."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._when = 0.0
        self.known: set[Order] = set()
        """All that there ever were."""

    def __bool__(self) -> bool:
        return bool(self._orders)

    def add(self, order: Order) -> None:
        """Is to be looked at again."""
        self._orders.append(order)
        self.known.add(order)
        self._when = time.monotonic() + _LOOK_AGAIN

    def due(self) -> list[Order]:
        """Those to be looked at now."""
        if time.monotonic() < self._when:
            return []
        due, self._orders = self._orders, []
        return due


class WorkerPool:
    """Worker processes."""

    def __init__(self, names: list[str]):
        self._names = names
        self._members: list[_WorkerHandle] = []

    def start(self, pickled: bytes, shares: Sequence[Share]) -> None:
        """Starts a worker for each of `shares` and gives it the job."""
        self._members += map(_WorkerHandle, shares)
        for member, share in zip(self._members, shares, strict=True):  # All start meanwhile.
            with contextlib.suppress(OSError):
                member.pipe.send(share.cores)
                member.pipe.send_bytes(pickled)

    def is_at_work(self) -> bool:
        """Whether any of them has a trial."""
        return any(member.order for member in self._members)

    def messages(self) -> Iterator[tuple["_WorkerHandle", Any]]:
        """What is heard within a moment, and of whom; None where one has ended unasked."""
        by_pipe = {member.pipe: member for member in self._members if member.is_alive}
        if not by_pipe:
            raise UserError(
                "no worker process is left, see above; the same command continues, with"
                " --config.workers=1 if memory was short"
            )
        for pipe in wait(list(by_pipe), _LOOK_EVERY):
            member = by_pipe[pipe]  # type: ignore[index]
            yield member, member.receive()

    def give(self, left: list[Order]) -> None:
        """A trial to each idle worker, of a method that it has compiled if there is one."""
        for number, member in enumerate(self._members):
            if left and member.is_alive and member.is_ready and member.order is None:
                order = min(left, key=lambda order: not self._is_for(number, order.method))
                left.remove(order)
                member.send(order)
                member.order = order

    def _is_for(self, number: int, method: str) -> bool:
        """Whether a worker compiles this method before it takes over others' trials."""
        workers, methods = len(self._members), len(self._names)
        index = self._names.index(method)
        return index % workers == number if methods >= workers else number % methods == index

    def end(self, number: int) -> list[UserError]:
        """Has all workers save and end; what has kept some of them from it."""
        faults = []
        for member in self._members:
            if member.order is None:
                member.kill()  # There is nothing to save.
            else:
                member.send(worker.Stop(number))
        until = time.monotonic() + _PATIENCE
        while any(member.is_alive for member in self._members) and time.monotonic() < until:
            for member, message in self.messages():
                if not isinstance(message, worker.TrackerCall | worker.HasResults | worker.Stopped):
                    fault = _fault(member, message)
                    faults += [] if fault is None or isinstance(fault, WorkdirLocked) else [fault]
        for member in self._members:
            if member.is_alive:
                faults.append(TrialError(f"{member.at()} did not save within {_PATIENCE:.0f} s"))
        self.kill()
        return faults

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):  # No reason for the others to lose anything.
            with contextlib.suppress(Exception):
                self.end(signal.SIGTERM)
        self.kill()

    def kill(self) -> None:
        """Ends all workers at once; may be called again."""
        for member in self._members:
            member.kill()


class _WorkerHandle:
    """One of the crew."""

    def __init__(self, share: Share):
        self.order: Order | None = None
        """What it is at."""
        self.is_alive, self.is_ready = True, False
        self.pipe, theirs = Pipe()
        # What this process can import, a notebook's own modules for example.
        path = os.pathsep.join([str(pathlib.Path(__file__).parents[2]), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            # With `-m`, what it sends would be of a module `__main__`.
            [sys.executable, "-c", _MAIN, str(theirs.fileno())],
            env={**share.environment, "PYTHONPATH": path},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()

    def at(self) -> str:
        """Its trial."""
        return f"{self.order.method} trial {self.order.trial}" if self.order else "no trial"

    def send(self, message: object) -> None:
        """To the worker, if there is one."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Its next message; None where it has ended."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            message = None
        if message is None or isinstance(message, _LAST):
            self.is_alive = False
        return message

    def kill(self) -> None:
        """Ends it."""
        self.is_alive = False
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def _pickled(job: Job) -> bytes:
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
            f"parallel is 'trials', and the study cannot be given to other processes ({error}):"
            " give 'devices', or define its methods, network and data set in a module"
        ) from error
    finally:
        for module in theirs:
            cloudpickle.unregister_pickle_by_value(module)
    return pickled


def _fault(member: _WorkerHandle, message: Any) -> UserError | None:
    """What a trial has ended with; raises what concerns all of them."""
    if isinstance(message, worker.Bug):
        raise RuntimeError(f"in a worker process:\n{message.text}")
    if isinstance(message, worker.Failed):
        raise message.error
    if isinstance(message, worker.Ended):
        if message.error is not None:
            message.error.__cause__ = message.cause
        return message.error
    if message is not None:
        return None
    code = member.process.wait()
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return TrialError(
        f"a worker process ended in {member.at()} with {how}: the same command continues, with"
        " fewer --config.workers if memory was short"
    )
