"""One trial of one method: goes through its cycles, has them recorded, stops when asked."""

from collections.abc import Callable

import jax

from tavaal_jax.algorithm.state import LoopState, derive
from tavaal_jax.engine import devices, processes
from tavaal_jax.errors import Interrupted, TrialError, UserError
from tavaal_jax.study import cycle
from tavaal_jax.study.recorder import Recorder
from tavaal_jax.study.setup import Setup
from tavaal_jax.study.stages import Report, ValueFault

Stop = Callable[[], int | None]
"""Says by which signal the study was asked to stop; None: it was not."""
Observe = Callable[[str, float], None]
"""Is told the seconds of every training call, and its stage."""


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
        self._fault: UserError | None = None
        self._pace = Pace(setup.config.seconds_per_call, setup.config.steps_per_call)

    def run(self) -> None:
        """To the end of the trial."""
        try:
            state = self._begin()
            asked = processes.agree(self._stop())
            if asked is not None:
                self._by_first(lambda recorder: recorder.save(state))
                raise Interrupted(asked)
            state = self._advance(state)
            self._by_first(lambda recorder: recorder.finish(state))
        finally:
            if self._recorder is not None:
                self._recorder.close()

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
            except StopIteration:
                break
            except ValueFault as error:
                raise TrialError(
                    f"{self._name}: in cycle {state.cycle}, {error}: mend the method's value or"
                    " pick, or lower the learning rates if the weights have grown too large"
                ) from error
            fault, self._fault = self._fault, None
            asked = processes.agree(self._stop(), fault)
            self._record(state, report, asked is not None)
            if asked is not None:
                processes.agree(None, self._fault)  # Nobody leaves before all is saved.
                raise Interrupted(asked)
        fault, self._fault = self._fault, None
        processes.agree(None, fault)
        return state

    def _record(self, state: LoopState, report: Report, asked: bool) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.record(state, report, asked)
        except UserError as error:
            if not processes.several():
                raise
            self._fault = error  # The others hear of it after their next call.


class Pace:
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
