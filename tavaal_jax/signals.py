"""SIGINT and SIGTERM: remembered, so that a run saves before it stops."""

import signal


class Interrupted(Exception):
    """A signal asked the study to stop; everything is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Within its context the first signal is remembered; a second one has its usual, immediate
    effect."""

    def __init__(self):
        self.received: int | None = None
        self._usual = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._usual[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error):
        self._restore()

    def _receive(self, number, frame):
        del frame
        self.received = number
        self._restore()

    def _restore(self):
        for number, handler in self._usual.items():
            signal.signal(number, handler)
