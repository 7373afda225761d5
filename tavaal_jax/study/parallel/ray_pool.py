"""Trials as tasks of a Ray cluster, each with a share of one machine; no disk is shared.

A trial writes into a folder of its node, and what it writes comes here as bytes, its checkpoints as
well. So a trial whose node is lost goes on elsewhere from what had come.
"""

import collections
import contextlib
import importlib.metadata
import logging
import os
import pathlib
import pickle
import signal
import socket
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.errors import Interrupted, TrialError, UserError
from tavaal_jax.report import checkpoints, files
from tavaal_jax.study.parallel import ray_share, ray_trial, trial_files, worker, worker_pool
from tavaal_jax.study.parallel.mailbox import Mailbox
from tavaal_jax.study.parallel.ray_trial import Attempt, Files
from tavaal_jax.study.parallel.runner import Outcomes
from tavaal_jax.study.parallel.worker import Job, Message
from tavaal_jax.study.trial import TrialHooks

LEAST = (2, 50)
"""Oldest version of Ray that this was written for."""
_POLL = 0.2  # seconds between checks for a signal
_TRIES = 5  # times that a trial is begun, where its process or machine is lost
_PATIENCE = 600.0  # seconds that trials have to finish a call, to save and to send
_PATIENCE_TO_JOIN = 10.0  # seconds until a cluster's machine answers
_MOST = 100_000  # calls of a mailbox that wait at the same time, one of each trial


def check() -> None:
    """Raises UserError unless Ray is installed, and is new enough."""
    mend = "pip install 'tavaal_jax[cluster]', or give 'trials'"
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"parallel is 'ray', and Ray is not installed: {mend}") from error
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
        least = ".".join(map(str, LEAST))
        raise UserError(f"parallel is 'ray', and Ray is {version}, older than {least}: {mend}")


def run(job: Job, todo: Sequence[tuple[str, int]], hooks: TrialHooks) -> Outcomes:
    """Runs `todo`, pairs of method and trial, on a cluster; all tasks are ended, whatever happens.

    Where config and environment name no cluster, and none runs here, one is started on this
    machine and ended.
    """
    with _connected(job.config) as (ray, may_grow):
        pool = RayPool(ray, job, hooks, may_grow)
        try:
            yield from pool.run(todo)
        except (Exception, GeneratorExit):  # No reason for the others to lose anything.
            with contextlib.suppress(Exception):
                pool.end(signal.SIGTERM)
            raise
        finally:
            pool.kill()


@contextlib.contextmanager
def _connected(config: ConfigDict) -> Iterator[tuple[ModuleType, bool]]:
    """Context that has joined a cluster, or the one that this process has joined before.

    `-> Ray, whether machines may join`, which they cannot where it was started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # As it is in newer versions; an older one warns that it will be.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield ray, True
        return
    address = _address(config)
    usual = signal.getsignal(signal.SIGTERM)
    # A terminal that is closed would end a cluster that is started here before its trials have
    # saved. Ray keeps ctrl-C from it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        ray.init(
            config.ray.address or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except SystemExit as error:  # Ray's own way to take that signal.
        ray.shutdown()
        raise Interrupted(signal.SIGTERM) from error
    except (RuntimeError, ValueError, OSError) as error:
        ray.shutdown()
        raise _no_cluster(address, error) from error
    finally:
        if usual is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, usual)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield ray, address != "local"
    finally:
        ray.shutdown()


def _task() -> Callable[..., bytes | str]:
    def run_trial(*arguments: Any) -> bytes | str:
        # A function within another one travels with its code: a node may lack this package.
        import socket

        try:
            from tavaal_jax.study.parallel import ray_trial
        except ImportError as error:
            return (
                f"on {socket.gethostname()} there is no tavaal_jax of this version ({error}):"
                " install the same on all machines"
            )
        return ray_trial.run(*arguments)

    return run_trial


def _address(config: ConfigDict) -> str:
    """Address of the cluster that is joined; "local": one is started here.

    Raises UserError where nobody answers at host:port, of which Ray is sure after minutes.
    """
    address, source = config.ray.address or os.environ.get("RAY_ADDRESS", ""), ""
    # Where Ray notes the cluster that was started last on this machine, which may be gone.
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", "/tmp")
    note = pathlib.Path(folder, "ray", "ray_current_cluster")
    if address in ("", "auto") and note.is_file():
        address, source = note.read_text("utf-8").strip(), f", which {note} names"
    if "://" in address:
        raise UserError(
            f"the address of Ray is {address}: give host:port, and start this on a machine of the"
            " cluster"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_TO_JOIN).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address + source, error) from error
    return address or "local"


def _no_cluster(address: str, error: Exception) -> UserError:
    reason = textwrap.shorten(str(error), 300) or type(error).__name__
    place = "this machine" if address == "local" else address
    return UserError(
        f"no Ray cluster at {place} ({reason}): start one with ray start --head --port=6379, and"
        " give its host:port as ray.address; or give local, for one of this machine alone"
    )


class RayPool:
    """Tasks of a study on a cluster."""

    def __init__(self, ray: ModuleType, job: Job, hooks: TrialHooks, may_grow: bool):
        """`may_grow`: other machines may join the cluster."""
        self._ray, self._job, self._hooks = ray, job, hooks
        on_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = on_node(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(
            num_cpus=0, max_concurrency=_MOST, scheduling_strategy=here,
            max_task_retries=-1,  # A connection may break for a moment.
        )  # fmt: skip
        self._mailbox = actor(Mailbox).remote()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = ray_share.share_of(job.config, nodes)
        if not any(all(node.get(n, 0) >= share[n] for n in share) for node in nodes):
            wanted = ", ".join(f"{name} {amount:g}" for name, amount in share.items())
            if not may_grow:
                raise UserError(
                    f"ray.share is {wanted}, more than this machine has, and the cluster was"
                    " started here: give less, or the ray.address of a cluster with such a machine"
                )
            hooks.track(f"waits for a machine with {wanted}: none in the cluster has that now")
        names = {"CPU": "num_cpus", "GPU": "num_gpus"}
        try:
            once_or_more = ray.remote(max_calls=0 if set(share) == {"CPU"} else 1)
            self._task = once_or_more(_task()).options(
                max_retries=0,  # It begins with files that are newer then.
                runtime_env={"env_vars": ray_share.environment_of(share, nodes)},
                resources={name: share[name] for name in share if name not in names},
                **{names[name]: share[name] for name in share if name in names},
            )
        except ValueError as error:
            raise UserError(f"ray.share is {job.config.ray.share!r}: {error}") from error
        content = np.frombuffer(worker_pool.pickled_job(job), np.uint8)
        self._shared = uuid.uuid4().hex, ray_trial.installed(), ray.put(content)
        self._left: list[tuple[str, int]] = []
        self._running: dict[Any, Attempt] = {}
        """By the reference of what the task returns."""
        self._begun: set[Attempt] = set()
        self._units: dict[Attempt, collections.Counter[str]] = {}
        """Units of work that were reported."""
        self._tries: collections.Counter[tuple[str, int]] = collections.Counter()
        self._is_ending = False

    def run(self, todo: Sequence[tuple[str, int]]) -> Outcomes:
        """Runs all, see `run`."""
        self._left += todo
        most = self._job.config.workers or len(todo)
        while self._left or self._running:
            stop_signal = self._hooks.stop()
            if stop_signal is not None:
                raise worker_pool.end_of_all(stop_signal, self.end(stop_signal))
            while self._left and len(self._running) < most:
                self._begin(*self._left.pop(0))
            yield from self._outcomes()

    def _begin(self, method: str, trial: int) -> None:
        self._tries[method, trial] += 1
        attempt = Attempt(method, trial, self._tries[method, trial])
        folder = files.trial_folder(self._job.folder, method, trial)
        saved = trial_files.changed(folder, {}, checkpoints=2)
        # Until the trial has ended, all its results alone are not all of it, see `is_finished`.
        with files.named(folder):
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        study, versions, job = self._shared
        task = self._task.remote(study, versions, job, tuple(attempt), saved, self._mailbox)
        self._running[task] = attempt
        self._units[attempt] = collections.Counter()

    def _outcomes(self) -> Outcomes:
        """Handles the messages of the next moment; yields for each trial that has ended."""
        # They arrive before the task ends that has sent them.
        ended, _ = self._ray.wait(
            list(self._running), num_returns=len(self._running), timeout=0, fetch_local=False
        )
        for message in self._ray.get(self._mailbox.take.remote(_POLL)):
            self._handle(*pickle.loads(message))
        for task in ended:
            yield from self._end_of(task)

    def _handle(self, attempt: Attempt, message: Message | Files) -> None:
        if attempt not in self._running.values():
            return
        if isinstance(message, worker.Ready):
            self._begun.add(attempt)
        elif isinstance(message, worker.TrackerCall):
            units = {name: message.place.get(name, 0) for name in ("units", "skipped")}
            self._units[attempt].update(units)
            self._hooks.track(*message.arguments, **message.place)
        elif isinstance(message, Files):
            folder = files.trial_folder(self._job.folder, attempt.method, attempt.trial)
            trial_files.write(folder, message.content)
            if "results.csv" in message.content:
                self._hooks.on_results()

    def _end_of(self, task: Any) -> Outcomes:
        """Outcome of a trial whose task has ended; none where it was stopped, or is begun again."""
        attempt = self._running.pop(task)
        errors = self._ray.exceptions
        try:
            message = self._ray.get(task)
        except errors.RayTaskError as error:
            raise RuntimeError(f"in a task of Ray:\n{error}") from error
        except errors.RayError as error:
            yield from self._lost(attempt, error)
            return
        if isinstance(message, str):
            raise UserError(message)
        message = pickle.loads(message)
        fault = worker_pool.outcome(message)
        if isinstance(message, worker.Ended):
            if fault is None:
                folder = files.trial_folder(self._job.folder, attempt.method, attempt.trial)
                checkpoints.remove(folder / "checkpoints")
            yield fault

    def _lost(self, attempt: Attempt, error: Exception) -> Outcomes:
        method, trial, tries = attempt
        name = f"{method} trial {trial}"
        text = f"{name} was lost with its process or machine ({type(error).__name__})"
        if self._is_ending:
            yield TrialError(f"{text} before it had saved: the same command continues")
        elif tries == _TRIES:
            yield TrialError(
                f"{name} was lost {tries} times with its process or machine"
                f" ({type(error).__name__}): the same command continues, with a larger"
                " --config.ray.share if memory was short"
            )
        else:
            done = {unit: -count for unit, count in self._units.pop(attempt).items()}
            self._hooks.track(f"{text}: it runs again", method=method, trial=trial, **done)
            self._left.insert(0, (method, trial))

    def end(self, number: int) -> list[UserError]:
        """Has all trials save, send their files and end, `-> errors` of those that could not.

        `number` is that of the signal.
        """
        self._is_ending = True
        self._ray.get(self._mailbox.stop.remote(number))
        for task in [task for task, attempt in self._running.items() if attempt not in self._begun]:
            self._ray.cancel(task, force=True)  # There is nothing to save.
            del self._running[task]
        faults: list[UserError] = []
        until = time.monotonic() + _PATIENCE
        while self._running and time.monotonic() < until:
            faults += [fault for fault in self._outcomes() if fault is not None]
        faults += [
            TrialError(f"{method} trial {trial} did not save within {_PATIENCE:.0f} s")
            for method, trial, _ in self._running.values()
        ]
        self.kill()
        return faults

    def kill(self) -> None:
        """Ends all tasks at once."""
        with contextlib.suppress(Exception):  # The cluster may be gone.
            for task in self._running:
                self._ray.cancel(task, force=True)
            self._running.clear()
            self._ray.kill(self._mailbox)
