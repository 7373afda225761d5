"""One run of one method: cycles of train, evaluate, score, pick, label, as a generator over
LoopState.

It holds no I/O and no clock: what it yields is written, shown and saved by `study` and
`checkpoints`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from tavaal_jax import acquisition, diagnostics, optim, parallel, task
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


def stages(config, method: Method, cycle: int) -> tuple[str, ...]:
    """Names of a cycle's stages. The last cycle picks nothing and so trains no VAE."""
    if cycle == config.cycles - 1:
        return ("task", "evaluate")
    last = ("select", "diagnose") if config.diagnostics else ("select",)
    if method.adversary is None:
        return ("task", "evaluate", *last)
    if config.schedule == "joint":
        return ("joint", "evaluate", *last)
    return ("task", "evaluate", "adversary", *last)


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
    inspected = None  # of the cycle under way, once T and R are trained
    while not is_finished(run, state):
        names = stages(run.config, run.method, state.cycle)
        if state.stage == 0 and state.step == 0:
            state = state.replace(
                **parallel.place(run.programs["init"](run.train, key, state.cycle))
            )
        name = names[state.stage]
        cycle = state.cycle
        details = None
        if _needs_inspection(run, name):
            inspected = yield from _inspect(run, key, state, name, inspected)
        if name == "evaluate":
            state, metrics = yield from _evaluate(run, state)
        elif name == "select":
            state, metrics = yield from _select(run, key, state, inspected)
        elif name == "diagnose":
            metrics, details = yield from _diagnose(run, key, state, inspected)
        else:
            state, metrics = yield from _train(run, key, state, name, steps_per_call, inspected)
        if state.stage + 1 < len(names):
            state = state.replace(stage=state.stage + 1, step=0)
        else:
            state = state.replace(cycle=cycle + 1, stage=0, step=0)
            inspected = None
        yield state, Report(cycle, name, 0, metrics, stage_ended=True, details=details)


# Stages


def _train(run, key, state, stage, steps_per_call, inspected):
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
    # The last cycle of a joint schedule runs its program without the adversary.
    joint = run.method.adversary is not None and config.schedule == "joint"
    program = "joint" if joint else stage
    networks = _networks(program, state)
    data = (run.train, _predicted(inspected))
    while state.step < total:
        first = state.step
        count = min(
            steps_per_call(stage),
            config.steps_per_call,
            total - first,
            config.log_every_steps - first % config.log_every_steps,
            config.checkpoint_every_steps - first % config.checkpoint_every_steps,
        )
        shared = _shared_rows(config, first, count, labelled.steps_per_pass, stage == "joint")
        batches = {"labelled": labelled.rows(first, count)}
        if program != "task":
            rows = batches["labelled"] if unlabelled is None else unlabelled.rows(first, count)
            batches["unlabelled"] = rows
        batches["positions"] = np.tile(np.arange(config.batch_size, dtype=np.int32), (count, 1))
        fill = lambda rows: np.resize(rows, (config.steps_per_call, *rows.shape[1:]))
        shared, batches = jax.tree.map(fill, (shared, batches))
        networks, metrics, agree = run.programs[program](
            networks, data, stage_key, shared, batches, count
        )
        if stage == "task":
            metrics = {name: metrics[name] for name in task.METRICS if name in metrics}
        state = state.replace(step=first + count, **_as_fields(program, networks))
        yield state, Report(cycle, stage, state.step, metrics, count, agree=agree)
    return state, {}


def _shared_rows(config, first, count, steps_per_epoch, adversary=True):
    """What changes from step to step and is the same for all devices: dict of arrays `[count]`;
    `adversary` says whether VAE and D of the joint program train."""
    step = np.arange(first, first + count, dtype=np.int32)
    progress = (step // steps_per_epoch) / config.epochs
    return {
        "step": step,
        "learning_rate": optim.decayed(config.task, progress),
        "ranker_active": progress < config.ranker.until_fraction,
        "first_epoch": step < steps_per_epoch,
        "adversary": np.full(count, adversary),
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


def _select(run, key, state, inspected):
    """Picks from the subset and labels the picks."""
    indices = plans.subset(key, state.cycle, state.labelled, run.config.subset)
    values = yield from _values(run, key, state, "select", indices, inspected)
    labelled_values = None
    if run.method.looks_at_labelled:
        labelled = np.flatnonzero(state.labelled)
        labelled_values = yield from _values(run, key, state, "select", labelled, inspected)
    positions, scores = run.method.choose(values, labelled_values, indices, run.config.budget)
    picks = indices[positions]
    labelled_in, rank, score = (
        state.labelled_in.copy(), state.pick_rank.copy(), state.pick_score.copy()
    )  # fmt: skip
    labelled_in[picks] = state.cycle + 1
    rank[picks] = np.arange(len(picks))
    score[picks] = scores
    state = state.replace(labelled_in=labelled_in, pick_rank=rank, pick_score=score)
    return state, {"first_score": scores[0], "last_score": scores[-1]}


def _values(run, key, state, stage, indices, inspected):
    """What the method picks by, of the images `indices`: `[n]` or `[n, E]`."""
    keys_of = derive(key, Stream.ACQUISITION, state.cycle)
    variables = (state.task, state.vaal, run.train.replace(images=None, labels=None), keys_of)
    predicted = _predicted(inspected)
    pool = run.pool if predicted is None else {**run.pool, "predicted": predicted}
    parts = []
    for part in run.programs["value"](variables, pool, indices):
        parts.append(part)
        yield state, Report(state.cycle, stage, state.step, {})
    return np.concatenate(parts)


def _diagnose(run, key, state, inspected):
    """What the true labels say of the picks of this cycle: figures, and the arrays behind them."""
    indices = plans.subset(key, state.cycle, state.labelled, run.config.subset)
    picked = state.labelled_in[indices] == state.cycle + 1
    uniform = acquisition.uniform_values(derive(key, Stream.ACQUISITION, state.cycle), run.size)
    of_subset = {
        "index": indices,
        "rank": np.where(picked, state.pick_rank[indices], -1),
        "loss": inspected.losses[indices],
    }
    labelled = np.flatnonzero(state.labelled)
    labelled_logits = None
    if run.method.ranking_loss is not None:
        of_subset["predicted"] = np.asarray(inspected.predicted)[indices]
    if run.method.value is acquisition.discriminator:
        both = np.concatenate([labelled, indices])
        logits = yield from _values(run, key, state, "diagnose", both, inspected)
        labelled_logits, of_subset["logit"] = np.split(logits, [len(labelled)])
    choice = diagnostics.Choice(
        indices, picked, of_subset["loss"], of_subset.get("predicted"), of_subset.get("logit"),
        labelled_logits, np.asarray(uniform)[indices],
    )  # fmt: skip
    metrics = diagnostics.of_choice(choice, run.labels, state.labelled)
    details = {**of_subset, "labelled": labelled}
    if run.plane is None:
        return metrics, details
    variables = (state.task, run.train.replace(images=None, labels=None))
    points = run.plane.points
    classes = np.asarray(run.programs["classify"](variables, points), np.int32)
    plane = run.plane._replace(classes=classes.reshape(run.plane.classes.shape))
    picks = np.asarray(run.train.images[indices[picked]])
    metrics |= diagnostics.of_plane(plane, picks)
    return metrics, {**details, **plane._asdict()}


def _adversary_pool(run, key, state):
    """Mask of the unlabelled images that the VAE trains on."""
    unlabelled = ~state.labelled
    if run.config.vae.unlabelled == "all":
        return unlabelled
    mask = np.zeros(run.size, bool)
    mask[plans.subset(key, state.cycle, state.labelled, run.config.subset)] = True
    return mask


class _Inspected(NamedTuple):
    """What T and R make of the images that the rest of a cycle meets; they change no more."""

    losses: np.ndarray
    """True losses, float32 `[N]`, NaN where not inspected: for diagnostics only."""
    predicted: jax.Array | None
    """R(x), float32 `[N]` on the devices; None for a method without a Ranker."""


def _predicted(inspected):
    return None if inspected is None else inspected.predicted


def _needs_inspection(run, stage):
    ranked = run.method.ranking_loss is not None
    return stage == "diagnose" or (ranked and stage in ("adversary", "select"))


def _inspect(run, key, state, stage, before=None):
    """Passes each image that this stage meets, and none did `before`, through T and R."""
    method, config = run.method, run.config
    met = np.zeros(run.size, bool)
    met[plans.subset(key, state.cycle, state.labelled, config.subset)] = True
    if method.ranking_loss is not None and method.adversary is not None:
        if config.schedule == "two_phase":
            met |= state.labelled | _adversary_pool(run, key, state)
        elif stage == "diagnose":
            met |= state.labelled
    losses, predicted = np.full(run.size, np.nan, np.float32), np.zeros(run.size, np.float32)
    if before is not None:
        losses, met = before.losses, met & np.isnan(before.losses)
        predicted = predicted if before.predicted is None else np.array(before.predicted)
    if not met.any():
        return before
    indices = np.flatnonzero(met)
    variables = (state.task, run.train.replace(images=None, labels=None))
    done = 0
    for part in run.programs["inspect"](variables, run.pool, indices):
        now = indices[done : done + len(part["loss"])]
        losses[now], predicted[now] = part["loss"], part.get("predicted", 0.0)
        done += len(now)
        yield state, Report(state.cycle, stage, state.step, {})
    return _Inspected(losses, None if method.ranking_loss is None else parallel.place(predicted))


def _networks(stage, state):
    return {"task": state.task, "adversary": state.vaal, "joint": (state.task, state.vaal)}[stage]


def _as_fields(stage, networks):
    if stage == "joint":
        return {"task": networks[0], "vaal": networks[1]}
    return {"task": networks} if stage == "task" else {"vaal": networks}
