"""What each stage of a cycle does: train, evaluate, select, label, diagnose.

Stages are generators without I/O or clock; they yield after every call to the devices.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm import optim, values
from tavaal_jax.algorithm.state import Example, LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine import devices
from tavaal_jax.engine.programs import Candidate, Inspected, Valued
from tavaal_jax.report import diagnostics
from tavaal_jax.study.setup import Setup


class ValueFault(Exception):
    """A method's values or picks are not what they must be."""


@dataclasses.dataclass(frozen=True)
class Report:
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


def stage_steps(config: Any, size: int, labelled: int, stage: str) -> int:
    """Training steps of a stage with `labelled` of `size` images in L; 0 for other stages."""
    if stage in ("task", "joint"):
        return config.epochs * (labelled // config.batch_size)
    if stage == "adversary":
        subset = min(config.subset or size, size - labelled)
        return max(1, (labelled + subset) * config.vae.epochs // config.batch_size)
    return 0


class Cycle:
    """One cycle of a trial: its stages, and what they share."""

    def __init__(
        self, setup: Setup, key: jax.Array, state: LoopState, steps_per_call: Callable[[str], int]
    ):
        """`state` is any of this cycle; `key` is the trial's."""
        self.setup, self.key, self.number = setup, key, state.cycle
        self._steps_per_call = steps_per_call
        # L and its labels stay as they are until the next cycle, whatever is labelled meanwhile.
        self._labelled = state.labelled
        labels = np.where(self._labelled, state.labels, -1).astype(np.int32)
        self._train = setup.train.replace(labels=devices.place(labels))
        self._met = np.zeros(setup.size, bool)
        self._inspected = Inspected(None, None)

    def run(self, stage: str, state: LoopState):
        """One stage, as a generator like `advance`; returns `state, metrics, details`."""
        run = {
            "evaluate": self._evaluate, "select": self._select, "label": self._label,
            "diagnose": self._diagnose,
        }.get(stage, functools.partial(self._fit, stage))  # fmt: skip
        return run(state)

    def report(self, stage: str, metrics: dict[str, Any], details: Any) -> Report:
        """Of the end of a stage."""
        labelled = int(self._labelled.sum())
        return Report(
            self.number, stage, 0, metrics, stage_ended=True, labelled=labelled, details=details
        )

    @functools.cached_property
    def subset(self) -> np.ndarray:
        """The unlabelled images that are scored, `[M]` sorted indices."""
        key = derive(self.key, Stream.SUBSET, self.number)
        return plans.subset(key, self._labelled, self.setup.config.subset)

    def _mask(self, indices):
        mask = np.zeros(self.setup.size, bool)
        mask[indices] = True
        return mask

    # Train

    def _fit(self, stage, state):
        """Runs the steps that a training stage still lacks."""
        config, told = self.setup.config, None
        if stage == "adversary":
            yield from self._inspect(state, stage, self._labelled | self._adversary_pool())
            told = self._inspected.told
        labelled, unlabelled, more = self._streams(stage)
        total = stage_steps(config, self.setup.size, int(self._labelled.sum()), stage)
        key = derive(self.key, Stream.TRAINING, self.number)
        networks = _networks(stage, state)
        while state.step < total:
            first = state.step
            count = min(
                self._steps_per_call(stage),
                config.steps_per_call,
                total - first,
                config.log_every_steps - first % config.log_every_steps,
                config.checkpoint_every_steps - first % config.checkpoint_every_steps,
            )
            positions = np.tile(np.arange(config.batch_size, dtype=np.int32), (count, 1))
            plan = plans.Plan(
                labelled.rows(first, count),
                None if unlabelled is None else unlabelled.rows(first, count),
                positions,
                more(first, count),
            )
            schedule = optim.schedule(config, first, count, labelled.steps_per_pass)
            fill = lambda rows: np.resize(rows, (config.steps_per_call, *rows.shape[1:]))
            schedule, plan = jax.tree.map(fill, (schedule, plan))
            networks, metrics, agree = self.setup.programs.train[stage](
                networks, (self._train, told), key, schedule, plan, count
            )
            state = state.replace(step=first + count, **_as_fields(stage, networks))
            yield state, Report(self.number, stage, state.step, metrics, count, agree=agree)
        return state, {}, None

    def _streams(self, stage):
        """Batches of L, of U where the stage sees it, and of both for further updates."""
        size, updates = self.setup.config.batch_size, self.setup.config.vae.updates
        once = lambda first, count: None

        def of_pool(stream, pool, *numbers):
            key = derive(self.key, stream, self.number, *numbers)
            return plans.IndexStream(key, pool, size)

        labelled = of_pool(Stream.LABELLED_ORDER, self._labelled)
        if stage == "task":
            return labelled, None, once
        pool = self._adversary_pool()
        unlabelled = of_pool(Stream.UNLABELLED_ORDER, pool)
        if stage == "adversary" or updates == 1:
            return labelled, unlabelled, once
        others = of_pool(Stream.UPDATES, self._labelled, 0), of_pool(Stream.UPDATES, pool, 1)
        more = lambda first, count: plans.More(
            *(stream.groups(first, count, updates - 1) for stream in others)
        )
        return labelled, unlabelled, more

    def _adversary_pool(self):
        """Mask of the unlabelled images that the adversary trains on, bool `[N]`."""
        if self.setup.config.vae.unlabelled == "all":
            return ~self._labelled
        return self._mask(self.subset)

    # Evaluate

    def _evaluate(self, state):
        """Metrics of T on the whole test set."""
        problem, test = self.setup.problem, self.setup.test
        examples = Example(test.images, test.labels)
        variables = (state.learner, test.normalise)
        indices = np.arange(len(test.images))
        counts = []
        for part in self.setup.programs.evaluate(variables, examples, indices):
            counts.append(part.sum(0, dtype=np.int64))
            yield state, Report(self.number, "evaluate", 0, {})
        figures = problem.summarise(np.sum(counts, axis=0))
        results, sizes = state.results.copy(), state.counts.copy()
        results[self.number], sizes[self.number] = figures, self._labelled.sum()
        metrics = dict(zip(problem.metrics, figures.tolist(), strict=True))
        return state.replace(results=results, counts=sizes), metrics, None

    # Select

    def _select(self, state):
        """Picks from the subset: a request, no label yet."""
        method = self.setup.method
        valued = yield from self._values(state, "select", self.subset)
        labelled_values = None
        if method.compares:
            labelled = np.flatnonzero(self._labelled)
            labelled_values = (yield from self._values(state, "select", labelled)).value
        count = min(self.setup.config.budget, len(self.subset))
        key = derive(self.key, Stream.PICKS, self.number)
        positions, scores = method.pick(valued.value, count, key, labelled_values)
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

    def _values(self, state, stage, indices):
        """What the method picks by, of the images `indices [n]`: `Valued [n, ...]`."""
        yield from self._inspect(state, stage, self._mask(indices))
        setup = self.setup
        key = derive(self.key, Stream.VALUES, self.number)
        variables = (state.learner, state.adversary, setup.train.normalise, key)
        candidates = Candidate(setup.train.images, self._numbers, self._inspected)
        parts = []
        for part in setup.programs.values(variables, candidates, indices):
            parts.append(part)
            yield state, Report(self.number, stage, state.step, {})
        valued: Valued = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
        for path, leaf in jax.tree_util.tree_leaves_with_path(valued):
            if not np.isfinite(leaf).all():
                bad = indices[~np.isfinite(leaf).reshape(len(leaf), -1).all(1)]
                name = jax.tree_util.keystr(path)
                raise ValueFault(
                    f"{name[1:]} of {len(bad)} of {len(indices)} images is not finite, first of the"
                    f" image with index {bad[0]}"
                )
        return valued

    @functools.cached_property
    def _numbers(self):
        return devices.place(np.arange(self.setup.size))

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

    def _inspect(self, state, stage, met):
        """Passes each image of the mask `met` through T and R, once per cycle."""
        indices, setup = np.flatnonzero(met & ~self._met), self.setup
        if not setup.programs.asks or not len(indices):
            return
        variables, done = (state.learner, setup.train.normalise), 0
        found = jax.tree.map(np.array, self._inspected)
        for part in setup.programs.inspect(variables, setup.train.images, indices):
            if not jax.tree.leaves(found):
                blank = lambda x: np.zeros((setup.size, *x.shape[1:]), x.dtype)
                found = jax.tree.map(blank, part)
            now = indices[done : done + len(jax.tree.leaves(part)[0])]
            jax.tree.map(lambda whole, new, now=now: whole.__setitem__(now, new), found, part)
            done += len(now)
            yield state, Report(self.number, stage, state.step, {})
        self._met |= met
        self._inspected = devices.place(found)

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

    # Diagnose

    def _diagnose(self, state):
        """What the true labels say of the picks of this cycle: figures, and arrays behind them."""
        setup, subset = self.setup, self.subset
        picked, labelled = state.picked_in[subset] == self.number, np.flatnonzero(self._labelled)
        true = setup.oracle.reveal(subset)
        if true is None:
            return state, {}, None
        # After an interruption nothing of what was asked for picking is at hand.
        yield from self._inspect(state, "diagnose", self._mask(subset))
        losses = yield from self._losses(state, true)
        arrays = {
            "index": subset,
            "rank": np.where(picked, state.pick_rank[subset], -1),
            "loss": losses,
        }
        labelled_logits = None
        if setup.method.adversary is not None:
            both = np.concatenate([labelled, subset])
            logits = (yield from self._values(state, "diagnose", both)).score
            labelled_logits, arrays["logit"] = np.split(logits, [len(labelled)])
        if self._inspected.predicted is not None:
            arrays["predicted"] = np.asarray(self._inspected.predicted)[subset]
        key = derive(self.key, Stream.VALUES, self.number)
        choice = diagnostics.Choice(
            subset, picked, losses, arrays.get("predicted"), arrays.get("logit"), labelled_logits,
            np.asarray(values.uniform_pool(key, setup.size))[subset],
        )  # fmt: skip
        metrics = diagnostics.of_choice(choice, true, state.labels[labelled])
        metrics |= {"labelled": len(labelled), "picks": int(picked.sum())}
        details = {**arrays, "labelled": labelled}
        if setup.plane is not None:
            plane, figures = self._plane(setup.plane, state, subset[picked])
            metrics, details = metrics | figures, {**details, **plane._asdict()}
        return state, metrics, details

    def _losses(self, state, true):
        """True losses of the subset, `[M]`: the only place where the subset meets its labels."""
        labels = np.full(self.setup.size, -1, np.int32)
        labels[self.subset] = true
        examples = Example(self.setup.train.images, devices.place(labels))
        variables, parts = (state.learner, self.setup.train.normalise), []
        for part in self.setup.programs.losses(variables, examples, self.subset):
            parts.append(part)
            yield state, Report(self.number, "diagnose", 0, {})
        return np.concatenate(parts)

    def _plane(self, plane, state, picks):
        """T's decision on the grid, and what Figure 1 says of the picks."""
        setup = self.setup
        found = setup.programs.classify(state.learner, setup.train.normalise, plane.points)
        plane = plane._replace(classes=np.asarray(found, np.int32).reshape(plane.classes.shape))
        return plane, diagnostics.of_plane(plane, np.asarray(setup.train.images)[picks])


def _networks(stage, state):
    both = (state.learner, state.adversary)
    return {"task": state.learner, "adversary": state.adversary, "joint": both}[stage]


def _as_fields(stage, networks):
    if stage == "joint":
        return {"learner": networks[0], "adversary": networks[1]}
    return {"learner": networks} if stage == "task" else {"adversary": networks}
