"""Answers given on the live page: rows of labels/page_<who>.csv, on the disk before they count.

They are files of labels as any other, so that the plain command reads them, too. A row has its
time, which grows from row to row, so that of one person's answers the newest counts.
"""

import contextlib
import csv
import datetime
import io
import os
import pathlib
import re
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels.cells import escape_formula, unescape_formula
from tavaal_jax.labelling.labels.class_names import folded
from tavaal_jax.labelling.labels.rows import moment
from tavaal_jax.labelling.passed_over import printable

FIELDS = ("id", "file", "label", "annotator", "note", "updated")
CONFIRMED = "confirmed"
"""Note of an answer that agrees with a label which the model doubts."""
LONGEST_NAME = 100
"""Limit for the characters of an annotator's name, as in all files of labels."""
_HEADER = "\ufeff" + ",".join(FIELDS) + "\n"
_WHOLE = re.compile(rb",\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")
_TICK = datetime.timedelta(microseconds=1)
_BEGINNING = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class Given(NamedTuple):
    """An answer as a person gives it."""

    id: str
    file: str
    label: str | None
    """None takes the person's answers on the image back."""
    note: str = ""
    since: datetime.datetime = _BEGINNING
    """The same answer given before this time is given once more, not a repetition."""


class Saved(NamedTuple):
    """An answer that is on the disk."""

    label: str
    note: str
    updated: datetime.datetime


class AnswerFiles:
    """The page's answers in a folder of label files."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.lock = threading.RLock()
        """Held while files are written: who reads them under it sees whole rows."""
        self._answers: dict[str, dict[str, Saved]] = {}  # by folded name and id
        self._last = _BEGINNING
        self._seen: object = None  # the files' times and sizes as of `_answers`

    def load(self) -> None:
        """Reads the answers that are there; what cannot be read is left to the loop to tell of."""
        with self.lock:
            self._seen = self._stamps()
            self._answers = {}
            for path in sorted(self.folder.glob("page_*.csv")):
                with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error, ValueError):
                    self._load(path)

    def _stamps(self) -> object:
        found = []
        for path in sorted(self.folder.glob("page_*.csv")):
            with contextlib.suppress(OSError):
                stamp = path.stat(follow_symlinks=False)
                found.append((path.name, stamp.st_mtime_ns, stamp.st_size))
        return found

    def _known(self) -> dict[str, dict[str, Saved]]:
        """All answers, read again where somebody else has changed the files."""
        if self._stamps() != self._seen:
            self.load()
        return self._answers

    def _load(self, path: pathlib.Path) -> None:
        text = path.read_text("utf-8-sig")
        header = text.partition("\n")[0]
        by = ";" if header.count(";") > header.count(",") else ","  # Spreadsheets save it so.
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=by):
            name, label = row.get("id"), unescape_formula((row.get("label") or "").strip())
            if not name or not label:
                continue
            updated = moment(row["updated"]) if row.get("updated") else _BEGINNING
            self._last = max(self._last, updated)
            mine = self._answers.setdefault(folded(_annotator(row)), {})
            if name not in mine or mine[name].updated <= updated:
                mine[name] = Saved(label, row.get("note") or "", updated)

    def of(self, who: str) -> dict[str, str]:
        """What a person has answered: labels by image id."""
        with self.lock:
            return {name: one.label for name, one in self._known().get(folded(who), {}).items()}

    def people(self) -> list[str]:
        """Folded names of who has answers."""
        with self.lock:
            return [who for who, mine in self._known().items() if mine]

    def labels(self) -> set[str]:
        """All labels that were given."""
        with self.lock:
            return {one.label for mine in self._known().values() for one in mine.values()}

    def answered_since(self, time: datetime.datetime) -> set[str]:
        """Ids of images that somebody has answered after a time."""
        with self.lock:
            return {
                name
                for mine in self._known().values()
                for name, one in mine.items()
                if one.updated > time
            }

    def confirmed(self) -> set[tuple[str, str]]:
        """Ids and labels of answers that agree with a label which the model doubts."""
        with self.lock:
            return {
                (name, one.label)
                for mine in self._known().values()
                for name, one in mine.items()
                if one.note == CONFIRMED
            }

    def save(self, who: str, given: Sequence[Given]) -> None:
        """Writes a person's answers and returns when they are on the disk; repetitions are not.

        Raises UserError for a name that cannot be one and for an answer that cannot be taken back,
        as another program has saved its file, and OSError where nothing was saved.
        """
        check_name(who)
        with self.lock:
            mine = self._known().setdefault(folded(who), {})
            last = {one.id: one for one in given}  # Of two answers in one message the later counts.
            new = [
                one
                for one in last.values()
                if one.label is not None and not _is_repeated(one, mine.get(one.id))
            ]
            gone = {one.id for one in last.values() if one.label is None and one.id in mine}
            self._append(who, mine, new)
            if gone:
                self._take_back(folded(who), gone)
                self.load()
                left = gone & self._answers.get(folded(who), {}).keys()
                if left:
                    raise UserError(
                        f"{len(left)} of your answers cannot be taken back, as another program has"
                        f" saved their file anew: delete the rows in labels/page_*.csv"
                    )
            self._seen = self._stamps()

    def _append(self, who: str, mine: dict[str, Saved], new: Sequence[Given]) -> None:
        if not new:
            return
        saved, lines = {}, []
        for one in new:
            self._last = max(datetime.datetime.now(datetime.UTC), self._last + _TICK)
            label = one.label or ""
            saved[one.id] = Saved(label, one.note, self._last)
            # Names of files are for the reader's eye, the id counts: one line for a row.
            cells = (one.id, printable(one.file), label, who, one.note)
            time = self._last.isoformat(timespec="microseconds")
            lines.append(_line([*map(escape_formula, cells), time]))
        append(self._file_of(who), "".join(lines), _HEADER)
        mine.update(saved)

    def _file_of(self, who: str) -> pathlib.Path:
        """The person's file, or one beside it where that has been saved in another shape."""
        slug = re.sub(r"[^\w-]+", "_", folded(who))[:60]
        number = 1
        while True:
            ending = f"_{number:03d}" if number > 1 else ""
            path = self.folder / f"page_{slug}{ending}.csv"
            try:
                with _opened(path, os.O_RDONLY) as file:
                    if file.read(len(_HEADER.encode())) == _HEADER.encode():
                        return path
            except FileNotFoundError:
                return path
            number += 1

    def _take_back(self, person: str, gone: set[str]) -> None:
        """Writes the files anew without a person's rows of some images."""
        for path in sorted(self.folder.glob("page_*.csv")):
            with _opened(path, os.O_RDONLY) as file:
                text = file.read().decode("utf-8", "replace")
            if not text.startswith(_HEADER) or "\ufffd" in text:
                continue
            lines = text.removeprefix(_HEADER).split("\n")
            kept = [line for line in lines if not _is_of(line, person, gone)]
            if len(kept) < len(lines):
                _replace(path, _HEADER + "\n".join(kept))


def check_name(who: str) -> None:
    """Raises UserError for what cannot be an annotator's name."""
    if not 1 <= len(who) <= LONGEST_NAME or not who.isprintable() or who != who.strip():
        raise UserError(f"a name has 1 to {LONGEST_NAME} printable characters: say who you are")


def mend(folder: pathlib.Path) -> list[str]:
    """Cuts off the page's rows whose writing was cut short; a line about each file, for the log.

    Nobody was told that such a row is saved.
    """
    found = []
    for path in sorted(folder.glob(".page_*.csv.tmp")):
        path.unlink(missing_ok=True)
    for path in sorted(folder.glob("page_*.csv")):
        with contextlib.suppress(OSError), _opened(path, os.O_RDWR) as file:
            text = file.read()
            if text.endswith(b"\n") or not _HEADER.encode().startswith(text[: len(_HEADER) + 2]):
                continue
            if _WHOLE.search(text):
                file.write(b"\n")
                continue
            if b"\n" not in text:  # Not even its header was finished.
                path.unlink()
                continue
            file.truncate(text.rfind(b"\n") + 1)
            found.append(f"labels/{path.name}: its last row was cut short, and is left out")
    return found


def append(path: pathlib.Path, text: str, header: str = "") -> None:
    """Appends text to a file, begun with `header`, and returns when it is on the disk.

    Raises OSError, and the file is what it was.
    """
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            text = text if file.read(1) == b"\n" else f"\n{text}"
        else:
            text = header + text
        try:
            data = text.encode()
            while data:
                data = data[file.write(data) :]
            _flush(file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise
    if not size:
        _flush_folder(path.parent)


@contextlib.contextmanager
def _opened(path: pathlib.Path, flags: int) -> Iterator[io.FileIO]:
    """A regular file that is no link, opened without a buffer."""
    number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    mode = "rb" if flags == os.O_RDONLY else "r+b"
    with io.FileIO(number, mode) as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(f"{path} is not a regular file")
        yield file


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes a file anew, whole or not at all, and returns when it is on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(text.encode())
        _flush(file)
    os.replace(temporary, path)
    _flush_folder(path.parent)


def _flush(file: io.IOBase) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: pathlib.Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _is_of(line: str, person: str, ids: set[str]) -> bool:
    """Whether a row is a person's answer on one of some images."""
    row = dict(zip(FIELDS, next(csv.reader([line]), []), strict=False))
    return row.get("id") in ids and folded(_annotator(row)) == person


def _annotator(row: Mapping[str, str | None]) -> str:
    return unescape_formula(row.get("annotator") or "")


def _is_repeated(one: Given, before: Saved | None) -> bool:
    """Whether an answer is on the disk already, as after a reply that was lost."""
    if before is None or before.updated < one.since:
        return False
    return (before.label, before.note) == (one.label, one.note) or (
        before.label == one.label and not one.note
    )
