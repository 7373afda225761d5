"""Trials on a node of a Ray cluster; the study's side is `ray_pool`.

A process of Ray runs one trial after another, so that a method is compiled once in it. With an
accelerator it runs one: the next one may be given another device, and this one's memory is free.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import pickle
import shutil
import socket
import tempfile
import traceback
import warnings
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from tavaal_jax.engine import compilation
from tavaal_jax.errors import Interrupted, UserError
from tavaal_jax.report import files
from tavaal_jax.report.progress import Throttle
from tavaal_jax.study.parallel import trial_files, worker
from tavaal_jax.study.parallel.worker import Ended, Failed, Message, Ready, Stopped, TrackerCall
from tavaal_jax.study.trial import TrialHooks


class Attempt(NamedTuple):
    """Attempt to run a trial; what comes of another one, of a node thought lost, is ignored."""

    method: str
    trial: int
    number: int


class Files(NamedTuple):
    """Message: files of the trial that have changed, by their names in its folder."""

    content: dict[str, bytes]


class Node:
    """What this process has for a study's trials: its data, its programs and a folder."""

    def __init__(self, job: worker.Job, mailbox: Any, attempt: Attempt):
        """`mailbox` is the handle of the study's Mailbox."""
        self._mailbox, self._attempt = mailbox, attempt
        # Ray gives the cores of a task that waits to another one; it does not see a future.
        self._stop_order = mailbox.stop_signal.remote().future()
        self._workdir = job.folder
        _remove_left()
        self._root = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}_"))
        self._marks: trial_files.Marks = {}
        self._send_state = Throttle(lambda: self._send_files(checkpoints=1))
        hooks = TrialHooks(self._track, self._send_files, self._stop)
        self._runner = worker.open_runner(job._replace(folder=self._root), hooks)

    def run(self, attempt: Attempt, saved: dict[str, bytes]) -> Ended:
        """Runs a trial on from the files that are `saved`, and sends what it writes."""
        self._attempt, self._marks = attempt, {}
        self._root.mkdir(mode=0o700, exist_ok=True)
        trial_files.write(self._folder, saved)
        trial_files.changed(self._folder, self._marks, checkpoints=2)  # Those that are there.
        self._post(Ready())
        try:
            self._runner.run(attempt.method, attempt.trial)
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise  # It concerns all trials here.
            error.args = tuple(self._of_study(argument) for argument in error.args)
            return worker.ended_by(error)
        finally:
            self._send_files(checkpoints=1)
            shutil.rmtree(self._root, ignore_errors=True)
        return Ended()

    @property
    def _folder(self) -> pathlib.Path:
        return files.trial_folder(self._root, self._attempt.method, self._attempt.trial)

    def _of_study(self, value: object) -> object:
        """A part of a message, with the study's folder where it names this node's."""
        return value.replace(str(self._root), str(self._workdir)) if type(value) is str else value

    def _post(self, message: Message | Files) -> None:
        self._mailbox.post.remote(pickle.dumps((self._attempt, message)))

    def _track(self, *arguments: object, **place: object) -> None:
        self._post(TrackerCall(tuple(map(self._of_study, arguments)), place))
        self._send_state()

    def _send_files(self, checkpoints: int = 0) -> None:
        """Sends what has changed, and waits until the study has written it."""
        content = trial_files.changed(self._folder, self._marks, checkpoints)
        if content:
            message = pickle.dumps((self._attempt, Files(content)))
            self._mailbox.deliver.remote(message).future().result()

    def _stop(self) -> int | None:
        return int(self._stop_order.result()) if self._stop_order.done() else None

    def warn(self, message: Warning | str, category: type[Warning], *_: object) -> None:
        """Sends a warning such as that of an unreadable checkpoint, which is the user's to see."""
        if category is UserWarning:
            self._track(f"warning: {message}")


_PREFIX = "tavaal_jax_ray_"


def _remove_left() -> None:
    """Removes folders of this user's processes that were killed."""
    for path in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*_*"):
        number = path.name.removeprefix(_PREFIX).partition("_")[0]
        with contextlib.suppress(OSError, ValueError):
            if path.stat().st_uid == os.getuid():
                try:
                    os.kill(int(number), 0)
                except ProcessLookupError:
                    shutil.rmtree(path, ignore_errors=True)


_NODES: dict[str, Node] = {}
"""The last study of this process, by its name."""


def run(
    study: str,
    versions: dict[str, str],
    pickled: np.ndarray,
    attempt: tuple[str, int, int],
    saved: dict[str, bytes],
    mailbox: Any,
) -> bytes:
    """Runs a trial; returns its last message, pickled. `pickled` is the Job, as bytes."""
    try:
        return pickle.dumps(_run(study, versions, pickled, Attempt(*attempt), saved, mailbox))
    except Interrupted:
        return pickle.dumps(Stopped())
    except UserError as error:
        return pickle.dumps(Failed(UserError(f"on {socket.gethostname()}: {error}")))
    except BaseException:
        return pickle.dumps(worker.Bug(traceback.format_exc()))


def _run(
    study: str,
    versions: dict[str, str],
    pickled: np.ndarray,
    attempt: Attempt,
    saved: dict[str, bytes],
    mailbox: Any,
) -> Ended:
    if study not in _NODES:
        check_versions(versions, installed())
        logging.set_verbosity(logging.ERROR)
        compilation.keep_in_cache()
        try:
            job = pickle.loads(pickled.data)
        except ImportError as error:
            raise UserError(
                f"{error}, from which the study has a method, network or data set: install it on"
                " all machines, or define them in the config file"
            ) from error
        _NODES.clear()
        _NODES[study] = Node(job, mailbox, attempt)
    node = _NODES[study]
    with warnings.catch_warnings():
        warnings.showwarning = node.warn  # type: ignore[assignment]
        return node.run(attempt, saved)


def installed() -> dict[str, str]:
    """Versions of what results depend on, and the digest of this package's code."""
    names = "tavaal_jax", *files.PACKAGES
    found = {name: importlib.metadata.version(name) for name in names}
    return {**found, "tavaal_jax with code": _digest_of_code(pathlib.Path(__file__).parents[2])}


def _digest_of_code(folder: pathlib.Path) -> str:
    """Beginning of the SHA-256 of a package's code without its configs, which a clone has not."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder)
        if place.parts[0] != "configs":
            digest.update(repr((place.as_posix(), path.read_bytes())).encode())
    return digest.hexdigest()[:12]


def check_versions(study: dict[str, str], here: dict[str, str]) -> None:
    """Raises UserError where a node has another version than the study."""
    for name, version in study.items():
        if version != here[name]:
            raise UserError(
                f"{name} {here[name]} is installed, and the study began with {version}: install the"
                " same on all machines"
            )
