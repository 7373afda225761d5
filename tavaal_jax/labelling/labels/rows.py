"""One row of a label file: its cells, or an object's values, as an answer."""

import datetime
import math
import re
import unicodedata
import urllib.parse
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.passed_over import shown


class Answer(NamedTuple):
    """One answer: the label that one annotator gave one image."""

    source: str
    """The file it is in, for messages."""
    line: int
    """From 1; of a JSON list the position in it; 0 for an image in a class folder."""
    id: str
    """As written; "" where none is given."""
    name: str
    """Path, file name or address as written; "" where none is given."""
    label: str
    """As written, stripped; "" is no answer."""
    skipped: bool
    """Label Studio's was_cancelled: the annotator cannot tell."""
    annotator: str
    """"" where unknown."""
    updated: str
    """Time of the answer in ISO 8601, or ""."""
    is_name: bool = False
    """The label is a folder's name: a class, whatever it means as an answer."""
    is_offered: bool = False
    """Given on a page or task of ours, which shows the words for answers that are no class."""


class Rejected(NamedTuple):
    """A row that says only which class an image is not."""

    place: str


REQUESTS = "to_label/"
"""Where the lists of requests lie."""
NAMES = ("file", "filename", "file_name", "image", "image_path", "path", "filepath")
LABELS = ("label", "class", "category")
CHOICE = "choice"
"""Label Studio's column of labels in projects whose control has that name."""
TIMES = ("updated_at", "updated")
DECISIONS = ("accept", "reject", "ignore")
"""Prodigy's values of `answer`: whether the annotator agrees with a row's label."""

_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_SERVED = re.compile(r"/data/(local-files/\?|upload/)")
_PAGE = re.compile(r"(^|/)labels_cycle_\d{3,}_[^/]*\.csv")
_LIVE_PAGE = re.compile(r"labels/page_[^/]*\.csv")
KINDS = {
    dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number",
    bool: "true or false", type(None): "null",
}  # fmt: skip
_LONGEST = 100  # characters of an annotator's name


def place(source: str, line: int) -> str:
    """File and line of an answer, for a message."""
    if not line:
        return source
    ending = source.rpartition(".")[2].casefold()
    word = "line" if ending in ("csv", "tsv", "txt", "jsonl", "ndjson") else "item"
    return f"{source} {word} {line}"


def moment(text: str) -> datetime.datetime:
    """Parses a time in ISO 8601, UTC where it names no zone. Raises ValueError."""
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def is_live(source: str) -> bool:
    """Whether a file holds answers of the live page."""
    return bool(_LIVE_PAGE.fullmatch(source))


def parse_row(fields: Mapping[str, object], source: str, number: int) -> list[Answer | Rejected]:
    """The answer in a row, whose values are given by column: a list of one, or empty."""
    here = place(source, number)
    decision = fields.get("answer") if fields.get("answer") in DECISIONS else None
    skipped = decision == "ignore" or fields.get("was_cancelled") in (True, "true", "True", "1")
    text = "" if skipped else label(_labelled(fields), here)
    if decision == "reject":
        return [Rejected(here)] if text else []
    if not (text or skipped):
        return []
    who = annotator(fields.get("annotator"), here, keep_address=True)
    when = time(fields, here)
    is_offered = bool(_PAGE.search(source) or is_live(source) or fields.get("tavaal_request"))
    return [
        Answer(
            source, number, *image(fields, here), text, skipped, who, when, is_offered=is_offered
        )
    ]


def _labelled(fields: Mapping[str, object]) -> object:
    """The value that holds a row's label."""
    key = next((key for key in LABELS if key in fields), "")
    if not key and is_flat_export(fields):
        key = CHOICE
    if not key and fields.get("answer") in DECISIONS:  # Prodigy's recipe of several choices.
        key = "accept"
    return fields.get(key)


def is_flat_export(fields: Collection[str]) -> bool:
    """Whether these are columns of Label Studio's CSV or JSON-MIN."""
    return "annotation_id" in fields or "lead_time" in fields


def single(labels: Sequence[str], here: str) -> str:
    """The one label that is not empty; "" where there is none. Raises UserError for several."""
    labels = [label for label in labels if label]
    if len(labels) > 1:
        raise UserError(f"{here} has {len(labels)} labels where one is expected: choose one")
    return labels[0] if labels else ""


def label(value: object, here: str) -> str:
    """The label in a cell, or in Label Studio's choices, a list or an object with one."""
    if isinstance(value, Mapping):
        if value and "choices" not in value:
            raise UserError(
                f"{here}: its label is {_kind(value)} where a choice is expected: set Label Studio"
                " up with the request's label_studio.xml"
            )
        value = value.get("choices")
    if isinstance(value, list):
        return single([_text(one, here) for one in value], here)
    return _text(value, here)


def _kind(value: Mapping[object, object]) -> str:
    """A label of another kind in words, as "a taxonomy"."""
    return f"a {shown(str(next(iter(value))))}" if len(value) == 1 else "an object"


def image(fields: Mapping[str, object], here: str) -> tuple[str, str]:
    """Id and file name of a row's image. Raises UserError where it has neither."""
    own = _text(fields.get("tavaal_id"), here)
    # In Label Studio's flat exports and tasks "id" is the task's number.
    has_task_number = "annotation_id" in fields
    values = [*(fields.get(key) for key in NAMES), _in_meta(fields.get("meta"))]
    name = next((name for value in values if (name := _name(_text(value, here, False)))), "")
    found = own or ("" if has_task_number else _text(fields.get("id"), here))
    if not found and not name:
        raise UserError(f"{here} names no image: give its id or file, or empty its label")
    return found, name


def _in_meta(value: object) -> object:
    """The file that Prodigy keeps beside an embedded picture."""
    return value.get("file") if isinstance(value, Mapping) else None


def _name(text: str) -> str:
    """The path or file name in a text, without the address of a Label Studio that serves it."""
    if text.startswith("data:"):
        return ""
    if not _SERVED.search(text):
        return text
    try:
        address = urllib.parse.urlsplit(text)
        named = urllib.parse.parse_qs(address.query).get("d")
    except ValueError:  # Not a URL.
        return text
    if named and address.path.endswith("/local-files/"):
        return named[0]
    path = urllib.parse.unquote(address.path)
    return _UPLOAD.sub("", path.rpartition("/")[2]) if "/data/upload/" in path else path


def names(text: str) -> Iterator[str]:
    """What a name as written may stand for, the likeliest first: itself, or the path of a URL."""
    yield text
    path = text
    if text.strip() != text:
        yield text.strip()
    if "://" in text:
        path = text.partition("://")[2].partition("/")[2]
        yield f"/{path}"
    unquoted = urllib.parse.unquote(path)
    if unquoted != path:
        yield unquoted
    if "://" in text:
        yield urllib.parse.unquote(re.split("[?#]", path)[0])


def annotator(value: object, here: str, keep_address: bool) -> str:
    """The annotator's name from a name, a number, or an object with a number and an address."""
    if isinstance(value, Mapping):
        keys = ("email", "id") if keep_address else ("id",)
        value = next((value[key] for key in keys if value.get(key)), None)
    name = unicodedata.normalize("NFC", _text(value, here))
    if len(name) > _LONGEST or not name.isprintable():
        raise UserError(
            f'{here}: the annotator "{shown(name)}" is no name of at most {_LONGEST} printable'
            " characters: mend it"
        )
    return name


def time(fields: Mapping[str, object], here: str) -> str:
    """Time of an answer in ISO 8601; "" where none is given."""
    text = next((text for key in TIMES if (text := _text(fields.get(key), here))), "")
    try:
        return text and moment(text).isoformat()
    except ValueError as error:
        raise UserError(
            f'{here}: "{shown(text)}" is no time such as 2026-11-23T05:50:44Z: mend it, or empty'
            " the cell"
        ) from error


def _text(value: object, here: str, strip: bool = True) -> str:
    """A text or whole number, stripped; "" for None and nan. Raises UserError for anything else.

    Without `strip`, as names of files are read, only what has nothing but blanks is empty.
    """
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        value = int(value) if value.is_integer() else value  # pandas makes 1.0 of 1.
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{here} has {KINDS[type(value)]} where a text is expected: mend it")
    try:
        text = str(value)
        return text.strip() if strip or not text.strip() else text
    except ValueError as error:  # Python limits the digits.
        raise UserError(f"{here} has a number that is too big: mend it") from error
