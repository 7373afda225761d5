"""The loop's side of the live page: waits for answers, and makes what the page shows."""

import contextlib
import dataclasses
import datetime
import hashlib
import io
import os
import pathlib
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tavaal_jax.data.pictures import decode
from tavaal_jax.labelling import insight, selection
from tavaal_jax.labelling.cycle import LabellingContext
from tavaal_jax.labelling.images.files import path_of
from tavaal_jax.labelling.page.board import Board, Exchange, RequestView
from tavaal_jax.labelling.page.static import shown_word
from tavaal_jax.labelling.snapshot import Snapshot
from tavaal_jax.labelling.view.next_labels import next_labels
from tavaal_jax.labelling.workdir import LabellingWorkdir

_MOST_BYTES = 2**29
"""Limit for the file of an image that is shown."""
_FEW = 30  # test images below which an accuracy is too uncertain to be continued
_TRY_EVERY = 10.0  # seconds between two attempts while something is wrong
_LOOK_EVERY = 2.0  # seconds between two looks for files that people have changed


class Page(Protocol):
    """What the loop tells a page that lives beside it."""

    @property
    def reading(self) -> contextlib.AbstractContextManager[object]:
        """Held while files of answers are read."""

    @property
    def is_blank(self) -> bool:
        """Whether it has nothing to show yet."""

    def look(self) -> None:
        """Images and answers are about to be read."""

    def show(self, context: LabellingContext, number: int, now: Snapshot) -> None:
        """Shows the state after status.json was written; `number` is the cycle."""

    def train(self) -> None:
        """A model is being trained."""

    def is_training_wanted(self) -> bool:
        """Whether a person wants a model of the answers that there are."""

    def wait(self, line: str, is_problem: bool, check_stop: Callable[[], None]) -> None:
        """Returns when answers may have come; `check_stop` is called often and may raise."""


class LivePage:
    """The loop's end of an exchange with the server."""

    def __init__(
        self,
        exchange: Exchange,
        workdir: pathlib.Path,
        reading: contextlib.AbstractContextManager[object],
        load: Callable[[], None],
    ):
        """`load` reads the answers that the page has been given so far, before the first board."""
        self.reading = reading
        self._exchange, self._workdir, self._load = exchange, workdir, load
        self._seen: object = None
        self._is_loaded = False
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._said: _Said | None = None

    @property
    def is_blank(self) -> bool:
        """Whether there is no board yet."""
        return self._exchange.board is None

    def look(self) -> None:
        """Images and answers are about to be read."""
        self._exchange.look()
        self._seen = self._stamps()

    def train(self) -> None:
        """A model is being trained."""
        self._exchange.train()

    def is_training_wanted(self) -> bool:
        """Whether a person wants a model of the answers that there are."""
        return self._exchange.is_training_wanted()

    def wait(self, line: str, is_problem: bool, check_stop: Callable[[], None]) -> None:
        """Returns when the server wakes the loop, or files of answers have changed."""
        self._exchange.complain(line if is_problem else None)
        begun = looked = time.monotonic()
        while not self._exchange.wait(0.2):
            check_stop()
            now = time.monotonic()
            if now - looked > _LOOK_EVERY:
                looked = now
                # What is wrong may be a disk, which no file of answers tells of.
                if self._stamps() != self._seen or (is_problem and now - begun > _TRY_EVERY):
                    break

    def _stamps(self) -> object:
        """What changes when people change a file of answers."""
        found = []
        folders = [self._workdir / "labels", *self._workdir.glob("to_label/cycle_*")]
        for folder in folders:
            for here, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        stamp = os.stat(os.path.join(here, name), follow_symlinks=False)
                        found.append((here, name, stamp.st_mtime_ns, stamp.st_size))
        return sorted(found)

    # The board

    def show(self, context: LabellingContext, number: int, now: Snapshot) -> None:
        """Shows the state after status.json was written; `number` is the cycle."""
        if not self._is_loaded:
            self._load()
            self._is_loaded = True
        config, workdir = context.config, context.workdir
        status = workdir.status()
        request, done = self._request(context, number, now, status)
        trained = number if workdir.is_trained(number) else number - 1
        files = {i.id: i.file for i in now.images if i.status == "ok"}
        words = {
            kind: {"shown": shown_word(said), "also": list(said)}
            for kind, said in (("unsure", now.words.unsure), ("bad", now.words.bad))
        }
        if self._said is None or self._said.trained != trained:
            self._said = _Said.of(trained, now, workdir, config.seed, request)
        said = self._said
        points = insight.curve(workdir, trained)
        board = Board(
            look=self._exchange.looks,
            status=status,
            request=request,
            done=frozenset(done),
            files=files,
            classes=now.consensus.classes,
            fixed=bool(config.folder.classes),
            unsure=words["unsure"],
            bad=words["bad"],
            parts=max(1, config.folder.request_parts),
            curve=points,
            hint=next_labels(points) if points and points[-1]["n"] >= _FEW else None,
            left=int(now.candidates.sum()) + len(now.reserved_left),
            agreement=insight.agreement(now.verdicts.values(), now.consensus.classes),
            suggestions=said.suggestions,
            guesses=said.guesses if config.folder.suggest else {},
            known=insight.known(workdir),
            preview=Previews(
                now.folder,
                files,
                config.folder.low_high,
                config.folder.max_pixels,
                config.folder.follow_links,
            ),
            computed=insight.computed(now, config, workdir),
        )
        self._exchange.show(board)

    def _request(
        self, context: LabellingContext, number: int, now: Snapshot, status: Mapping[str, object]
    ) -> tuple[RequestView | None, list[str]]:
        """The request that is out, and its images that have an answer."""
        if status.get("state") != "WAITING":
            return None, []
        rows = [r for r in context.workdir.read_request(number) if now.is_answerable(r.id)]
        ids = tuple(row.id for row in rows)
        if ids not in self._orders:
            self._orders = {ids: insight.order(now, ids)}
        folds = {name: tuple(now.near_duplicates(name)) for name in ids} if now.folds else {}
        made = (context.workdir.cycle_folder(number) / "asked.csv").stat().st_mtime
        return RequestView(
            number, _digest(number, ids), self._orders[ids], folds,
            datetime.datetime.fromtimestamp(made, datetime.UTC),
            context.config.folder.wait_for * len(rows) - 1e-9,
        ), selection.answered(rows, now.verdicts)  # fmt: skip


class _Said(NamedTuple):
    """What the newest model says of images."""

    trained: int
    """Its cycle."""
    suggestions: Mapping[str, Any]
    guesses: Mapping[str, str]

    @classmethod
    def of(
        cls,
        trained: int,
        now: Snapshot,
        workdir: LabellingWorkdir,
        seed: int,
        request: RequestView | None,
    ) -> "_Said":
        """Reads predictions.csv, once for each model."""
        predicted = insight.Predictions.read(workdir)
        asked = request.ids if request else ()
        groups = insight.suggestions(now, predicted, seed, asked) if trained >= 0 else []
        return cls(trained, {"cycle": trained, "groups": groups}, predicted.best)


def _digest(number: int, ids: Sequence[str]) -> str:
    """Digest of a request, by which a browser knows it again."""
    return hashlib.sha256("\n".join([str(number), *ids]).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Previews:
    """Makes JPEGs of images, by id, of files whose content has that id."""

    folder: pathlib.Path
    files: Mapping[str, str]
    low_high: Sequence[float]
    max_pixels: int
    follows_links: bool = False
    """Whether a link may lead out of the folder."""

    def __call__(self, name: str, side: int) -> bytes:
        """JPEG of an image, its longer side at most `side`; OSError where there is none."""
        path = path_of(self.folder, self.files[name])
        root = os.path.realpath(self.folder)
        if not self.follows_links and os.path.commonpath((os.path.realpath(path), root)) != root:
            raise OSError(f"{path} is a link out of the folder now")
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise OSError(f"{path} is not a regular file")
            content = io.BytesIO(file.read(_MOST_BYTES))
        if decode.content_id(content) != name:
            raise OSError(f"{path} has changed")
        try:
            return decode.preview(content, side, tuple(self.low_high), self.max_pixels)
        except decode.Corrupt as error:
            raise OSError(f"{path}: {error}") from error
