"""How often, by the clock; no result depends on it."""

import time
from collections.abc import Callable

from tavaal_jax.engine import processes


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


class Throttle:
    """Does something when it is called, unless it has lately taken a twentieth of the time."""

    def __init__(self, act: Callable[[], object]):
        self._act, self._next = act, 0.0

    def __call__(self) -> None:
        """Does it, or not."""
        begin = time.monotonic()
        if begin >= self._next:
            self._act()
            now = time.monotonic()
            self._next = now + 19 * (now - begin)
