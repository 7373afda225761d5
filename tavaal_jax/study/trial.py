"""One trial of one method: runs its cycles, has them recorded, stops when asked to."""

import contextlib
from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec

import jax

from tavaal_jax.algorithm.state import LoopState, derive
from tavaal_jax.engine import devices, processes
from tavaal_jax.errors import Diverged, Interrupted, WaitingForLabels
from tavaal_jax.study import cycle
from tavaal_jax.study.context import ValueFault
from tavaal_jax.study.recorder import Observe, Recorder
from tavaal_jax.study.setup import Setup

Arguments = ParamSpec("Arguments")
Stop = Callable[[], int | None]
"""Number of the signal that asked the study to stop; None: it goes on."""


class TrialHooks(NamedTuple):
    """Callbacks of a trial to its study."""

    track: Callable[..., None]
    """A `report.progress.Tracker`, or like one."""
    on_results: Callable[[], object]
    """Called when a trial's results.csv has changed."""
    stop: Stop


class CallSizer:
    """Number of steps per device call, adapted so that a signal never waits long."""

    def __init__(self, seconds: float, most: int):
        # Several processes must make the same calls, whatever their clocks say.
        self._adapt = seconds > 0 and not processes.several()
        self._seconds, self._most = seconds, most
        self._steps: dict[str, int] = {}

    def __call__(self, stage: str) -> int:
        """Most steps of the next call of `stage`."""
        return self._steps.setdefault(stage, 1) if self._adapt else self._most

    def observe(self, stage: str, seconds: float) -> None:
        """Takes into account how long the last call of `stage` has taken."""
        steps = self(stage)
        if seconds > self._seconds:
            steps = max(1, steps // 2)
        elif seconds < self._seconds / 2:
            steps = min(self._most, 2 * steps)
        self._steps[stage] = steps


class Trial:
    """Driver of `cycle.advance`, on every process; the first one's `Recorder` does all I/O."""

    def __init__(
        self, setup: Setup, number: int, open_recorder: Callable[[Observe], Recorder], stop: Stop
    ):
        """`open_recorder` is called on the first process alone."""
        self._setup, self._stop = setup, stop
        self._name = f"{setup.method.name} trial {number}"
        self._key = derive(jax.random.key(setup.config.seed), number)
        self._open = open_recorder
        self._recorder: Recorder | None = None
        self._fault: Exception | None = None
        self._sizer = CallSizer(setup.config.seconds_per_call, setup.config.steps_per_call)

    def run(self) -> LoopState:
        """Runs to the end of the trial, or until people have to answer; returns the last state."""
        try:
            state = self._begin()
            asked = self._agree()
            if asked is not None:
                self._by_first(Recorder.save, state)
                raise Interrupted(asked)
            state = self._advance(state)
            self._by_first(Recorder.finish, state)
            return state
        except BaseException:
            with contextlib.suppress(Exception):  # The error under way says more.
                if self._recorder is not None:
                    self._recorder.close()
            raise

    def _begin(self) -> LoopState:
        """State to go on from, on the devices of all processes."""

        def restore() -> LoopState:
            self._recorder = self._open(self._sizer.observe)
            state = self._recorder.restore(self._key)
            on_host: LoopState = jax.device_get(state) if processes.several() else state
            return on_host

        state: LoopState = processes.by_first(restore)
        if not processes.several():
            return state
        learner, adversary = devices.place((state.learner, state.adversary))
        return state.replace(learner=learner, adversary=adversary)

    def _by_first(
        self,
        act: Callable[Concatenate[Recorder, Arguments], None],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:
        """Calls a method of the recorder; all processes wait for it, and raise its error."""

        def act_here() -> None:
            assert self._recorder is not None
            act(self._recorder, *args, **kwargs)

        processes.by_first(act_here)

    def _advance(self, state: LoopState) -> LoopState:
        steps = cycle.advance(self._setup, self._key, state, self._sizer)
        while True:
            try:
                state, report = next(steps)
            except (StopIteration, WaitingForLabels):
                break
            except ValueFault as error:
                raise Diverged(
                    f"{self._name}: in cycle {state.cycle}, {error}",
                    "mend the method's value or pick, or lower the learning rates if the weights"
                    " have grown too large",
                ) from error
            self._record(Recorder.catch_up)
            asked = self._agree()
            self._record(Recorder.record, state, report, asked is not None)
            if asked is not None:
                self._agree(ask=False)  # Nobody leaves before all is saved.
                raise Interrupted(asked)
        self._agree(ask=False)
        return state

    def _record(
        self,
        act: Callable[Concatenate[Recorder, Arguments], None],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:
        """Calls a method of the recorder; the others learn of its error when they agree next."""
        if self._recorder is None or self._fault is not None:
            return
        try:
            act(self._recorder, *args, **kwargs)
        except Exception as error:
            if not processes.several():
                raise
            self._fault = error

    def _agree(self, ask: bool = True) -> int | None:
        """Signal that asked any process to stop; raises the recorder's error, if there is one."""
        fault, self._fault = self._fault, None
        return processes.agree(self._stop() if ask else None, fault)
