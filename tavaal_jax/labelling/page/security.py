"""Who may talk to the live page's server: checks before any request is looked at.

Every request needs the address that the command printed (`Host`, against DNS rebinding), and the
cookie that its token has set; whatever changes something needs the page's own `Origin`.
"""

import asyncio
import hmac
import ipaddress
import json
import socket
from typing import Any

import h11
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
MOST_BYTES = 2**20
"""Limit for the body of a request."""
_PATIENCE = 10.0  # seconds for a request to come whole
_OLD = (
    "this page is of an earlier start, or was opened without its token: open the address that the"
    " command has printed"
)


class Refused(Exception):
    """A request is not answered; the text is one line for people."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status = status


def refusal(status: int, line: str) -> Response:
    """The answer to a refused request."""
    headers = {"Cache-Control": "no-store", "Connection": "close"}
    return JSONResponse({"error": line}, status, headers)


class Hosts:
    """Which values of the header `Host` are this server's."""

    def __init__(self, address: str, port: int):
        """`address` is where the server listens; a wildcard is all addresses of this machine."""
        self._port = port
        self._is_any = _is_literal(address) and ipaddress.ip_address(address).is_unspecified
        is_loopback = _is_literal(address) and ipaddress.ip_address(address).is_loopback
        local = {"localhost", "127.0.0.1", "::1"}
        own = {address, socket.gethostname().lower()}
        self._names = local if is_loopback or address == "localhost" else local | own

    def __contains__(self, value: str) -> bool:
        name, _, port = value.lower().rpartition(":")
        if not name or not port.isdecimal() or port != str(self._port):
            return False
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        # A number is no name that somebody else's DNS could give this machine.
        return name in self._names or (self._is_any and _is_literal(name))


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Lets through to `app` what may pass, and adds the headers of security to every answer."""

    def __init__(self, app: ASGIApp, hosts: Hosts, token: str, port: int):
        self._app, self._hosts, self._token = app, hosts, token
        self._cookie = f"tavaal_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        app = self._answer(Request(scope)) or self._app
        await app(scope, receive, with_headers)

    def _answer(self, request: Request) -> Response | None:
        """The refusal of a request, or the answer to one with the token; None: it may pass."""
        fault = self._fault(request)
        if fault is not None:
            return refusal(*fault)
        is_opened = request.url.path == "/"
        given = request.query_params.get("token")
        if is_opened and request.method == "GET" and given is not None and self._is_token(given):
            answer = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return answer
        if self._is_token(self._given(request)):
            return None
        text = PlainTextResponse(
            f"{_OLD[0].upper()}{_OLD[1:]}.\n", 401, {"Cache-Control": "no-store"}
        )
        return text if is_opened else refusal(401, _OLD)

    def _fault(self, request: Request) -> tuple[int, str] | None:
        """What is wrong with where a request comes from: a status and a line."""
        headers, hosts = request.headers, request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 403, "this address is not the server's: open the one it has printed"
        if request.method not in ("GET", "HEAD", "POST"):
            return 405, f"{request.method} is not answered"
        if request.method == "POST":
            if headers.getlist("origin") != [f"http://{hosts[0]}"]:
                return 403, "only the page itself may send answers"
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return 415, "only JSON is read"
        # The page itself may be opened by a link in a mail.
        is_other = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if is_other and request.url.path != "/":
            return 403, "only the page itself may ask"
        return None

    def _given(self, request: Request) -> str:
        """The token in the cookie; "" for none, or for two that differ."""
        found: set[str] = set()
        for header in request.headers.getlist("cookie"):
            for part in header.split(";"):
                name, _, value = part.strip().partition("=")
                if name == self._cookie:
                    found.add(value)
        return found.pop() if len(found) == 1 else ""

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


async def json_body(request: Request) -> dict[str, Any]:
    """The object that a request has sent. Raises Refused."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        raise Refused(413, f"at most {MOST_BYTES // 2**20} MB are read: send less at once")
    parts, size = [], 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > MOST_BYTES:
                    raise Refused(413, f"at most {MOST_BYTES // 2**20} MB are read")
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "the request did not come whole: send it again") from None
    try:
        found = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise Refused(400, "this is no JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "an object is expected")
    return found


class PatientProtocol(H11Protocol):
    """uvicorn's protocol that ends a connection whose request does not come whole in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Waits on, or not where a request is whole as far as its headers."""
        super().data_received(data)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        """Waits for the next request, which may have begun to come."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing any more."""
        super().connection_lost(exc)
        self._forget_deadline()

    def _wait_for_request(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering:
            self._forget_deadline()
        elif self._deadline is None and self.conn.our_state is not h11.MUST_CLOSE:
            self._deadline = self.loop.call_later(_PATIENCE, self._give_up)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
