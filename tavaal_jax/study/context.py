"""Context of a cycle's stages: pools, T's and R's inference, scores, and the stages' reports."""

import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine import memory
from tavaal_jax.engine.devices import Agreement
from tavaal_jax.engine.programs import (
    Inference,
    PoolExample,
    Scored,
    ScoreVariables,
    TaskVariables,
)
from tavaal_jax.study.setup import Setup

Result = TypeVar("Result")
Details = dict[str, np.ndarray]


class ValueFault(Exception):
    """A method's values or picks break their contract."""


@dataclasses.dataclass(frozen=True)
class StageReport:
    """Report yielded with the state after each device call, and at the end of each stage."""

    cycle: int
    stage: str
    step: int
    """Finished steps of the stage."""
    metrics: Mapping[str, ArrayLike]
    """A number per metric; for a training call a buffer on the devices, see :meth:`values`."""
    count: int = 0
    """Steps that a training call ran."""
    stage_ended: bool = False
    agree: Agreement = True
    """Whether all devices hold the same state, for `devices.check_agreement`."""
    labelled: int = 0
    """Size of L."""
    waited: float = 0.0
    """Seconds for which reading examples has held up the call."""
    details: Details | None = None
    """Arrays behind the metrics, for a file of their own."""

    def is_ready(self) -> bool:
        """Whether the device call it reports has ended."""
        arrays = (x for x in jax.tree.leaves(self.metrics) if isinstance(x, jax.Array))
        return all(x.is_ready() for x in arrays)  # type: ignore[attr-defined]

    def values(self) -> dict[str, np.ndarray]:
        """The metrics in host memory, `[]` or one entry per step run `[count]`; waits for them."""
        metrics = {k: np.asarray(v) for k, v in jax.device_get(dict(self.metrics)).items()}
        return {k: v[: self.count] for k, v in metrics.items()} if self.count else metrics


class StageEnd(NamedTuple):
    """State, metrics and details that a stage ends with."""

    state: LoopState
    metrics: Mapping[str, ArrayLike]
    details: Details | None


Calls = Generator[tuple[LoopState, StageReport], None, Result]
"""Yields state and report after every call to the devices; returns a result."""
Stage = Calls[StageEnd]


class Cycle:
    """One cycle of a trial: its pools and what its stages compute once for all of them."""

    def __init__(
        self, setup: Setup, key: jax.Array, state: LoopState, steps_per_call: Callable[[str], int]
    ):
        """`state` is any of this cycle; `key` is the trial's; see `cycle.advance` for the rest."""
        self.setup, self.key, self.number = setup, key, state.cycle
        self.steps_per_call = steps_per_call
        # L and its labels stay as they are until the next cycle, whatever is labelled meanwhile.
        self.labelled = state.labelled
        self.labels = np.where(self.labelled, state.labels, -1).astype(np.int32)
        self.train = setup.with_labels(self.labels)
        self.unlabelled = setup.unlabelled(self.labelled)
        self._has_inference = np.zeros(setup.size, bool)
        self.inferred = Inference(None, None)

    def end_report(self, stage: str, end: StageEnd) -> StageReport:
        """Report of the end of a stage."""
        return StageReport(
            self.number,
            stage,
            0,
            end.metrics,
            stage_ended=True,
            labelled=int(self.labelled.sum()),
            details=end.details,
        )

    def call_report(self, stage: str, step: int = 0) -> StageReport:
        """Report of a device call without metrics."""
        return StageReport(self.number, stage, step, {})

    @functools.cached_property
    def subset(self) -> np.ndarray:
        """Images that may be picked and are scored, `[M]` sorted indices."""
        key = derive(self.key, Stream.SUBSET, self.number)
        return plans.subset(key, self.setup.candidates(self.labelled), self.setup.config.subset)

    def mask(self, indices: np.ndarray) -> np.ndarray:
        """Mask that is True at `indices`: bool `[N]`."""
        mask = np.zeros(self.setup.size, bool)
        mask[indices] = True
        return mask

    def values(self, state: LoopState, stage: str, indices: np.ndarray) -> Calls[Scored]:
        """Scores the images `indices [n]`: `-> Scored [n, ...]`."""
        scored, done = Scored(None, None), 0

        def add(part: Scored) -> None:
            nonlocal scored, done
            if not done:
                rows = lambda x: memory.host_array((len(indices), *x.shape[1:]), x.dtype)
                scored = jax.tree.map(rows, part)
            now = slice(done, done + len(jax.tree.leaves(part)[0]))
            jax.tree.map(lambda whole, new: whole.__setitem__(now, new), scored, part)
            done = now.stop

        yield from self.score(state, stage, indices, add)
        return scored

    def score(
        self, state: LoopState, stage: str, indices: np.ndarray, add: Callable[[Scored], None]
    ) -> Calls[None]:
        """Scores the images `indices [n]` and hands the parts, some images each, to `add`.

        Raises ValueFault at the end where values are not finite.
        """
        yield from self.infer(state, stage, self.mask(indices))
        setup, done = self.setup, 0
        bad: dict[str, np.ndarray] = {}
        key = derive(self.key, Stream.VALUES, self.number)
        assert state.learner is not None
        variables = ScoreVariables(state.learner, state.adversary, setup.train.normalise, key)
        train = setup.train
        candidates = PoolExample(train.images, self.numbers, self.inferred, train.thumbnails)
        for part in setup.programs.values(variables, candidates, indices):
            add(part)
            for path, leaf in jax.tree_util.tree_leaves_with_path(part):
                finite = np.isfinite(leaf).reshape(len(leaf), -1).all(1)
                if not finite.all():
                    name = jax.tree_util.keystr(path)[1:]
                    now = indices[done : done + len(leaf)][~finite]
                    bad[name] = np.concatenate([bad.get(name, now[:0]), now])
            done += len(jax.tree.leaves(part)[0])
            yield state, self.call_report(stage, state.step)
        for name, numbers in bad.items():
            raise ValueFault(
                f"{name} of {len(numbers)} of {len(indices)} images is not finite, first of the"
                f" image with index {numbers[0]}"
            )

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        """Index of each training image, int32 `[N]`, where the images are."""
        return self.setup.place_beside_images(np.arange(self.setup.size, dtype=np.int32))

    def infer(self, state: LoopState, stage: str, wanted: np.ndarray) -> Calls[None]:
        """Adds inference for the images of a mask to `self.inferred`, once per image and cycle."""
        indices, setup = np.flatnonzero(wanted & ~self._has_inference), self.setup
        if not setup.programs.needs_inference or not len(indices):
            return
        assert state.learner is not None
        variables, done = TaskVariables(state.learner, setup.train.normalise), 0
        found = jax.tree.map(np.array, self.inferred)
        for part in setup.programs.infer(variables, setup.train.images, indices):
            if not jax.tree.leaves(found):
                blank = lambda x: np.zeros((setup.size, *x.shape[1:]), x.dtype)
                found = jax.tree.map(blank, part)
            now = indices[done : done + len(jax.tree.leaves(part)[0])]
            jax.tree.map(lambda whole, new, now=now: whole.__setitem__(now, new), found, part)
            done += len(now)
            yield state, self.call_report(stage, state.step)
        self._has_inference |= wanted
        self.inferred = self.setup.place_beside_images(found)
