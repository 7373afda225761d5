"""Server-sent events: tells every open page when there is something new to ask for."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tavaal_jax.labelling.page.board import Exchange
from tavaal_jax.labelling.page.security import refusal

MOST_STREAMS = 64
"""Limit for open pages in all; each takes a connection."""
_QUIET = 15.0  # seconds until a comment tells that the connection is alive
_PAUSE = 0.2  # seconds between two events


class Events:
    """An ASGI application: a stream of events of type `state` with the exchange's version."""

    def __init__(self, exchange: Exchange):
        self._exchange = exchange
        self._bells: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        exchange.listen(self._changed)

    def _changed(self) -> None:
        """Called by any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The server has ended.
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one stream, until its reader goes or the exchange is closed."""
        self._loop = asyncio.get_running_loop()
        if len(self._bells) >= MOST_STREAMS:
            line = f"{MOST_STREAMS} pages are open, which is the limit: close some"
            return await refusal(503, line)(scope, receive, send)
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            answer = StreamingResponse(
                self._stream(bell),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store"},
            )
            await answer(scope, receive, send)
        finally:
            self._bells.discard(bell)

    async def _stream(self, bell: asyncio.Event) -> AsyncIterator[str]:
        seen = -1
        while not self._exchange.is_closed:
            if seen != self._exchange.version:
                seen = self._exchange.version
                yield f"event: state\ndata: {json.dumps({'version': seen})}\n\n"
                await asyncio.sleep(_PAUSE)
            else:
                try:
                    async with asyncio.timeout(_QUIET):
                        await bell.wait()
                except TimeoutError:
                    yield ": nothing new\n\n"
            bell.clear()
