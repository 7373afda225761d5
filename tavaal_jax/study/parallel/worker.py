"""A worker process: runs the trials that its study's `crew` gives it, one after the other."""

import functools
import os
import pathlib
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from tavaal_jax import data
from tavaal_jax.algorithm.methods import METHODS, Method
from tavaal_jax.data import Dataset
from tavaal_jax.errors import Interrupted, UserError
from tavaal_jax.models.networks import NETWORKS, Network
from tavaal_jax.study.parallel.runner import Runner, TrialHooks, oracle

# What a crew sends: cores, a Job, then Orders or Stop, one Order at a time.


class Job(NamedTuple):
    """What all workers of a study are told first."""

    config: ConfigDict
    folder: pathlib.Path
    dataset: Dataset | None
    """None: the config's."""
    methods: dict[str, Method]
    """Some may have been defined in a notebook."""
    networks: dict[str, Network]
    """Likewise."""


class Order(NamedTuple):
    """A trial to run."""

    method: str
    trial: int


class Stop(NamedTuple):
    """Save, and end; `number` of the signal that asked for it."""

    number: int


# What a worker sends.


class TrackerCall(NamedTuple):
    """A call of the tracker."""

    arguments: tuple[Any, ...]
    place: dict[str, Any]


class HasResults(NamedTuple):
    """A trial's results.csv has changed."""


class Ready(NamedTuple):
    """It waits for its first trial."""


class Ended(NamedTuple):
    """The trial is over; it waits for the next one."""

    error: UserError | None = None
    """That ended it."""
    cause: BaseException | None = None


class Failed(NamedTuple):
    """No trial can be run; nothing follows."""

    error: UserError


class Stopped(NamedTuple):
    """All is saved; nothing follows."""


class Bug(NamedTuple):
    """A fault of ours; nothing follows."""

    text: str
    """Its traceback."""


class Worker:
    """Serves the other end of a pipe."""

    def __init__(self, pipe: Connection):
        self._pipe = pipe
        self._asked: int | None = None

    def serve(self) -> None:
        """Until it is told to stop, or its crew is gone."""
        try:
            self._serve()
        except (EOFError, ConnectionError):
            os._exit(128 + signal.SIGKILL)  # The crew is gone, and with it who would go on.
        except Interrupted:
            self._pipe.send(Stopped())
        except UserError as error:
            self._pipe.send(Failed(error))
        except BaseException:
            self._pipe.send(Bug(traceback.format_exc()))

    def _serve(self) -> None:
        cores = self._pipe.recv()
        if cores:
            os.sched_setaffinity(0, cores)
        job: Job = pickle.loads(self._pipe.recv_bytes())
        METHODS.update(job.methods)
        NETWORKS.update(job.networks)
        dataset = data.load(job.config) if job.dataset is None else job.dataset
        runner = Runner(
            job.config,
            job.folder,
            dataset,
            oracle(dataset),
            TrialHooks(self._say, functools.partial(self._pipe.send, HasResults()), self._stop),
        )
        self._pipe.send(Ready())
        while True:
            order = self._pipe.recv() if self._asked is None else Stop(self._asked)
            if isinstance(order, Stop):
                raise Interrupted(order.number)
            try:
                runner.run(*order)
                self._pipe.send(Ended())
            except UserError as error:
                self._pipe.send(Ended(error, _picklable(error.__cause__)))

    def _say(self, *arguments: Any, **place: Any) -> None:
        self._pipe.send(TrackerCall(arguments, place))

    def _stop(self) -> int | None:
        if self._asked is None and self._pipe.poll():
            self._asked = self._pipe.recv().number
        return self._asked


def _picklable(error: BaseException | None) -> BaseException | None:
    """Only what a crew looks at."""
    return error if isinstance(error, OSError) else None


def main() -> None:
    """Of a worker process, which is given the file descriptor of its pipe."""
    # Signals are for the crew, which asks its workers to stop, also where all are sent one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.set_verbosity(logging.ERROR)
    Worker(Connection(int(sys.argv[1]))).serve()
