"""Calls that are skipped where they would take too much of a study's time."""

import time
from collections.abc import Callable


class Throttle:
    """Wrapper that skips calls of `act` so that it takes at most a twentieth of the time."""

    def __init__(self, act: Callable[[], object]):
        self._act, self._next = act, 0.0

    def __call__(self) -> None:
        """Calls `act`, or skips it."""
        begin = time.monotonic()
        if begin >= self._next:
            self._act()
            now = time.monotonic()
            self._next = now + 19 * (now - begin)
