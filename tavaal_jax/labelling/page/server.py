"""The live page's server: a thread beside the loop, that reads boards and writes answers."""

import dataclasses
import hashlib
import os
import pathlib
import re
import secrets
import socket
import threading
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels.class_names import folded
from tavaal_jax.labelling.page import answering, assets, wishes
from tavaal_jax.labelling.page.answer_files import AnswerFiles
from tavaal_jax.labelling.page.background import Background
from tavaal_jax.labelling.page.board import Board, Exchange
from tavaal_jax.labelling.page.events import Events
from tavaal_jax.labelling.page.security import (
    Guard,
    Hosts,
    PatientProtocol,
    Refused,
    json_body,
    refusal,
)
from tavaal_jax.labelling.page.thumbnails import SIDES, Thumbnails

_ID = re.compile(r"i[0-9a-f]{16}")
_MOST_CONNECTIONS = 256
_FRESH = {"Cache-Control": "no-store"}
_MAPS = ("pca", "tsne")


class Site:
    """Answers to all requests; every method is called by one of the server's threads."""

    def __init__(self, exchange: Exchange, answers: AnswerFiles, workdir: pathlib.Path):
        self._exchange, self._answers, self._workdir = exchange, answers, workdir
        self._thumbnails = Thumbnails(workdir / ".thumbnails")
        self._background = Background(exchange.changed)
        self._people: tuple[str, ...] = ()  # in the order in which they came
        self._name = hashlib.sha256(os.fsencode(workdir.absolute())).hexdigest()[:16]
        self._html, self._files = assets.live_html(), assets.live_files()

    def application(self, hosts: Hosts, token: str, port: int) -> ASGIApp:
        """The ASGI application, behind its guard."""
        routes = [
            Route("/", self._page),
            Route("/static/{name}", self._static),
            Route("/image/{name}", self._image),
            Route("/api/state", self._state),
            Route("/api/request", self._request),
            Route("/api/suggestions", self._suggestions),
            Route("/api/map", self._map),
            Route("/api/doubts", self._doubts),
            Route("/api/events", Events(self._exchange), methods=["GET"]),
            Route("/api/answers", self._answer, methods=["POST"]),
            Route("/api/train", self._train, methods=["POST"]),
            Route("/api/ask", self._ask, methods=["POST"]),
        ]
        handlers: Mapping[Any, Any] = {
            Refused: lambda request, error: refusal(error.status, str(error)),
            HTTPException: lambda request, error: refusal(error.status_code, "there is no such"),
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        return Guard(app, hosts, token, port)

    # The page

    def _page(self, request: Request) -> Response:
        return HTMLResponse(self._html, headers=_FRESH)

    def _static(self, request: Request) -> Response:
        kind, content = self._files.get(request.path_params["name"], ("", b""))
        if not kind:
            raise Refused(404, "there is no such file")
        return Response(content, media_type=kind, headers=_FRESH)

    def _image(self, request: Request) -> Response:
        name, size = request.path_params["name"], request.query_params.get("size", "thumbnail")
        board = self._board()
        if not _ID.fullmatch(name) or name not in board.files or size not in SIDES:
            raise Refused(404, "there is no such image")
        try:
            content = self._thumbnails.jpeg(name, size, board.preview)
        except OSError:
            raise Refused(404, "the image cannot be shown: its file has gone or changed") from None
        lasting = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(content, media_type="image/jpeg", headers=lasting)

    # What is known

    def _board(self) -> Board:
        if self._exchange.board is None:
            raise Refused(503, "the images are being read: one moment")
        return self._exchange.board

    def _state(self, request: Request) -> Response:
        exchange, board = self._exchange, self._exchange.board
        found: dict[str, object] = {"version": exchange.version, "workdir": self._name}
        found |= {"problem": exchange.problem, "training": exchange.is_training}
        if board is None:
            return _json({**found, "state": "STARTING"})
        status, asked = dict(board.status), board.request
        if exchange.is_training:
            status["state"] = "TRAINING"
        if exchange.problem:
            status["problem"] = exchange.problem
        count = exchange.count()
        seconds = exchange.seconds_to_model()
        return _json({
            **status, **found, "status": status,
            "request": asked.number if asked else None,
            "digest": asked.digest if asked else None,
            "asked": len(asked.ids) if asked else 0, "answered": count,
            "classes": [*board.classes, *answering.new_classes(board, self._answers.labels())],
            "fixed": board.fixed, "unsure": board.unsure, "bad": board.bad, "parts": board.parts,
            "curve": board.curve, "hint": board.hint,
            "seconds_to_model": None if seconds is None else round(seconds, 1),
            "left": board.left, "agreement": board.agreement,
        })  # fmt: skip

    def _request(self, request: Request) -> Response:
        board, who = self._board(), request.query_params.get("who", "")
        asked, mine = board.request, self._answers.of(who)
        if asked is None:
            return _json({"request": None, "digest": None, "images": [], "answers": {}})
        images = [
            {
                "id": name,
                "file": board.files.get(name, ""),
                "fold": asked.folds.get(name, ()),
                **({"guess": board.guesses[name]} if name in board.guesses else {}),
            }
            for name in asked.ids
        ]
        answers = {name: mine[name] for name in asked.ids if name in mine}
        found = {"request": asked.number, "digest": asked.digest}
        found["part"] = self._part(who, board.parts)
        return _json({**found, "images": images, "answers": answers})

    def _part(self, who: str, parts: int) -> int:
        """The part of each request that a person begins with; 0 where there is one part."""
        if parts == 1:
            return 0
        with self._answers.lock:
            names = dict.fromkeys((*self._people, *self._answers.people(), folded(who)))
            self._people = tuple(names)
            return self._people.index(folded(who)) % parts + 1

    def _suggestions(self, request: Request) -> Response:
        board, who = self._board(), request.query_params.get("who", "")
        said = self._answers.of(who).keys() | (board.request.ids if board.request else ())
        groups = [
            {
                "class": group["class"],
                "images": [
                    {**image, "file": board.files[image["id"]]}
                    for image in group["images"]
                    if image["id"] in board.files and image["id"] not in said
                ],
            }
            for group in board.suggestions["groups"]
        ]
        groups = [group for group in groups if group["images"]]
        return _json({"cycle": board.suggestions["cycle"], "groups": groups})

    def _map(self, request: Request) -> Response:
        board, kind = self._board(), request.query_params.get("kind", "pca")
        if kind not in _MAPS or kind not in board.computed:
            raise Refused(404, "there is no such map")
        found = self._computed(board, kind)
        if found is None:
            return _json({"state": "computing", "ids": [], "x": [], "y": []})
        ids = found["ids"]
        return _json({
            "state": "ready", **found,
            "files": [board.files.get(name, "") for name in ids],
            "label": [board.known.labels.get(name) for name in ids],
            "picked": [board.known.asked_in.get(name) for name in ids],
        })  # fmt: skip

    def _computed(self, board: Board, name: str) -> Mapping[str, Any] | None:
        """What takes longer; None while it is computed. Raises Refused where that has failed."""
        found = self._background.get(name, *board.computed[name])
        if found is not None and "failed" in found:
            raise Refused(500, " ".join(str(found["failed"]).split()))
        return found

    def _doubted(self, board: Board) -> list[Any] | None:
        """Rows of doubtful answers; None while they are computed."""
        if "doubts" not in board.computed:
            return []
        found = self._computed(board, "doubts")
        return None if found is None else list(found["rows"])

    def _doubts(self, request: Request) -> Response:
        board = self._board()
        rows = self._doubted(board)
        if rows is None:
            return _json({"state": "computing", "rows": []})
        since = self._answers.answered_since(board.known.since)
        rows = [row for row in rows if row["id"] not in since]
        return _json({"state": "ready", "rows": answering.doubts(rows, self._answers.confirmed())})

    # What is asked of the loop

    async def _answer(self, request: Request) -> Response:
        body = await json_body(request)
        return await run_in_threadpool(self._save, body)

    def _save(self, body: dict[str, Any]) -> Response:
        board, who = self._board(), answering.person(body.get("who"))
        doubts = self._background.peek("doubts")
        doubted = {row["id"]: row["label"] for row in (doubts or {}).get("rows", ())}
        given = answering.given(board, body.get("answers"), self._answers.labels(), doubted)
        try:
            self._answers.save(who, given)
        except OSError as error:
            raise Refused(507, f"nothing was saved: {error.strerror or error}") from error
        except UserError as error:
            raise Refused(400, str(error)) from error
        count = self._exchange.answered({one.id: one.label is not None for one in given})
        now = self._exchange.board
        digest = now.request.digest if now and now.request else None
        return _json({"saved": len(given), "answered": count, "digest": digest})

    async def _train(self, request: Request) -> Response:
        await json_body(request)
        self._board()
        self._exchange.want_training()
        return _json({})

    async def _ask(self, request: Request) -> Response:
        body = await json_body(request)
        return await run_in_threadpool(self._wish, body)

    def _wish(self, body: dict[str, Any]) -> Response:
        names = answering.wished(self._board(), body.get("ids"))
        try:
            with self._answers.lock:
                wishes.add(self._workdir, names)
        except OSError as error:
            raise Refused(507, f"nothing was saved: {error.strerror or error}") from error
        return _json({"asked": len(names)})


def _json(content: object) -> Response:
    return JSONResponse(content, headers=_FRESH)


@dataclasses.dataclass
class Server:
    """The server's thread."""

    address: str
    port: int
    token: str
    _server: uvicorn.Server
    _thread: threading.Thread
    _exchange: Exchange

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        any_address = self.address in ("0.0.0.0", "::")
        name = socket.gethostname() if any_address else self.address
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/?token={self.token}"

    def stop(self) -> None:
        """Ends the streams, and the thread."""
        self._exchange.close()
        self._server.should_exit = True
        self._thread.join(5)


def start(site: Site, exchange: Exchange, address: str, port: int | None) -> Server:
    """Begins to serve in a thread; without a `port`, on the usual one or else on a free one.

    Raises UserError where it cannot listen there.
    """
    listening = _listening(address, port)
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    config = uvicorn.Config(
        site.application(Hosts(address, port), token, port),
        http=PatientProtocol, ws="none", lifespan="off", log_config=None, log_level="critical",
        access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=20,
        timeout_graceful_shutdown=1, limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=2**14,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, args=([listening],), name="labelling page", daemon=True
    )
    thread.start()
    return Server(address, port, token, server, thread, exchange)


USUAL_PORT = 8400


def _listening(address: str, port: int | None) -> socket.socket:
    """A socket that listens."""
    for number in (USUAL_PORT, 0) if port is None else (port,):
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, number), family=family, backlog=128)
        except (OSError, OverflowError) as error:
            if number == port:
                reason = getattr(error, "strerror", None) or error
                raise UserError(
                    f"{address} port {port} cannot be used ({reason}): give another --port or"
                    " --host"
                ) from error
    raise UserError(f"no port of {address} can be used: give another --host")
