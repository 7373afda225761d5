"""One trial of one method: goes through its cycles, has them recorded, stops when asked."""

import contextlib
import operator
from collections.abc import Callable

import jax

from tavaal_jax.algorithm.state import LoopState, derive
from tavaal_jax.engine import devices, processes
from tavaal_jax.errors import Diverged, Interrupted, WaitingForLabels
from tavaal_jax.study import cycle
from tavaal_jax.study.context import ValueFault
from tavaal_jax.study.recorder import Recorder
from tavaal_jax.study.setup import Setup

Stop = Callable[[], int | None]
"""Says by which signal the study was asked to stop; None: it was not."""
Observe = Callable[[str, float], None]
"""Is told the seconds of every training call, and its stage."""


class CallSizer:
    """Steps that a call may run: more while calls are short, so that a signal never waits long."""

    def __init__(self, seconds: float, most: int):
        # Several processes must make the same calls, whatever their clocks say.
        self._adapt = seconds > 0 and not processes.several()
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


class Trial:
    """Drives `cycle.advance`, on every process; the first one's `Recorder` does all its I/O."""

    def __init__(
        self, setup: Setup, number: int, open_recorder: Callable[[Observe], Recorder], stop: Stop
    ):
        """`open_recorder` is called on the first process alone, with what its calls are told to."""
        self._setup, self._stop = setup, stop
        self._name = f"{setup.method.name} trial {number}"
        self._key = derive(jax.random.key(setup.config.seed), number)
        self._open = open_recorder
        self._recorder: Recorder | None = None
        self._fault: Exception | None = None
        self._pace = CallSizer(setup.config.seconds_per_call, setup.config.steps_per_call)

    def run(self) -> LoopState:
        """To the end of the trial, or until people have to answer; returns the state it ends in."""
        try:
            state = self._begin()
            asked = self._agree()
            if asked is not None:
                self._by_first(lambda recorder: recorder.save(state))
                raise Interrupted(asked)
            state = self._advance(state)
            self._by_first(lambda recorder: recorder.finish(state))
            return state
        except BaseException:
            with contextlib.suppress(Exception):  # What is under way says more.
                if self._recorder is not None:
                    self._recorder.close()
            raise

    def _begin(self) -> LoopState:
        """The state to go on from, on the devices of all processes."""

        def restore():
            self._recorder = self._open(self._pace.observe)
            state = self._recorder.restore(self._key)
            return jax.device_get(state) if processes.several() else state

        state: LoopState = processes.by_first(restore)
        if not processes.several():
            return state
        learner, adversary = devices.place((state.learner, state.adversary))
        return state.replace(learner=learner, adversary=adversary)

    def _by_first(self, act: Callable[[Recorder], None]) -> None:
        """Lets the recorder act; nobody goes on before it has, or with a fault that it met."""
        processes.by_first(lambda: act(self._recorder))  # type: ignore[arg-type]

    def _advance(self, state: LoopState) -> LoopState:
        steps = cycle.advance(self._setup, self._key, state, self._pace)
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
            self._record(operator.methodcaller("catch_up"))
            asked = self._agree()
            self._record(operator.methodcaller("record", state, report, asked is not None))
            if asked is not None:
                self._agree(ask=False)  # Nobody leaves before all is saved.
                raise Interrupted(asked)
        self._agree(ask=False)
        return state

    def _record(self, act: Callable[[Recorder], None]) -> None:
        """Lets the recorder act; the others hear of a fault when they agree next."""
        if self._recorder is None or self._fault is not None:
            return
        try:
            act(self._recorder)
        except Exception as error:
            if not processes.several():
                raise
            self._fault = error

    def _agree(self, ask: bool = True) -> int | None:
        """The signal that any process was asked to stop by; raises what the first has met."""
        fault, self._fault = self._fault, None
        return processes.agree(self._stop() if ask else None, fault)
