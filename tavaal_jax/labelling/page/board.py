"""What the live page shows, handed from the loop's thread to the server's, and back what it asks.

A board is made whole between two pieces of work and never changed, so that the server needs no lock
to read it.
"""

import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class RequestView:
    """The request that is out."""

    number: int
    digest: str
    ids: tuple[str, ...]
    """In the order of similarity."""
    folds: Mapping[str, tuple[str, ...]]
    """Near-duplicates of images that have some, by id."""
    made: datetime.datetime
    enough: float
    """Answers from which the next model is trained."""


class Known(NamedTuple):
    """What the last cycle that has begun was trained and tested with; nobody's answers since."""

    labels: Mapping[str, str]
    """Class by image id."""
    asked_in: Mapping[str, int]
    """Cycle whose request had an image, by id."""
    since: datetime.datetime
    """When the labels were frozen."""


@dataclasses.dataclass(frozen=True)
class Board:
    """What is known between two pieces of the loop's work."""

    look: int
    """Number of the look at the files that it was made from."""
    status: Mapping[str, object]
    """What status.json has."""
    request: RequestView | None
    done: frozenset[str]
    """Images of the request that have an answer."""
    files: Mapping[str, str]
    """File of each image that can be shown and answered, by id."""
    classes: tuple[str, ...]
    fixed: bool
    unsure: Mapping[str, Any]
    """Words for an answer that is no class: the one `shown`, and what `also` means it."""
    bad: Mapping[str, Any]
    parts: int
    curve: Sequence[Mapping[str, Any]]
    hint: str | None
    left: int
    agreement: Mapping[str, float] | None
    suggestions: Mapping[str, Any]
    """The cycle, and groups of ids with confidences."""
    guesses: Mapping[str, str]
    """The model's class of images by id, where the request is to show them."""
    known: "Known"
    preview: Callable[[str, int], bytes]
    """JPEG of an image by id and longest side; OSError where it cannot be shown."""
    computed: Mapping[str, tuple[object, Callable[[], Mapping[str, Any]]]]
    """What takes longer, by name: a key that changes with its content, and what computes it."""


class Exchange:
    """The newest board, with what has happened since; every method may be called by any thread."""

    def __init__(self) -> None:
        self.version = 0
        """Grows with each change."""
        self.board: Board | None = None
        self.problem: str | None = None
        """A line about what the loop waits for people to mend."""
        self.is_training = False
        self.is_closed = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wants_training = False
        self._looks = 0
        self._said: dict[str, tuple[int, bool]] = {}  # look, and whether there is an answer now
        self._listeners: list[Callable[[], None]] = []
        self._began = 0.0
        self._share = 0.0
        self._last_seconds: float | None = None

    # The loop's side

    def look(self) -> None:
        """Tells that files are about to be read: answers saved later are not in the next board."""
        with self._lock:
            self._looks += 1

    @property
    def looks(self) -> int:
        """Number of the newest look at the files."""
        return self._looks

    def show(self, board: Board) -> None:
        """Replaces the board."""
        with self._lock:
            if self.is_training:
                self._last_seconds = time.monotonic() - self._began
            self.board, self.is_training = board, False
            self._said = {n: said for n, said in self._said.items() if said[0] >= board.look}
        self.changed()

    def train(self) -> None:
        """Tells that a model is being trained."""
        with self._lock:
            self.is_training, self.problem = True, None
            self._wants_training = False
            self._began, self._share = time.monotonic(), 0.0
        self.changed()

    def progress(self, share: float) -> None:
        """Tells which share of the training is done."""
        self._share = share

    def complain(self, line: str | None) -> None:
        """Shows what people have to mend; None: nothing."""
        if line != self.problem:
            self.problem = line
            self.changed()

    def is_training_wanted(self) -> bool:
        """Whether somebody has asked to train now."""
        return self._wants_training

    def wait(self, seconds: float) -> bool:
        """Waits until the server wakes the loop, or so long; whether it has been woken."""
        is_woken = self._wake.wait(seconds)
        self._wake.clear()
        return is_woken

    # The server's side

    def changed(self) -> None:
        """Gives a new version to whoever listens."""
        with self._lock:
            self.version += 1
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener`, in whichever thread, at every change."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Ends all streams."""
        self.is_closed = True
        self.changed()

    def want_training(self) -> None:
        """Asks the loop to train with the answers that there are, unless it is training."""
        with self._lock:
            self._wants_training = not self.is_training
        self._wake.set()

    def answered(self, said: Mapping[str, bool]) -> int:
        """Notes images that have an answer since now, or none; counts those of the request.

        The loop is woken when there are enough.
        """
        with self._lock:
            self._said |= {name: (self._looks, is_said) for name, is_said in said.items()}
            count = self._count()
            board = self.board
        if board and board.request and count >= board.request.enough and not self.is_training:
            self._wake.set()
        self.changed()
        return count

    def count(self) -> int:
        """Answers to the present request."""
        with self._lock:
            return self._count()

    def _count(self) -> int:
        board = self.board
        if board is None or board.request is None:
            return 0
        is_done = lambda n: self._said[n][1] if n in self._said else n in board.done
        return sum(map(is_done, board.request.ids))

    def seconds_to_model(self) -> float | None:
        """Estimate of the time to the next model; None where none was trained yet."""
        if not self.is_training:
            return self._last_seconds
        gone = time.monotonic() - self._began
        if self._share > 0.05:
            return gone / self._share * (1 - self._share)
        return None if self._last_seconds is None else max(0.0, self._last_seconds - gone)
