"""Saves and restores LoopState, to resume a trial; the only file that imports orbax."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.typing import ArrayLike

from tavaal_jax.algorithm.state import LoopState
from tavaal_jax.errors import TrialError, UserError
from tavaal_jax.report.files import named

_COUNTERS = ("cycle", "stage", "step")
_SAVING = threading.Lock()  # Orbax numbers the saves it begins by one counter of the process.


class Checkpoints:
    """Checkpoints of one trial, the two newest, numbered in the order of saving."""

    def __init__(self, folder: pathlib.Path):
        """Makes `folder` if need be."""
        self._folder = folder.absolute()
        with named(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._identity = self._folder.stat()
        self._opened: ocp.CheckpointManager | None = None
        self._saved: tuple[object, ...] | None = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's manager, opened at the first save or restore: many short trials have neither."""
        if self._opened is None:
            self._opened = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=2,
                    enable_async_checkpointing=True,
                    # The state is the same on all processes: the first one saves alone.
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
                    ),
                    create=False,
                ),
            )
        return self._opened

    def save(self, state: LoopState) -> None:
        """Saves `state` in the background; does nothing where this moment was saved last.

        Raises FloatingPointError, and saves nothing, where a weight is not finite.
        """
        moment = tuple(getattr(state, name) for name in _COUNTERS)
        if moment == self._saved:
            return
        check_finite(state)
        counters, arrays = _split(state)
        # Copies: the next step reuses the state's own buffers, on the CPU the same memory.
        arrays = jax.tree.map(lambda x: np.array(x, copy=True), arrays)
        with _SAVING, self._disk_errors():
            self._manager.save(
                1 + max(self._manager.all_steps(), default=-1),
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), counters=ocp.args.JsonSave(counters)
                ),
            )
        self._saved = moment

    def restore(self, template: LoopState) -> LoopState | None:
        """Restores the newest readable checkpoint; None where there is no checkpoint.

        `template` has the structure, shapes and shardings to restore to. Unreadable checkpoints are
        moved aside with a warning; TrialError where there are some and none can be read.
        """
        with named(self._folder):
            if not any(self._folder.iterdir()):
                return None
        numbers = sorted(self._manager.all_steps(), reverse=True)
        for number in numbers:
            try:
                state = self._restore_one(number, template)
            except Exception as error:  # Orbax raises many kinds for a damaged folder.
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                path = self._folder / str(number)
                warnings.warn(f"skipping unreadable checkpoint {path}: {reason}", stacklevel=2)
                continue
            self._set_aside([n for n in numbers if n > number])
            self._saved = tuple(getattr(state, name) for name in _COUNTERS)
            return state
        if numbers:
            raise TrialError(
                f"none of the checkpoints in {self._folder} can be read: delete it to go on"
                " from picks.csv and results.csv, or put back a copy"
            )
        return None

    def _set_aside(self, numbers: list[int]) -> None:
        """Moves damaged checkpoints out of the way."""
        for number in numbers:
            aside = self._folder.with_name("unreadable_checkpoints")
            aside.mkdir(exist_ok=True)
            shutil.move(self._folder / str(number), aside / f"{number}_{time.time_ns()}")
        if numbers:
            self._manager.reload()

    def _restore_one(self, number: int, template: LoopState) -> LoopState:
        _, arrays = _split(template)
        restored = self._manager.restore(
            number,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(jax.tree.map(_abstract, arrays)),
                counters=ocp.args.JsonRestore(),
            ),
        )
        return LoopState(**restored.counters, **restored.arrays)

    def wait(self) -> None:
        """Waits until all saves are finished."""
        if self._opened is not None:
            with self._disk_errors():
                self._opened.wait_until_finished()

    def close(self) -> None:
        """Waits until all saves are finished and closes the manager."""
        self.wait()
        if self._opened is not None:
            self._opened.close()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns a failure to save because of the disk into a UserError that names the folder.

        TensorStore raises ValueError, with or without the number of the system's error, and makes
        anew a folder that has been moved away: so the folder itself is asked, before and after.
        """
        with named(self._folder):
            self._folder.stat()
            try:
                yield
            except UserError:
                raise
            except ValueError as error:
                number = re.search(r"\[OS error (\d+):", str(error))
                if number and int(number[1]) in errno.errorcode:
                    raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
                if not os.path.samestat(self._identity, self._folder.stat()):
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
                with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                    file.write(bytes(2**16))
                raise


def check_finite(state: LoopState) -> None:
    """Raises FloatingPointError where a weight is not finite."""
    weights = {"learner": state.learner, "adversary": state.adversary}
    for path, array in jax.tree_util.tree_leaves_with_path(jax.device_get(weights)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FloatingPointError(f"{jax.tree_util.keystr(path)} is not finite")


def remove(folder: pathlib.Path) -> None:
    """Deletes a finished trial's checkpoints, if there are any."""
    shutil.rmtree(folder, ignore_errors=True)


def _abstract(x: ArrayLike | jax.ShapeDtypeStruct) -> object:
    """Shape, type and sharding of an array."""
    return x if isinstance(x, jax.ShapeDtypeStruct) else ocp.utils.to_shape_dtype_struct(x)


def _split(state: LoopState) -> tuple[dict[str, str | int], dict[str, object]]:
    """Counters, readable without the arrays, and arrays."""
    fields = {name: getattr(state, name) for name in LoopState.__dataclass_fields__}
    counters = {name: fields.pop(name) for name in _COUNTERS}
    return {k: v if isinstance(v, str) else int(v) for k, v in counters.items()}, fields
