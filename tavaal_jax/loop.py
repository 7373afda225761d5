"""One run of one method: cycles of train, evaluate, score, pick, label, as a generator over
LoopState.

It holds no I/O and no clock: what it yields is written, shown and saved by `study` and
`checkpoints`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from tavaal_jax import acquisition, optim, parallel
from tavaal_jax.data import plans
from tavaal_jax.methods import Method
from tavaal_jax.programs import Run
from tavaal_jax.state import LoopState, Stream, derive


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
    """Whether all devices hold the same state, for `parallel.check_agreement`."""

    def is_ready(self) -> bool:
        """Whether the call it came from is done."""
        arrays = (x for x in jax.tree.leaves(self.metrics) if isinstance(x, jax.Array))
        return all(x.is_ready() for x in arrays)  # type: ignore[attr-defined]

    def values(self) -> dict[str, np.ndarray]:
        """The metrics in host memory, `[]` or one entry per step run `[count]`; waits for them."""
        metrics = {k: np.asarray(v) for k, v in jax.device_get(self.metrics).items()}
        return {k: v[: self.count] for k, v in metrics.items()} if self.count else metrics


def stages(config, method: Method, cycle: int) -> tuple[str, ...]:
    """Names of a cycle's stages. The last cycle picks nothing and so trains no VAE."""
    if cycle == config.cycles - 1:
        return ("task", "evaluate")
    if method.adversary is None:
        return ("task", "evaluate", "select")
    if config.schedule == "joint":
        return ("joint", "evaluate", "select")
    return ("task", "evaluate", "adversary", "select")


def stage_steps(config, size: int, cycle: int, stage: str) -> int:
    """Training steps of a stage with a pool of `size` images in all; 0 for one that does not
    train."""
    labelled = config.initial + cycle * config.budget
    if stage in ("task", "joint"):
        return config.epochs * (labelled // config.batch_size)
    if stage == "adversary":
        subset = min(config.subset or size, size - labelled)
        return max(1, (labelled + subset) * config.vae.epochs // config.batch_size)
    return 0


def start(run: Run, key: jax.Array) -> LoopState:
    """The state before the first step of a trial; `key` is the trial's."""
    labelled_in = plans.initial_pool(key, run.size, run.config.initial)
    networks = run.programs["init"](run.train, key, 0)
    return LoopState(
        cycle=0,
        stage=0,
        step=0,
        labelled_in=labelled_in,
        pick_rank=np.full(run.size, -1, np.int32),
        pick_score=np.zeros(run.size, np.float32),
        results=np.full((run.config.cycles, len(run.problem.metrics)), np.nan, np.float32),
        **parallel.place(networks),
    )


def is_finished(run: Run, state: LoopState) -> bool:
    """Whether all cycles are done."""
    return state.cycle == run.config.cycles


def advance(
    run: Run, key: jax.Array, state: LoopState, steps_per_call: Callable[[str], int]
) -> Iterator[tuple[LoopState, Report]]:
    """Continues from `state` to the end of the run; yields after every call to the devices.

    `key` is the trial's. `steps_per_call(stage)` says how many training steps the next call may
    run; it changes when there is something to yield, and nothing else. A yielded state's arrays are
    given up (donated) when the generator goes on.
    """
    predicted = None  # R(x) of the cycle under way, once T and R are trained
    while not is_finished(run, state):
        names = stages(run.config, run.method, state.cycle)
        if state.stage == 0 and state.step == 0:
            state = state.replace(
                **parallel.place(run.programs["init"](run.train, key, state.cycle))
            )
        name = names[state.stage]
        cycle = state.cycle
        if name in ("adversary", "select") and predicted is None:
            predicted = yield from _predicted_losses(run, key, state, name)
        if name == "evaluate":
            state, metrics = yield from _evaluate(run, state)
        elif name == "select":
            state, metrics = yield from _select(run, key, state, predicted)
        else:
            state, metrics = yield from _train(run, key, state, name, steps_per_call, predicted)
        if state.stage + 1 < len(names):
            state = state.replace(stage=state.stage + 1, step=0)
        else:
            state = state.replace(cycle=cycle + 1, stage=0, step=0)
            predicted = None
        yield state, Report(cycle, name, 0, metrics, stage_ended=True)


# Stages


def _train(run, key, state, stage, steps_per_call, predicted):
    """Runs the steps that a training stage still lacks."""
    config, cycle = run.config, state.cycle
    total = stage_steps(config, run.size, cycle, stage)
    stage_key = derive(key, Stream.TRAINING, cycle)
    labelled = plans.IndexStream(
        derive(key, Stream.LABELLED_ORDER, cycle), state.labelled, config.batch_size
    )
    unlabelled = None
    if stage != "task":
        order_key = derive(key, Stream.UNLABELLED_ORDER, cycle)
        pool = _adversary_pool(run, key, state)
        unlabelled = plans.IndexStream(order_key, pool, config.batch_size)
    networks = _networks(stage, state)
    data = (run.train, predicted)
    while state.step < total:
        first = state.step
        count = min(
            steps_per_call(stage),
            config.steps_per_call,
            total - first,
            config.log_every_steps - first % config.log_every_steps,
            config.checkpoint_every_steps - first % config.checkpoint_every_steps,
        )
        shared = _shared_rows(config, first, count, labelled.steps_per_pass)
        batches = {"labelled": labelled.rows(first, count)}
        if unlabelled is not None:
            batches["unlabelled"] = unlabelled.rows(first, count)
        batches["positions"] = np.tile(np.arange(config.batch_size, dtype=np.int32), (count, 1))
        fill = lambda rows: np.resize(rows, (config.steps_per_call, *rows.shape[1:]))
        shared, batches = jax.tree.map(fill, (shared, batches))
        networks, metrics, agree = run.programs[stage](
            networks, data, stage_key, shared, batches, count
        )
        state = state.replace(step=first + count, **_as_fields(stage, networks))
        yield state, Report(cycle, stage, state.step, metrics, count, agree=agree)
    return state, {}


def _shared_rows(config, first, count, steps_per_epoch):
    """What changes from step to step and is the same for all devices: dict of arrays `[count]`."""
    step = np.arange(first, first + count, dtype=np.int32)
    progress = (step // steps_per_epoch) / config.epochs
    return {
        "step": step,
        "learning_rate": optim.decayed(config.task, progress),
        "ranker_active": progress < config.ranker.until_fraction,
        "first_epoch": step < steps_per_epoch,
    }


def _evaluate(run, state):
    """Metrics of T on the whole test set."""
    counts = 0
    test = {"image": run.test.images, "label": run.test.labels}
    variables = (state.task, run.test.replace(images=None, labels=None))
    for part in run.programs["evaluate"](variables, test, np.arange(run.test_size)):
        counts = counts + part.sum(0, dtype=np.int64)
        yield state, Report(state.cycle, "evaluate", 0, {})
    values = run.problem.summarise(counts)
    results = state.results.copy()
    results[state.cycle] = values
    metrics = dict(zip(run.problem.metrics, values.tolist(), strict=True))
    return state.replace(results=results), metrics


def _select(run, key, state, predicted):
    """Scores the subset, picks from it and labels the picks."""
    indices = plans.subset(key, state.cycle, state.labelled, run.config.subset)
    keys_of = derive(key, Stream.ACQUISITION, state.cycle)
    variables = (state.task, state.vaal, run.train.replace(images=None, labels=None), keys_of)
    pool = run.pool if predicted is None else {**run.pool, "predicted": predicted}
    parts = []
    for part in run.programs["score"](variables, pool, indices):
        parts.append(part)
        yield state, Report(state.cycle, "select", 0, {})
    scores = np.concatenate(parts)
    first = acquisition.pick(scores, indices, run.config.budget, run.method.smallest_first)
    picks = indices[first]
    labelled_in, rank, score = (
        state.labelled_in.copy(), state.pick_rank.copy(), state.pick_score.copy()
    )  # fmt: skip
    labelled_in[picks] = state.cycle + 1
    rank[picks] = np.arange(len(picks))
    score[picks] = scores[first]
    state = state.replace(labelled_in=labelled_in, pick_rank=rank, pick_score=score)
    return state, {"first_score": scores[first[0]], "last_score": scores[first[-1]]}


def _adversary_pool(run, key, state):
    """Mask of the unlabelled images that the VAE trains on."""
    unlabelled = ~state.labelled
    if run.config.vae.unlabelled == "all":
        return unlabelled
    mask = np.zeros(run.size, bool)
    mask[plans.subset(key, state.cycle, state.labelled, run.config.subset)] = True
    return mask


def _predicted_losses(run, key, state, stage):
    """R(x) of all images that the rest of the cycle meets, float32 `[N]` on the devices.

    T and R change no more in this cycle, so each image passes them once. None where the method has
    no Ranker.
    """
    if run.method.ranking_loss is None:
        return None
    met = np.zeros(run.size, bool)
    met[plans.subset(key, state.cycle, state.labelled, run.config.subset)] = True
    if run.config.schedule == "two_phase" and run.method.adversary is not None:
        met |= state.labelled | _adversary_pool(run, key, state)
    predicted = np.zeros(run.size, np.float32)
    indices = np.flatnonzero(met)
    variables = (state.task, run.train.replace(images=None, labels=None))
    done = 0
    for part in run.programs["rank"](variables, {"image": run.train.images}, indices):
        predicted[indices[done : done + len(part)]] = part
        done += len(part)
        yield state, Report(state.cycle, stage, state.step, {})
    return parallel.place(predicted)


def _networks(stage, state):
    return {"task": state.task, "adversary": state.vaal, "joint": (state.task, state.vaal)}[stage]


def _as_fields(stage, networks):
    if stage == "joint":
        return {"task": networks[0], "vaal": networks[1]}
    return {"task": networks} if stage == "task" else {"vaal": networks}
