"""What the live page is sent: checked, and made into answers, wishes and replies."""

import datetime
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels import class_names
from tavaal_jax.labelling.page import answer_files
from tavaal_jax.labelling.page.answer_files import CONFIRMED, Given
from tavaal_jax.labelling.page.board import Board
from tavaal_jax.labelling.page.security import Refused

_BEGINNING = datetime.datetime.min.replace(tzinfo=datetime.UTC)


def person(value: object) -> str:
    """The name of who answers. Raises Refused."""
    name = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    try:
        answer_files.check_name(name)
    except UserError as error:
        raise Refused(409, str(error)) from error
    return name


def given(
    board: Board, answers: object, labels: Iterable[str], doubted: Mapping[str, str]
) -> list[Given]:
    """Answers to be saved. Raises Refused at the first that cannot be.

    `labels` are those that were given so far; `doubted` are labels by id which the model doubts.
    """
    if not isinstance(answers, list):
        raise Refused(400, "answers is no list")
    spelt = {class_names.spelling(name): name for name in (*labels, *reversed(board.classes))}
    request = board.request
    asked = set(request.ids) if request else set()
    found = []
    for one in answers:
        if not isinstance(one, dict):
            raise Refused(400, "an answer is no object")
        name, label = one.get("id"), one.get("label")
        if not isinstance(name, str) or name not in board.files:
            raise Refused(400, "an answer names no image: load the page again")
        if label is not None:
            label = _label(board, label, spelt)
        # Asked again, the same answer counts again.
        since = request.made if request and name in asked else _BEGINNING
        note = CONFIRMED if label is not None and doubted.get(name) == label else ""
        found.append(Given(name, board.files[name], label, note, since))
    return found


def _label(board: Board, value: object, spelt: dict[str, str]) -> str:
    """A label as it is to be written; a new one is added to `spelt`. Raises Refused."""
    if not isinstance(value, str):
        raise Refused(400, "a label is no text")
    label = unicodedata.normalize("NFC", value).strip()
    words = {class_names.caseless(w) for said in _words(board) for w in said}
    if class_names.caseless(label) in words and label not in board.classes:
        return label
    if not label or class_names.is_missing(label):
        raise Refused(400, f'"{label}" is no class, as programs write it for an empty cell')
    try:
        class_names.check_names([label])
    except UserError as error:
        raise Refused(400, str(error)) from error
    if board.fixed and label not in board.classes:
        raise Refused(400, f'"{label}" is none of the classes')
    return label if board.fixed else spelt.setdefault(class_names.spelling(label), label)


def _words(board: Board) -> tuple[Sequence[str], Sequence[str]]:
    return board.unsure["also"], board.bad["also"]


def new_classes(board: Board, labels: Iterable[str]) -> list[str]:
    """Classes that the page was given since the board was made, sorted."""
    words = {class_names.caseless(w) for said in _words(board) for w in said}
    known = set(board.classes)
    return sorted(n for n in labels if n not in known and class_names.caseless(n) not in words)


def wished(board: Board, value: object) -> list[str]:
    """Ids of images that are to be asked for next. Raises Refused."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Refused(400, "ids is no list of texts")
    names = list(dict.fromkeys(value))
    if not all(name in board.files for name in names):
        raise Refused(400, "an id names no image: load the page again")
    return names


def doubts(rows: Sequence[Mapping[str, Any]], confirmed: Iterable[tuple[str, str]]) -> list[Any]:
    """Doubtful answers but for those that somebody has confirmed."""
    left_out = set(confirmed)
    return [row for row in rows if (row["id"], row["label"]) not in left_out]
