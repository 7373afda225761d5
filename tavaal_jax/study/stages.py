"""What each stage of a cycle does: train, evaluate, select, label, diagnose.

Stages are generators without I/O or clock; they yield after every call to the devices.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm import picks as picking
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine import spread
from tavaal_jax.engine.programs import Candidate, Inspected, Valued
from tavaal_jax.study import diagnosis, training
from tavaal_jax.study.call import Report
from tavaal_jax.study.setup import Setup


class ValueFault(Exception):
    """A method's values or picks are not what they must be."""


class Cycle:
    """One cycle of a trial: its stages, and what they share."""

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
        self.inspected = Inspected(None, None)

    def run(self, stage: str, state: LoopState):
        """One stage, as a generator like `advance`; returns `state, metrics, details`."""
        stages: dict[str, Callable] = {
            "evaluate": self._evaluate, "select": self._select, "label": self._label,
            "diagnose": functools.partial(diagnosis.diagnose, self),
        }  # fmt: skip
        return stages.get(stage, functools.partial(training.train, self, stage))(state)

    def report(self, stage: str, metrics: dict[str, Any], details: Any) -> Report:
        """Of the end of a stage."""
        labelled = int(self.labelled.sum())
        return Report(
            self.number, stage, 0, metrics, stage_ended=True, labelled=labelled, details=details
        )

    def passed(self, stage: str, step: int = 0) -> Report:
        """Of a call that has no figures yet."""
        return Report(self.number, stage, step, {})

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

    # Evaluate

    def _evaluate(self, state):
        """Metrics of T on the whole test set."""
        problem, test = self.setup.problem, self.setup.test
        sizes = state.counts.copy()
        sizes[self.number] = self.labelled.sum()
        if not len(test.images):
            return state.replace(counts=sizes), {}, None
        examples = Example(test.images, test.labels)
        variables = (state.learner, test.normalise)
        indices = np.arange(len(test.images))
        counts = []
        for part in self.setup.programs.evaluate(variables, examples, indices):
            counts.append(part.sum(0, dtype=np.int64))
            yield state, self.passed("evaluate")
        figures = problem.summarise(np.sum(counts, axis=0))
        results = state.results.copy()
        results[self.number] = figures
        metrics = dict(zip(problem.metrics, figures.tolist(), strict=True))
        by_class = problem.by_class(np.sum(counts, axis=0))
        details = None if by_class is None else {"by_class": by_class}
        return state.replace(results=results, counts=sizes), metrics, details

    # Select

    def _select(self, state):
        """Picks from the subset: a request, no label yet."""
        method = self.setup.method
        count = min(self.setup.config.budget, len(self.subset))
        key = derive(self.key, Stream.PICKS, self.number)
        if method.pick in picking.BY_PARTS:
            best = picking.Best(method.pick, count, key)
            yield from self._score(state, "select", self.subset, lambda v: best.add(v.value))
            positions, scores = best.picks()
        else:
            valued = yield from self.values(state, "select", self.subset)
            labelled_values = None
            if method.compares:
                labelled = np.flatnonzero(self.labelled)
                labelled_values = (yield from self.values(state, "select", labelled)).value
            pick = spread.pick(method.pick)
            positions, scores = pick(valued.value, count, key, labelled_values)
        self._check_picks(positions, scores, count)
        picks = self.subset[positions]
        picked_in, rank, score = (
            x.copy() for x in (state.picked_in, state.pick_rank, state.pick_score)
        )
        picked_in[picks] = self.number
        rank[picks] = np.arange(len(picks))
        score[picks] = scores
        state = state.replace(picked_in=picked_in, pick_rank=rank, pick_score=score)
        metrics = {"first_score": scores[0], "last_score": scores[-1]} if len(scores) else {}
        return state, metrics, None

    def values(self, state, stage, indices):
        """What the method picks by, of the images `indices [n]`: `Valued [n, ...]`."""
        parts: list[Valued] = []
        yield from self._score(state, stage, indices, parts.append)
        valued: Valued = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
        return valued

    def _score(self, state, stage, indices, add):
        """The same, some at a time: `add(Valued)`."""
        yield from self.inspect(state, stage, self.mask(indices))
        setup, done = self.setup, 0
        bad: dict[str, np.ndarray] = {}
        key = derive(self.key, Stream.VALUES, self.number)
        variables = (state.learner, state.adversary, setup.train.normalise, key)
        train = setup.train
        candidates = Candidate(train.images, self._numbers, self.inspected, train.thumbnails)
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
    def _numbers(self):
        return self.setup.hold(np.arange(self.setup.size))

    def _check_picks(self, positions, scores, count):
        shape = (count,)
        if np.shape(positions) != shape or np.shape(scores) != shape:
            raise ValueFault(
                f"its pick gave {np.shape(positions)} positions and {np.shape(scores)} scores for a"
                f" request of {count}"
            )
        if count and (np.min(positions) < 0 or np.max(positions) >= len(self.subset)):
            raise ValueFault(f"its pick chose a position outside of 0 to {len(self.subset) - 1}")
        if len(np.unique(positions)) < count:
            raise ValueFault("its pick chose an image twice")
        if not np.isfinite(scores).all():
            raise ValueFault("its pick gave a score that is not finite")

    def inspect(self, state, stage, met):
        """Passes each image of the mask `met` through T and R, once per cycle."""
        indices, setup = np.flatnonzero(met & ~self._met), self.setup
        if not setup.programs.asks or not len(indices):
            return
        variables, done = (state.learner, setup.train.normalise), 0
        found = jax.tree.map(np.array, self.inspected)
        for part in setup.programs.inspect(variables, setup.train.images, indices):
            if not jax.tree.leaves(found):
                blank = lambda x: np.zeros((setup.size, *x.shape[1:]), x.dtype)
                found = jax.tree.map(blank, part)
            now = indices[done : done + len(jax.tree.leaves(part)[0])]
            jax.tree.map(lambda whole, new, now=now: whole.__setitem__(now, new), found, part)
            done += len(now)
            yield state, self.passed(stage, state.step)
        self._met |= met
        self.inspected = self.setup.hold(found)

    # Label

    def _label(self, state):
        """Asks the oracle for this cycle's picks; an image joins L when its label has come."""
        yield from ()  # A stage is a generator.
        picks = np.flatnonzero(state.picked_in == self.number)
        answers = self.setup.oracle.answer(picks)
        labels, labelled_in = state.labels.copy(), state.labelled_in.copy()
        labels[picks] = answers
        labelled_in[picks[answers >= 0]] = self.number + 1
        metrics = {"asked": len(picks), "answered": int((answers >= 0).sum())}
        return state.replace(labels=labels, labelled_in=labelled_in), metrics, None
