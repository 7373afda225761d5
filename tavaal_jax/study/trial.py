"""One trial with its files: continues from its checkpoint, reports, saves, and stops when asked."""

import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from tavaal_jax.algorithm.state import LoopState, derive
from tavaal_jax.engine import devices
from tavaal_jax.errors import Interrupted, TrialError
from tavaal_jax.report import files, progress, records
from tavaal_jax.report.checkpoints import Checkpoints, remove
from tavaal_jax.study import cycle, replay, stages, trained
from tavaal_jax.study.setup import Setup
from tavaal_jax.study.stages import Report, ValueFault

Stop = Callable[[], int | None]
"""Says by which signal the study was asked to stop; None: it was not."""


class Trial:
    """Drives `cycle.advance` for one trial of one method and does all its I/O."""

    def __init__(
        self,
        setup: Setup,
        number: int,
        folder: pathlib.Path,
        about: trained.About,
        tracker: progress.Tracker,
        stop: Stop,
    ):
        self._setup, self._number, self._folder, self._about = setup, number, folder, about
        self._tracker, self._stop = tracker, stop
        self._name = f"{setup.method.name} trial {number}"
        self._key = derive(jax.random.key(setup.config.seed), number)
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._pace = Pace(setup.config.seconds_per_call, setup.config.steps_per_call)

    def run(self, on_results: Callable[[], object] = lambda: None) -> None:
        """To the end of the trial; `on_results` is called when its results.csv has changed."""
        try:
            state = self._begin_or_continue()
        except BaseException:
            self._checkpoints.close()
            raise
        names = lambda number: cycle.names(self._setup.config, self._setup.method, number)
        log = records.Log(self._folder / "metrics.jsonl", lambda r: is_before(r, state, names))
        board = None
        if self._setup.config.tensorboard:
            board = progress.tensorboard_writer(self._folder / "tensorboard")
        try:
            self._write_files(state, log)
            self._stop_if_asked(state)
            state = self._advance(state, log, board, on_results)
        finally:
            log.close()
            if board is not None:
                board.close()
            self._checkpoints.close()
        if devices.is_primary():
            trained.save(self._folder / "model", self._setup, state, self._about)
            remove(self._folder / "checkpoints")

    def _begin_or_continue(self):
        """The state to go on from: a checkpoint's, else that of picks.csv, else the first.

        Files that were put there and are further than the checkpoint go before it.
        """
        setup, about = self._setup, ""
        state = self._checkpoints.restore(cycle.template(setup))
        if state is None or replay.is_ahead(self._folder, state):
            ids = self._about.ids
            state = replay.replay(setup, self._key, self._folder, self._number, ids)
            about = " with the picks and results that are there"
            if state is None:
                state = cycle.start(setup, self._key)
                self._save(state)  # There is a good checkpoint from the first step on.
                return state
            self._save(state)
        text = f"continues in cycle {state.cycle}, stage {state.stage}, step {state.step}{about}"
        self._say(text, skipped=self._units_before(state))
        return state

    def _advance(self, state, log, board, on_results):
        every = self._setup.config.checkpoint_every_steps
        steps = cycle.advance(self._setup, self._key, state, self._pace)
        late = None  # A report whose call may still run: its metrics are fetched one call later.
        self._begin = time.monotonic()
        self._unlogged = 0.0  # seconds since the last record
        while True:
            try:
                state, report = next(steps)
            except StopIteration:
                return state
            except ValueFault as error:
                raise TrialError(
                    f"{self._name}: in cycle {state.cycle}, {error}: mend the method's value or"
                    " pick, or lower the learning rates if the weights have grown too large"
                ) from error
            if late is not None:
                self._handle(late, log, board)
            late = report
            asked = self._stop()
            to_save = report.stage_ended or (state.step and state.step % every == 0)
            if asked is not None or to_save or report.is_ready():
                self._handle(late, log, board)  # Nothing is saved before it was found to be finite.
                late = None
            if report.stage_ended:
                self._write_files(state, log)
                if report.stage == "evaluate":
                    on_results()
            if asked is not None or to_save:
                self._save(state)
            if asked is not None:
                raise Interrupted(asked)
            self._begin = time.monotonic() if late is None else self._begin

    def _handle(self, report: Report, log, board):
        """Checks and writes what a report says; waits for the call it came from."""
        values = self._checked(report)
        now = time.monotonic()
        seconds, self._begin = now - self._begin, now
        self._unlogged += seconds
        text = None
        if report.stage == "evaluate" and values:
            figures = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
            text = f"cycle {report.cycle}: {report.labelled} labelled, {figures}"
        if report.count:
            self._pace.observe(report.stage, seconds)
        if report.count or values:
            self._say(
                text, units=report.count * UNITS.get(report.stage, 0), metrics=values,
                cycle=report.cycle, stage=report.stage, step=report.step,
            )  # fmt: skip
        if values:
            self._log(report, values, log, board)
        if report.details is not None and devices.is_primary():
            path = self._folder / "diagnostics" / f"cycle_{report.cycle}.npz"
            files.write_arrays(path, report.details)

    def _checked(self, report: Report):
        """Mean of each metric over the steps of a call; TrialError at the first not finite."""
        devices.check_agreement(report.agree, report.stage)
        values = report.values()
        for name, value in values.items():
            if not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(np.atleast_1d(value)))[0])
                where = f"{np.atleast_1d(value)[bad]} in cycle {report.cycle}, stage {report.stage}"
                if not report.count:
                    raise TrialError(f"{self._name}: {name} is {where}: no figure can be that")
                self._fail(f"{name} is {where}, step {report.step - value.size + bad}")
        return {name: float(value.mean()) for name, value in values.items()}

    def _save(self, state):
        try:
            self._checkpoints.save(state)
        except FloatingPointError as error:
            self._fail(f"{error} in cycle {state.cycle}, step {state.step}", error)

    def _fail(self, what, cause=None):
        raise TrialError(
            f"{self._name}: {what}; the last good checkpoint is kept in"
            f" {self._folder / 'checkpoints'}: lower the learning rates in a new --workdir"
        ) from cause

    def _log(self, report, values, log, board):
        place = {"cycle": report.cycle, "stage": report.stage, "step": report.step}
        log.write({**place, **values, "seconds": round(self._unlogged, 4)})
        self._unlogged = 0.0
        if board is not None:
            for name, value in values.items():
                board.add_scalar(f"cycle_{report.cycle}/{report.stage}/{name}", value, report.step)

    def _write_files(self, state, log):
        """The trial's own records, whole: functions of its state and its log."""
        if not devices.is_primary():
            return
        setup, folder = self._setup, self._folder
        records.write_picks(folder, state, self._about.ids)
        rows = records.result_rows(state, setup.method.name, self._number, setup.problem.metrics)
        records.write_results(folder, rows)
        if setup.config.diagnostics:
            records.write_diagnostics(folder, log.records(), state.cycle)

    def _units_before(self, state: LoopState) -> int:
        """Units of work that an earlier process has done."""
        setup, units = self._setup, 0
        for number in range(min(state.cycle + 1, setup.config.cycles)):
            names = cycle.names(setup.config, setup.method, number)
            evaluated = int(state.counts[number])
            labelled = evaluated if evaluated >= 0 else int(state.labelled.sum())
            for stage in names:
                steps = stages.stage_steps(setup.config, setup.size, labelled, stage)
                if number == state.cycle:
                    before = names.index(stage) < names.index(state.stage)
                    steps = steps if before else state.step * (stage == state.stage)
                units += steps * UNITS.get(stage, 0)
        return units

    def _stop_if_asked(self, state):
        asked = self._stop()
        if asked is not None:
            self._save(state)
            raise Interrupted(asked)

    def _say(self, text, **event):
        line = None if text is None else f"{self._name} {text}"
        self._tracker(line, method=self._setup.method.name, trial=self._number, **event)


UNITS = {"task": 1, "joint": 4, "adversary": 3}
"""Cost of a step of each stage, relative to a step of T: for the time left only."""


def is_before(record: dict, state: LoopState, names: Callable[[int], tuple[str, ...]]) -> bool:
    """Whether a line of metrics.jsonl tells of something that `state` contains.

    `names(cycle)` are the stages of a cycle.
    """
    if record["cycle"] != state.cycle:
        return record["cycle"] < state.cycle
    order = names(state.cycle)
    stage, now = order.index(record["stage"]), order.index(state.stage)
    return stage < now or (stage == now and 0 < record["step"] <= state.step)


class Pace:
    """Steps that a call may run: more while calls are short, so that a signal never waits long."""

    def __init__(self, seconds: float, most: int):
        # Processes of a pod must make the same calls, whatever their clocks say.
        self._adapt = seconds > 0 and not devices.several_processes()
        self._seconds, self._most = seconds, most
        self._steps: dict[str, int] = {}

    def __call__(self, stage: str) -> int:
        """Of the next call of `stage`."""
        return self._steps.setdefault(stage, 1) if self._adapt else self._most

    def observe(self, stage: str, seconds: float) -> None:
        """The last call of `stage` took this long."""
        steps = self(stage)
        if seconds > self._seconds:
            steps = max(1, steps // 2)
        elif seconds < self._seconds / 2:
            steps = min(self._most, 2 * steps)
        self._steps[stage] = steps
