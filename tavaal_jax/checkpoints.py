"""Saves and restores LoopState; the only file that imports orbax."""

import pathlib
import shutil
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from tavaal_jax.errors import UserError
from tavaal_jax.state import LoopState

_COUNTERS = ("cycle", "stage", "step")
_STAGES_PER_CYCLE, _STEPS_PER_STAGE = 8, 10**8  # bounds that keep positions in order


class Checkpoints:
    """The checkpoints of one run: the two newest, numbered by how far the run had come."""

    def __init__(self, folder: pathlib.Path):
        """`folder` is made if need be."""
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True),
        )

    def save(self, state: LoopState) -> None:
        """Saves `state` while the run goes on; nothing where this very moment is saved already.

        Raises FloatingPointError, and saves nothing, where a weight is not finite.
        """
        position = _position(state)
        if position in self._manager.all_steps():
            return
        counters, arrays = _split(state)
        # Copies: the next step is given the state's own buffers, on the CPU the very same memory.
        arrays = jax.tree.map(lambda x: np.array(x, copy=True), arrays)
        for path, array in jax.tree_util.tree_leaves_with_path(arrays):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FloatingPointError(f"{jax.tree_util.keystr(path)} is not finite")
        self._manager.save(
            position,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), counters=ocp.args.JsonSave(counters)
            ),
        )

    def restore(self, template: LoopState) -> LoopState | None:
        """The newest checkpoint that can be read, or None where there is none at all.

        `template` has the structure, shapes and shardings to restore to. Unreadable checkpoints are
        skipped with a warning; UserError where there are some and none can be read.
        """
        state = self._newest(lambda step: self._restore_one(step, template))
        if state is not None:
            self._set_aside_after(_position(state))
        return state

    def progress(self) -> dict | None:
        """`cycle`, `stage`, `step` and `results` of the newest checkpoint, without its arrays."""
        return self._newest(self._counters)

    def _newest(self, read):
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return read(step)
            except Exception as error:  # Orbax raises many kinds for a damaged folder.
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                path = self._folder / str(step)
                warnings.warn(f"skipping unreadable checkpoint {path}: {reason}", stacklevel=2)
        if steps:
            raise UserError(
                f"none of the checkpoints in {self._folder} can be read: delete it to start"
                " this run over, or put back a copy"
            )
        return None

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()

    def _set_aside_after(self, position):
        """Moves unreadable checkpoints away, so that their moments can be saved again."""
        unreadable = [step for step in self._manager.all_steps() if step > position]
        for step in unreadable:
            aside = self._folder.with_name("unreadable_checkpoints")
            aside.mkdir(exist_ok=True)
            shutil.move(self._folder / str(step), aside / f"{step}_{time.time_ns()}")
        if unreadable:
            self._manager.reload()

    def _counters(self, step):
        restored = self._manager.restore(
            step, args=ocp.args.Composite(counters=ocp.args.JsonRestore())
        )
        return restored.counters

    def _restore_one(self, step, template):
        _, arrays = _split(template)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))
        )
        counters = self._counters(step)
        results = np.array(counters.pop("results"), np.float32)
        return LoopState(**counters, results=results, **restored.arrays)


def read_progress(folder: pathlib.Path) -> dict | None:
    """`Checkpoints.progress` of a folder that may not be there; leaves it as it is."""
    if not folder.exists():
        return None
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.progress()
    finally:
        checkpoints.close()


def _position(state):
    return (state.cycle * _STAGES_PER_CYCLE + state.stage) * _STEPS_PER_STAGE + state.step


def _split(state):
    """Small numbers, readable without the arrays, and arrays."""
    fields = {name: getattr(state, name) for name in LoopState.__dataclass_fields__}
    counters = {name: int(fields.pop(name)) for name in _COUNTERS}
    counters["results"] = fields.pop("results").tolist()
    return counters, fields
