"""Reads and writes a trial's files: checkpoints, records, diagnoses; on the first process only.

`trial` drives; the recorder restores, checks reports, writes, saves and reports progress.
"""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from tavaal_jax.algorithm.state import LoopState
from tavaal_jax.engine import devices
from tavaal_jax.errors import Diverged
from tavaal_jax.report import files, records
from tavaal_jax.report.checkpoints import Checkpoints, check_finite, remove
from tavaal_jax.study import cycle, replay, training
from tavaal_jax.study.context import StageReport
from tavaal_jax.study.model import DatasetInfo, from_state
from tavaal_jax.study.setup import Setup

Observe = Callable[[str, float], None]
"""Called with the stage and the seconds of every training call."""

_SAVE_EVERY = 5.0  # seconds between saves after stages that take less time than a save may


class Recorder:
    """Writer of one trial's files; to be closed."""

    def __init__(
        self,
        setup: Setup,
        number: int,
        folder: pathlib.Path,
        info: DatasetInfo,
        track: Callable[..., None],
        on_results: Callable[[], object],
        observe: Observe,
        initial_state: Callable[[jax.Array], LoopState] | None = None,
    ):
        """`track` is a `report.progress.Tracker`; `on_results` is called for a new results.csv.

        `initial_state` makes the first state from the trial's key; None: that of a simulation.
        """
        self._setup, self._number, self._folder, self._info = setup, number, folder, info
        self._track, self._on_results, self._observe = track, on_results, observe
        self._initial_state = initial_state
        self._name = f"{setup.method.name} trial {number}"
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._log: records.Log | None = None
        self._pending: StageReport | None = None
        """A report whose call may still run: its metrics are fetched one call later."""
        self._begin = self._saved = time.monotonic()
        # Doing short stages again costs less than saving them all. People's picks are not replayed.
        self._saves_rarely = initial_state is None
        self._unlogged = self._waited = 0.0  # seconds since the last record

    # Before the first step

    def restore(self, key: jax.Array) -> LoopState:
        """Restores the state of the checkpoint, else that of picks.csv, else the initial one.

        A picks.csv that holds more cycles than the checkpoint takes precedence. `key` is the
        trial's.
        """
        setup, source = self._setup, ""
        state = self._checkpoints.restore(cycle.template(setup))
        if self._initial_state is not None:
            if state is None:
                return self._start(self._initial_state(key))
        elif state is None or replay.is_ahead(self._folder, state):
            ids = self._info.ids
            state = replay.replay(setup, key, self._folder, self._number, ids)
            source = " with the picks and results that are there"
            if state is None:
                return self._start(cycle.start(setup, key))
            self.save(state)
        text = f"continues in cycle {state.cycle}, stage {state.stage}, step {state.step}{source}"
        self._report(text, skipped=self._units_before(state))
        self._open(state)
        return state

    def _start(self, state: LoopState) -> LoopState:
        if self._setup.config.parallel not in ("trials", "ray"):
            self.save(state)  # There is a good checkpoint from the first step on.
        self._open(state)
        return state

    def _open(self, state: LoopState) -> None:
        setup = self._setup
        names = lambda number: cycle.stage_names(setup.config, setup.method, number)
        self._log = records.Log(
            self._folder / "metrics.jsonl", lambda r: is_before(r, state, names)
        )
        self._write_files(state)
        self._begin = time.monotonic()

    # Step by step

    def catch_up(self) -> None:
        """Handles the pending report, whose call has ended by now."""
        if self._pending is not None:
            self._handle(self._pending)
        self._pending = None

    def record(self, state: LoopState, report: StageReport, asked: bool) -> None:
        """Checks a report, writes and saves; `asked`: the trial will stop after this call."""
        every = self._setup.config.checkpoint_every_steps
        self._pending = report
        has_trained = report.stage_ended and report.stage in training.STEP_COST
        long_ago = time.monotonic() - self._saved > _SAVE_EVERY
        to_save = has_trained or state.cycle > report.cycle or (report.stage_ended and long_ago)
        is_due = bool(state.step and state.step % every == 0)
        to_save = to_save or is_due
        if asked or to_save or report.is_ready():
            self._handle(report)  # Nothing is saved before it was found to be finite.
            self._pending = None
        if report.stage_ended:
            if report.stage == "select":  # No picks may be ahead of the checkpoint by a cycle.
                self._checkpoints.wait()
            # Where nothing was saved, picks are what a trial goes on from: after their diagnosis.
            self._write_files(state, not self._saves_rarely or state.cycle > report.cycle)
            if report.stage == "evaluate":
                self._on_results()
        if asked or to_save:
            self.save(state, only_check=self._saves_rarely and not (asked or long_ago or is_due))
        if asked:
            self._checkpoints.wait()
        self._begin = time.monotonic() if self._pending is None else self._begin

    def _handle(self, report: StageReport) -> None:
        """Checks and logs a report; waits for the call it came from."""
        values = self._checked(report)
        now = time.monotonic()
        seconds, self._begin = now - self._begin, now
        self._unlogged += seconds
        self._waited += report.waited
        text = None
        if report.stage == "evaluate" and values:
            figures = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
            text = f"cycle {report.cycle}: {report.labelled} labelled, {figures}"
        if report.count:
            self._observe(report.stage, seconds)
        if report.count or values:
            units = report.count * training.STEP_COST.get(report.stage, 0)
            self._report(
                text, units=units, metrics=values,
                cycle=report.cycle, stage=report.stage, step=report.step,
            )  # fmt: skip
        if values:
            self._write_log(report, values)
        if report.details is None:
            return
        if report.stage == "evaluate":
            names, ious = self._info.class_names, report.details["by_class"]
            place = report.cycle, report.labelled
            records.write_class_iou(self._folder, *place, dict(zip(names, ious, strict=True)))
        else:
            path = self._folder / "diagnostics" / f"cycle_{report.cycle}.npz"
            files.write_arrays(path, report.details)

    def _checked(self, report: StageReport) -> dict[str, float]:
        """Mean of each metric over the steps of a call; raises Diverged if one is not finite."""
        devices.check_agreement(report.agree, report.stage)
        values = report.values()
        for name, value in values.items():
            if not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(np.atleast_1d(value)))[0])
                where = f"{np.atleast_1d(value)[bad]} in cycle {report.cycle}, stage {report.stage}"
                if not report.count:
                    raise Diverged(f"{self._name}: {name} is {where}", "no figure can be that")
                self._fail(f"{name} is {where}, step {report.step - value.size + bad}")
        return {name: float(value.mean(dtype=np.float64)) for name, value in values.items()}

    def save(self, state: LoopState, only_check: bool = False) -> None:
        """Saves a checkpoint, or only checks that the state is finite."""
        try:
            if only_check:
                check_finite(state)
            else:
                self._checkpoints.save(state)
                self._saved = time.monotonic()
        except FloatingPointError as error:
            self._fail(f"{error} in cycle {state.cycle}, step {state.step}", error)

    def _fail(self, what: str, cause: Exception | None = None) -> NoReturn:
        folder = self._folder / "checkpoints"
        kept = f"the last good checkpoint is kept in {folder}: " if any(folder.iterdir()) else ""
        mend = f"{kept}lower the learning rates in a new --workdir"
        raise Diverged(f"{self._name}: {what}", mend) from cause

    def _write_log(self, report: StageReport, values: Mapping[str, float]) -> None:
        assert self._log is not None
        place = {"cycle": report.cycle, "stage": report.stage, "step": report.step}
        waited = {"waited": round(self._waited, 4)} if self._waited else {}
        self._log.write({**place, **values, "seconds": round(self._unlogged, 4), **waited})
        self._unlogged = self._waited = 0.0

    def _write_files(self, state: LoopState, with_picks: bool = True) -> None:
        """Writes the trial's records, whole: functions of its state and its log."""
        assert self._log is not None
        setup, folder = self._setup, self._folder
        if setup.config.diagnostics:
            every = setup.config.log_every_steps
            records.write_diagnostics(folder, self._log.records(), state.cycle, every)
        rows = records.result_rows(state, setup.method.name, self._number, setup.problem.metrics)
        records.write_results(folder, rows)
        if with_picks:
            records.write_picks(folder, state, self._info.ids)

    # After the last step

    def finish(self, state: LoopState) -> None:
        """Writes the last cycle's model, and removes the checkpoints of a simulation.

        Those of a trial with an `initial_state` stay: it goes on when people have answered.
        """
        self.close()
        from_state(self._setup, state, self._info).save(self._folder / "model")
        if self._initial_state is None:
            remove(self._folder / "checkpoints")

    def close(self) -> None:
        """Waits for saves under way, and closes all files; may be called again."""
        if self._log is not None:
            self._log.close()
        self._checkpoints.close()

    def _units_before(self, state: LoopState) -> int:
        """Cost of the steps before `state`, which an earlier process has run."""
        setup, units = self._setup, 0
        for number in range(min(state.cycle + 1, setup.config.cycles)):
            names = cycle.stage_names(setup.config, setup.method, number)
            evaluated = int(state.counts[number])
            labelled = evaluated if evaluated >= 0 else int(state.labelled.sum())
            for stage in names:
                steps = training.stage_steps(setup.config, setup.available_size, labelled, stage)
                if number == state.cycle:
                    before = names.index(stage) < names.index(state.stage)
                    steps = steps if before else state.step * (stage == state.stage)
                units += steps * training.STEP_COST.get(stage, 0)
        return units

    def _report(self, text: str | None, **event: object) -> None:
        """Reports progress, with a line that names the trial."""
        line = None if text is None else f"{self._name} {text}"
        self._track(line, method=self._setup.method.name, trial=self._number, **event)


def is_before(
    record: Mapping[str, Any], state: LoopState, names: Callable[[int], tuple[str, ...]]
) -> bool:
    """Whether a line of metrics.jsonl is of a step that `state` contains.

    `names(cycle)` are the stages of a cycle.
    """
    if record["cycle"] != state.cycle:
        return record["cycle"] < state.cycle
    order = names(state.cycle)
    if record["stage"] not in order:  # Of a cycle that has begun anew with another schedule.
        return False
    stage, now = order.index(record["stage"]), order.index(state.stage)
    return stage < now or (stage == now and 0 < record["step"] <= state.step)
