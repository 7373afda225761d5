"""One run with its files: continues from its checkpoint, reports, saves, and stops when asked
to."""

import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from tavaal_jax import diagnostics, loop, metrics, parallel, programs, workdir
from tavaal_jax.checkpoints import Checkpoints
from tavaal_jax.errors import UserError
from tavaal_jax.signals import Interrupted, Signals
from tavaal_jax.state import LoopState, derive


class Runner:
    """Drives `loop.advance` for one trial of one method and does all its I/O."""

    def __init__(
        self,
        run: programs.Run,
        trial: int,
        folder: pathlib.Path,
        ids: np.ndarray,
        display: metrics.Display,
        signals: Signals,
        units: dict[str, int],
    ):
        self._run, self._trial, self._folder, self._ids = run, trial, folder, ids
        self._display, self._signals, self._units = display, signals, units
        self._name = f"{run.method.name} trial {trial}"
        self._key = derive(jax.random.key(run.config.seed), trial)
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._pace = _Pace(run.config.seconds_per_call, run.config.steps_per_call)

    def run(self, on_results: Callable[[np.ndarray], None]) -> None:
        """To the end of the trial; `on_results` gets `results [cycles, metrics]` when they
        change."""
        state = loop.start(self._run, self._key)
        restored = self._checkpoints.restore(state)
        if restored is None:
            self._save(state)  # There is a good checkpoint from the first step on.
        else:
            state = restored
            self._say(f"continues in cycle {state.cycle}, stage {state.stage}, step {state.step}")
        self._skip_finished_work(state)
        log = metrics.JsonLines(self._folder / "metrics.jsonl", lambda r: _is_before(r, state))
        board = None
        if self._run.config.tensorboard:
            board = metrics.tensorboard_writer(self._folder / "tensorboard")
        try:
            self._write_files(state, on_results, log)
            self._stop_if_asked(state)
            self._advance(state, log, board, on_results)
        finally:
            log.close()
            if board is not None:
                board.close()
            self._checkpoints.close()

    def _advance(self, state, log, board, on_results):
        every = self._run.config.checkpoint_every_steps
        steps = loop.advance(self._run, self._key, state, self._pace)
        handle = lambda report: self._handle(report, log, board)
        late = None  # A report whose call may still run: its metrics are fetched one call later.
        self._begin = time.monotonic()
        self._unlogged = 0.0  # seconds since the last record
        while True:
            try:
                state, report = next(steps)
            except StopIteration:
                return
            except FloatingPointError as error:
                self._fail(f"{error} in cycle {state.cycle}", error)
            if late is not None:
                handle(late)
            late = report
            asked = self._signals.received
            to_save = report.stage_ended or (state.step and state.step % every == 0)
            if asked is not None or to_save or report.is_ready():
                handle(late)  # Nothing is saved before it was found to be finite.
                late = None
            if report.stage_ended:
                self._write_files(state, on_results, log)
            if asked is not None or to_save:
                self._save(state)
            if asked is not None:
                raise Interrupted(asked)
            self._begin = time.monotonic() if late is None else self._begin

    def _handle(self, report, log, board):
        """Checks and writes what a report says; waits for the call it came from."""
        values = self._checked(report)
        now = time.monotonic()
        seconds, self._begin = now - self._begin, now
        self._unlogged += seconds
        if report.stage in self._units and report.count:
            self._pace.observe(report.stage, seconds)
            text = f"{self._name} cycle {report.cycle} {report.stage} {report.step}"
            self._display.advance(report.count * self._units[report.stage], text)
        if values:
            self._log(report, values, log, board)
        if report.details is not None and parallel.is_primary():
            path = self._folder / "diagnostics" / f"cycle_{report.cycle}.npz"
            path.parent.mkdir(exist_ok=True)
            workdir.write_arrays(path, report.details)

    def _checked(self, report):
        """Mean of each metric over the steps of a call; UserError at the first that is not
        finite."""
        parallel.check_agreement(report.agree, report.stage)
        values = report.values()
        for name, value in values.items():
            if not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(np.atleast_1d(value)))[0])
                self._fail(
                    f"{name} is {np.atleast_1d(value)[bad]} in cycle {report.cycle},"
                    f" stage {report.stage}, step {report.step - value.size + bad}"
                )
        return {name: float(value.mean()) for name, value in values.items()}

    def _save(self, state):
        try:
            self._checkpoints.save(state)
        except FloatingPointError as error:
            self._fail(f"{error} in cycle {state.cycle}, step {state.step}", error)

    def _fail(self, what, cause=None):
        raise UserError(
            f"{self._name}: {what}; the last good checkpoint is kept in"
            f" {self._folder / 'checkpoints'}: lower the learning rates in a new --workdir"
        ) from cause

    def _log(self, report, values, log, board):
        run = self._run
        names = loop.stages(run.config, run.method, report.cycle)
        place = {"cycle": report.cycle, "stage": report.stage, "step": report.step}
        record = {**place, "stage_index": names.index(report.stage), **values}
        log.write({**record, "seconds": round(self._unlogged, 4)})
        self._unlogged = 0.0
        if board is not None:
            for name, value in values.items():
                board.add_scalar(f"cycle_{report.cycle}/{report.stage}/{name}", value, report.step)
        if report.stage == "evaluate":
            labelled = run.config.initial + report.cycle * run.config.budget
            text = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            self._say(f"cycle {report.cycle}: {labelled} labelled, {text}")

    def _write_files(self, state, on_results, log):
        if parallel.is_primary():
            config = self._run.config
            workdir.write_picks(self._folder, state, self._ids)
            if config.diagnostics:
                rows = diagnostics.rows(log.records(), config.initial, config.budget)
                workdir.write_diagnostics(self._folder, rows)
            on_results(state.results)

    def _skip_finished_work(self, state: LoopState):
        """Tells the display what an earlier process has done."""
        run, units = self._run, 0
        for cycle in range(min(state.cycle + 1, run.config.cycles)):
            for number, stage in enumerate(loop.stages(run.config, run.method, cycle)):
                steps = loop.stage_steps(run.config, run.size, cycle, stage)
                if cycle == state.cycle:
                    steps = steps if number < state.stage else state.step * (number == state.stage)
                units += steps * self._units.get(stage, 0)
        self._display.skip(units)

    def _stop_if_asked(self, state):
        if self._signals.received is not None:
            self._save(state)
            raise Interrupted(self._signals.received)

    def _say(self, text):
        self._display.line(f"{self._name} {text}")


def _is_before(record, state):
    """Whether a line of metrics.jsonl tells of something that `state` contains."""
    stage, now = (record["cycle"], record["stage_index"]), (state.cycle, state.stage)
    return stage < now or (stage == now and 0 < record["step"] <= state.step)


class _Pace:
    """How many steps a call may run: more while calls are short, so that a signal never waits
    long."""

    def __init__(self, seconds: float, most: int):
        # Processes of a pod must make the same calls, whatever their clocks say.
        self._adapt = seconds > 0 and not parallel.several_processes()
        self._seconds, self._most = seconds, most
        self._steps: dict[str, int] = {}

    def __call__(self, stage: str) -> int:
        return self._steps.setdefault(stage, 1) if self._adapt else self._most

    def observe(self, stage: str, seconds: float) -> None:
        """The last call of `stage` took this long."""
        steps = self(stage)
        if seconds > self._seconds:
            steps = max(1, steps // 2)
        elif seconds < self._seconds / 2:
            steps = min(self._most, 2 * steps)
        self._steps[stage] = steps
