"""Worker process: runs the trials that its `worker_pool` sends, one after the other."""

import os
import pathlib
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from tavaal_jax import data
from tavaal_jax.algorithm.methods import METHODS, Method
from tavaal_jax.data import SETS, Dataset, DataSource
from tavaal_jax.engine import supervisor
from tavaal_jax.errors import Interrupted, UserError
from tavaal_jax.models.networks import NETWORKS, Network
from tavaal_jax.study import features
from tavaal_jax.study.parallel.runner import Runner, oracle
from tavaal_jax.study.trial import TrialHooks

# Messages to a worker: cores, a Job, then TrialOrders one at a time, or a StopOrder.


class Job(NamedTuple):
    """First message to all workers of a study."""

    config: ConfigDict
    folder: pathlib.Path
    dataset: Dataset | None
    """None: the config's."""
    methods: dict[str, Method]
    """Some may have been defined in a notebook."""
    networks: dict[str, Network]
    """Rows of NETWORKS, of which some may have been defined there, too."""
    sets: dict[str, DataSource]
    """Rows of SETS; empty where `dataset` is given."""
    made_by: str | None = None
    """Digest of what makes features."""
    fingerprint: str | None = None
    """Of the config's data set, to be compared on other machines."""


class TrialOrder(NamedTuple):
    """Order to run a trial."""

    method: str
    trial: int


class StopOrder(NamedTuple):
    """Order to save and end."""

    number: int
    """Number of the signal that asked for it."""


# Messages from a worker.


class TrackerCall(NamedTuple):
    """Call of the study's progress tracker."""

    arguments: tuple[object, ...]
    place: dict[str, object]


class HasResults(NamedTuple):
    """Notice that a trial's results.csv has changed."""


class Ready(NamedTuple):
    """Notice that the worker waits for its first trial."""


class Ended(NamedTuple):
    """End of a trial; the worker waits for the next one."""

    error: UserError | None = None
    """The error that ended the trial; None: it is finished."""
    cause: BaseException | None = None


class Failed(NamedTuple):
    """Last message of a worker that can run no trial."""

    error: UserError


class Stopped(NamedTuple):
    """Last message of a worker that has saved and ends on order."""


class Bug(NamedTuple):
    """Last message of a worker that met an error which is no UserError."""

    text: str
    """The traceback."""


Message = TrackerCall | HasResults | Ready | Ended | Failed | Stopped | Bug


class Worker:
    """Server of trials at one end of a pipe."""

    def __init__(self, pipe: Connection):
        self._pipe = pipe
        self._stop_signal: int | None = None

    def serve(self) -> None:
        """Runs trials until it is ordered to stop, or the worker pool is gone."""
        try:
            self._serve()
        except (EOFError, ConnectionError):
            os._exit(128 + signal.SIGKILL)  # The pool is gone: nobody waits for results.
        except Interrupted:
            self._send(Stopped())
        except UserError as error:
            self._send(Failed(error))
        except BaseException:
            self._send(Bug(traceback.format_exc()))

    def _serve(self) -> None:
        cores = self._pipe.recv()
        if cores:
            os.sched_setaffinity(0, cores)
        job: Job = pickle.loads(self._pipe.recv_bytes())
        hooks = TrialHooks(self._track, lambda: self._send(HasResults()), self._stop)
        runner = open_runner(job, hooks)
        self._send(Ready())
        while True:
            order = self._pipe.recv() if self._stop_signal is None else StopOrder(self._stop_signal)
            if isinstance(order, StopOrder):
                raise Interrupted(order.number)
            try:
                runner.run(*order)
                self._send(Ended())
            except UserError as error:
                self._send(ended_by(error))

    def _send(self, message: Message) -> None:
        self._pipe.send(message)

    def _track(self, *arguments: object, **place: object) -> None:
        self._send(TrackerCall(arguments, place))

    def _stop(self) -> int | None:
        if self._stop_signal is None and self._pipe.poll():
            self._stop_signal = self._pipe.recv().number
        return self._stop_signal


def open_runner(job: Job, hooks: TrialHooks) -> Runner:
    """Loads what a job names into this process, and returns the runner of its trials.

    Raises Interrupted where it is asked to stop meanwhile.
    """
    METHODS.update(job.methods)
    NETWORKS.update(job.networks)
    SETS.update(job.sets)
    dataset = data.load(job.config) if job.dataset is None else job.dataset
    if job.fingerprint is not None and dataset.fingerprint() != job.fingerprint:
        raise UserError(f"{dataset.name} has other images or labels here: put the same files there")
    source = features.source(job.config)
    if features.digest(source) != job.made_by:
        raise UserError(
            "the weights of backbone.name, or the file of backbone.features, have changed since"
            " the study began: put back those, or give another --workdir"
        )

    def check_stop() -> None:
        number = hooks.stop()
        if number is not None:
            raise Interrupted(number)

    tell = lambda event: hooks.track(event.text, stage=event.stage, step=event.step)
    dataset = features.of_dataset(job.config, dataset, source, tell, check_stop)
    return Runner(job.config, job.folder, dataset, oracle(dataset), hooks)


def ended_by(error: UserError) -> Ended:
    """End of a trial by an error; its cause where a study looks at it: that of a full disk."""
    return Ended(error, error.__cause__ if isinstance(error.__cause__, OSError) else None)


def main() -> None:
    """Entry point of a worker process; its argument is the file descriptor of its pipe."""
    # The worker pool handles signals and orders its workers to stop.
    for number in (*supervisor.signals(), signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.set_verbosity(logging.ERROR)
    Worker(Connection(int(sys.argv[1]))).serve()
