"""What a trial reads and writes: checkpoints, records, diagnoses, what is said; first process only.

`trial` drives; this one restores, checks what it is shown, writes and saves.
"""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm.state import LoopState
from tavaal_jax.engine import devices
from tavaal_jax.errors import Diverged
from tavaal_jax.report import files, records
from tavaal_jax.report.checkpoints import Checkpoints, check_finite, remove
from tavaal_jax.study import cycle, replay, training
from tavaal_jax.study.context import StageReport
from tavaal_jax.study.model import About, from_state
from tavaal_jax.study.setup import Setup

UNITS = {"task": 1, "joint": 4, "adversary": 3}
"""Cost of a step of each stage, relative to a step of T: for the time left only."""

_SAVE_EVERY = 5.0  # seconds, after what takes less time than a save may: see `record`


class Recorder:
    """The files of one trial; to be closed."""

    def __init__(
        self,
        setup: Setup,
        number: int,
        folder: pathlib.Path,
        about: About,
        tracker: Callable[..., None],
        on_results: Callable[[], object],
        observe: Callable[[str, float], None],
        first: Callable[[jax.Array], LoopState] | None = None,
    ):
        """`tracker` as in `report.progress`; `on_results` is called when results.csv has changed.

        `observe` is told the seconds of every training call, and its stage. `first` gives the state
        to begin with, from the trial's key, where it is not that of a simulation.
        """
        self._setup, self._number, self._folder, self._about = setup, number, folder, about
        self._tracker, self._on_results, self._observe = tracker, on_results, observe
        self._first = first
        self._name = f"{setup.method.name} trial {number}"
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._log: Any = None
        self._late: StageReport | None = None
        """A report whose call may still run: its metrics are fetched one call later."""
        self._begin = self._saved = time.monotonic()
        # Of many short trials a lost one costs less than saving them all.
        self._seldom = setup.config.parallel == "trials"
        self._unlogged = self._waited = 0.0  # seconds since the last record

    # Before the first step

    def restore(self, key: jax.Array) -> LoopState:
        """The state to go on from: a checkpoint's, else that of picks.csv, else the first.

        Files that were put there and are further than the checkpoint go before it. `key` is the
        trial's.
        """
        setup, about = self._setup, ""
        state = self._checkpoints.restore(cycle.template(setup))
        if self._first is not None:
            if state is None:
                return self._begun(self._first(key))
        elif state is None or replay.is_ahead(self._folder, state):
            ids = self._about.ids
            state = replay.replay(setup, key, self._folder, self._number, ids)
            about = " with the picks and results that are there"
            if state is None:
                return self._begun(cycle.start(setup, key))
            self.save(state)
        text = f"continues in cycle {state.cycle}, stage {state.stage}, step {state.step}{about}"
        self._say(text, skipped=self._units_before(state))
        self._open(state)
        return state

    def _begun(self, state: LoopState) -> LoopState:
        if not self._seldom:
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
        """Handles the report before the newest, whose call may have been running until now."""
        if self._late is not None:
            self._handle(self._late)
        self._late = None

    def record(self, state: LoopState, report: StageReport, asked: bool) -> None:
        """Checks, writes and saves what a call has left; `asked`: the trial will stop here."""
        every = self._setup.config.checkpoint_every_steps
        self._late = report
        has_trained = report.stage_ended and report.stage in UNITS
        long_ago = time.monotonic() - self._saved > _SAVE_EVERY
        to_save = has_trained or state.cycle > report.cycle or (report.stage_ended and long_ago)
        to_save = to_save or bool(state.step and state.step % every == 0)
        if asked or to_save or report.is_ready():
            self._handle(report)  # Nothing is saved before it was found to be finite.
            self._late = None
        if report.stage_ended:
            if report.stage == "select":  # No picks may be ahead of the checkpoint by a cycle.
                self._checkpoints.wait()
            # Where nothing was saved, picks are what a trial goes on from: after their diagnosis.
            self._write_files(state, not self._seldom or state.cycle > report.cycle)
            if report.stage == "evaluate":
                self._on_results()
        if asked or to_save:
            self.save(state, only_check=self._seldom and not (asked or long_ago))
        if asked:
            self._checkpoints.wait()
        self._begin = time.monotonic() if self._late is None else self._begin

    def _handle(self, report: StageReport) -> None:
        """Checks and writes what a report says; waits for the call it came from."""
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
            self._say(
                text, units=report.count * UNITS.get(report.stage, 0), metrics=values,
                cycle=report.cycle, stage=report.stage, step=report.step,
            )  # fmt: skip
        if values:
            self._write_log(report, values)
        if report.details is None:
            return
        if report.stage == "evaluate":
            names, values = self._about.class_names, report.details["by_class"]
            place = report.cycle, report.labelled
            records.write_class_iou(self._folder, *place, dict(zip(names, values, strict=True)))
        else:
            path = self._folder / "diagnostics" / f"cycle_{report.cycle}.npz"
            files.write_arrays(path, report.details)

    def _checked(self, report: StageReport):
        """Mean of each metric over the steps of a call; Diverged at the first not finite."""
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
        """A checkpoint of this moment, or only a look whether one could be made."""
        try:
            if only_check:
                check_finite(state)
            else:
                self._checkpoints.save(state)
                self._saved = time.monotonic()
        except FloatingPointError as error:
            self._fail(f"{error} in cycle {state.cycle}, step {state.step}", error)

    def _fail(self, what, cause=None):
        folder = self._folder / "checkpoints"
        kept = f"the last good checkpoint is kept in {folder}: " if any(folder.iterdir()) else ""
        mend = f"{kept}lower the learning rates in a new --workdir"
        raise Diverged(f"{self._name}: {what}", mend) from cause

    def _write_log(self, report, values):
        place = {"cycle": report.cycle, "stage": report.stage, "step": report.step}
        waited = {"waited": round(self._waited, 4)} if self._waited else {}
        self._log.write({**place, **values, "seconds": round(self._unlogged, 4), **waited})
        self._unlogged = self._waited = 0.0

    def _write_files(self, state, with_picks=True):
        """The trial's own records, whole: functions of its state and its log."""
        setup, folder = self._setup, self._folder
        if setup.config.diagnostics:
            every = setup.config.log_every_steps
            records.write_diagnostics(folder, self._log.records(), state.cycle, every)
        rows = records.result_rows(state, setup.method.name, self._number, setup.problem.metrics)
        records.write_results(folder, rows)
        if with_picks:
            records.write_picks(folder, state, self._about.ids)

    # After the last step

    def finish(self, state: LoopState) -> None:
        """The model that the last cycle has trained; checkpoints are no longer needed.

        But for a trial that waits for people: its cycle ends when they have been asked.
        """
        self.close()
        from_state(self._setup, state, self._about).save(self._folder / "model")
        if self._first is None:
            remove(self._folder / "checkpoints")

    def close(self) -> None:
        """Waits for what is being saved, and closes all files; may be called again."""
        if self._log is not None:
            self._log.close()
        self._checkpoints.close()

    def _units_before(self, state: LoopState) -> int:
        """Units of work that an earlier process has done."""
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
                units += steps * UNITS.get(stage, 0)
        return units

    def _say(self, text, **event):
        line = None if text is None else f"{self._name} {text}"
        self._tracker(line, method=self._setup.method.name, trial=self._number, **event)


def is_before(record: dict, state: LoopState, names: Callable[[int], tuple[str, ...]]) -> bool:
    """Whether a line of metrics.jsonl tells of something that `state` contains.

    `names(cycle)` are the stages of a cycle.
    """
    if record["cycle"] != state.cycle:
        return record["cycle"] < state.cycle
    order = names(state.cycle)
    if record["stage"] not in order:  # Of a cycle that has begun anew with another schedule.
        return False
    stage, now = order.index(record["stage"]), order.index(state.stage)
    return stage < now or (stage == now and 0 < record["step"] <= state.step)
