"""What the stages of a cycle share: its pools, what T and R infer, values; and what they report."""

import dataclasses
import functools
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine.programs import Inference, PoolExample, Scored
from tavaal_jax.study.setup import Setup


class ValueFault(Exception):
    """A method's values or picks are not what they must be."""


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What the yielded state has just come from."""

    cycle: int
    stage: str
    step: int
    """Finished steps of the stage."""
    metrics: dict[str, Any]
    """A number per metric; for a training call a buffer on the devices, see :meth:`values`."""
    count: int = 0
    """Steps that a training call ran."""
    stage_ended: bool = False
    agree: jax.Array | bool = True
    """Whether all devices hold the same state, for `devices.check_agreement`."""
    labelled: int = 0
    """Size of L."""
    waited: float = 0.0
    """Seconds for which reading examples has held up the call."""
    details: dict[str, np.ndarray] | None = None
    """Arrays behind the metrics of a diagnosis, for a file of their own."""

    def is_ready(self) -> bool:
        """Whether the call it came from is done."""
        arrays = (x for x in jax.tree.leaves(self.metrics) if isinstance(x, jax.Array))
        return all(x.is_ready() for x in arrays)  # type: ignore[attr-defined]

    def values(self) -> dict[str, np.ndarray]:
        """The metrics in host memory, `[]` or one entry per step run `[count]`; waits for them."""
        metrics = {k: np.asarray(v) for k, v in jax.device_get(self.metrics).items()}
        return {k: v[: self.count] for k, v in metrics.items()} if self.count else metrics


Stage = Generator[tuple[LoopState, StageReport], None, tuple[LoopState, dict[str, Any], Any]]
"""Yields after every call to the devices; returns the state, metrics and details of its end."""


class Cycle:
    """One cycle of a trial: what its stages share."""

    def __init__(
        self, setup: Setup, key: jax.Array, state: LoopState, steps_per_call: Callable[[str], int]
    ):
        """`state` is any of this cycle; `key` is the trial's."""
        self.setup, self.key, self.number = setup, key, state.cycle
        self.steps_per_call = steps_per_call
        # L and its labels stay as they are until the next cycle, whatever is labelled meanwhile.
        self.labelled = state.labelled
        labels = np.where(self.labelled, state.labels, -1).astype(np.int32)
        self.train = setup.with_labels(labels)
        self.unlabelled = setup.unlabelled(self.labelled)
        self._met = np.zeros(setup.size, bool)
        self.inferred = Inference(None, None)

    def report(self, stage: str, metrics: dict[str, Any], details: Any) -> StageReport:
        """Of the end of a stage."""
        labelled = int(self.labelled.sum())
        return StageReport(
            self.number, stage, 0, metrics, stage_ended=True, labelled=labelled, details=details
        )

    def passed(self, stage: str, step: int = 0) -> StageReport:
        """Of a call that has no figures yet."""
        return StageReport(self.number, stage, step, {})

    @functools.cached_property
    def subset(self) -> np.ndarray:
        """The unlabelled images that are scored, `[M]` sorted indices."""
        key = derive(self.key, Stream.SUBSET, self.number)
        return plans.subset(key, self.unlabelled, self.setup.config.subset)

    def mask(self, indices: np.ndarray) -> np.ndarray:
        """True at `indices`, bool `[N]`."""
        mask = np.zeros(self.setup.size, bool)
        mask[indices] = True
        return mask

    def values(self, state, stage, indices):
        """What the method picks by, of the images `indices [n]`: `Valued [n, ...]`."""
        parts: list[Scored] = []
        yield from self.score(state, stage, indices, parts.append)
        valued: Scored = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
        return valued

    def score(self, state, stage, indices, add):
        """The same, some at a time: `add(Valued)`."""
        yield from self.infer(state, stage, self.mask(indices))
        setup, done = self.setup, 0
        bad: dict[str, np.ndarray] = {}
        key = derive(self.key, Stream.VALUES, self.number)
        variables = (state.learner, state.adversary, setup.train.normalise, key)
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
            yield state, self.passed(stage, state.step)
        for name, numbers in bad.items():
            raise ValueFault(
                f"{name} of {len(numbers)} of {len(indices)} images is not finite, first of the"
                f" image with index {numbers[0]}"
            )

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        """Index of each training image, `[N]`."""
        return self.setup.hold(np.arange(self.setup.size))

    def infer(self, state, stage, met):
        """Passes each image of the mask `met` through T and R, once per cycle."""
        indices, setup = np.flatnonzero(met & ~self._met), self.setup
        if not setup.programs.needs_inference or not len(indices):
            return
        variables, done = (state.learner, setup.train.normalise), 0
        found = jax.tree.map(np.array, self.inferred)
        for part in setup.programs.infer(variables, setup.train.images, indices):
            if not jax.tree.leaves(found):
                blank = lambda x: np.zeros((setup.size, *x.shape[1:]), x.dtype)
                found = jax.tree.map(blank, part)
            now = indices[done : done + len(jax.tree.leaves(part)[0])]
            jax.tree.map(lambda whole, new, now=now: whole.__setitem__(now, new), found, part)
            done += len(now)
            yield state, self.passed(stage, state.step)
        self._met |= met
        self.inferred = self.setup.hold(found)
