"""Mailbox between a study and its trials on other machines; a light import for an actor of Ray."""

import asyncio
import contextlib


class Mailbox:
    """Actor of Ray, in the study's machine: messages of trials, and the order to stop."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._waiting: list[asyncio.Event] = []
        """Of those whose message is here and has not been taken."""
        self._taken: list[asyncio.Event] = []
        """Of those whose message is being handled."""
        self._arrived, self._stopped = asyncio.Event(), asyncio.Event()
        self._number = 0

    async def post(self, message: bytes) -> None:
        """Adds a message."""
        self._messages.append(message)
        self._arrived.set()

    async def deliver(self, message: bytes) -> None:
        """Adds a message, and returns when the study has handled it."""
        handled = asyncio.Event()
        self._waiting.append(handled)
        await self.post(message)
        await handled.wait()

    async def take(self, seconds: float) -> list[bytes]:
        """Takes all messages out, after at most `seconds`; those taken before are handled now."""
        for handled in self._taken:
            handled.set()
        self._taken = []
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), seconds)
        self._arrived.clear()
        taken, self._messages = self._messages, []
        self._taken, self._waiting = self._waiting, []
        return taken

    async def stop(self, number: int) -> None:
        """Orders all trials to save and end; `number` is that of the signal."""
        self._number = number
        self._stopped.set()

    async def stop_signal(self) -> int:
        """Waits for that order, and returns the number of the signal."""
        await self._stopped.wait()
        return self._number
