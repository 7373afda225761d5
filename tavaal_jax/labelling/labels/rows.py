"""One answer of a file of labels: what its cells, or an object's values, mean."""

import datetime
import re
import unicodedata
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.inventory import printable


class Answer(NamedTuple):
    """What one row of a file of labels says."""

    source: str
    """The file it stands in, for messages."""
    line: int
    """From 1; of a JSON list the position in it; 0 for an image in a class folder."""
    id: str
    """As written; "" where none is given."""
    name: str
    """Path or file name as written; "" where none is given."""
    label: str
    """As written, without blanks around it; "" is no answer."""
    skipped: bool
    """Label Studio's was_cancelled: nobody can say."""
    annotator: str
    """"" where that is unknown."""
    updated: str
    """When it was given, ISO 8601, or ""."""


NAMES = ("file", "filename", "file_name", "image", "image_path", "path", "filepath")
LABELS = ("label", "class", "category")
TIMES = ("updated_at", "updated")

_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
_SERVED = re.compile(r"/data/(local-files/\?|upload/)")
KINDS = {
    dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number",
    bool: "true or false", type(None): "null",
}  # fmt: skip
_LONGEST = 100  # characters of an annotator's name


def shown(text: str, most: int = 80) -> str:
    """A text of a file as a message shows it: one line, printable, not long."""
    cut = text[:most]
    return printable(cut) + "..." * (len(text) > most)


def place(source: str, line: int) -> str:
    """Where an answer stands, for a message."""
    if not line:
        return source
    ending = source.rpartition(".")[2].casefold()
    word = "line" if ending in ("csv", "tsv", "txt", "jsonl") else "item"
    return f"{source} {word} {line}"


def moment(text: str) -> datetime.datetime:
    """The time that `text` is in ISO 8601, UTC where it names no zone. Raises ValueError."""
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def of_fields(fields: Mapping[str, Any], source: str, number: int) -> list[Answer]:
    """The answer of a row, by the names of its cells: one or none."""
    here = place(source, number)
    key = next((key for key in LABELS if key in fields), "")
    said = label(fields.get(key), here)
    if not said:
        return []
    who = person(fields.get("annotator"), here, keep_address=True)
    when = time(fields, here)
    return [Answer(source, number, *image(fields, here), said, False, who, when)]


def single(labels: Sequence[str], here: str) -> str:
    """The only label that is not empty; "" where there is none."""
    labels = [label for label in labels if label]
    if len(labels) > 1:
        raise UserError(f"{here} has {len(labels)} labels where one is expected: choose one")
    return labels[0] if labels else ""


def label(value: Any, here: str) -> str:
    """A cell, or what Label Studio has in its place: choices, or an object of them."""
    if isinstance(value, Mapping):
        value = value.get("choices")
    if isinstance(value, list):
        return single([_text(label, here) for label in value], here)
    return _text(value, here)


def image(fields: Mapping[str, Any], here: str) -> tuple[str, str]:
    """Id and name that a row gives."""
    own = _text(fields.get("tavaal_id"), here)
    # What Label Studio calls id in its flat exports and tasks is the task's number.
    of_task = "annotation_id" in fields
    name = next((name for key in NAMES if (name := _name(_text(fields.get(key), here)))), "")
    found = own or ("" if of_task else _text(fields.get("id"), here))
    if not found and not name:
        raise UserError(f"{here} names no image: give its id or file, or empty its label")
    return found, name


def _name(text: str) -> str:
    """The path or file name in what may be an address of Label Studio."""
    if text.startswith("data:"):
        return ""
    if "://" not in text and not _SERVED.search(text):
        return text
    try:
        address = urllib.parse.urlsplit(text)
        named = urllib.parse.parse_qs(address.query).get("d")
    except ValueError:  # No address at all.
        return text
    if named and address.path.endswith("/local-files/"):
        return named[0]
    path = urllib.parse.unquote(address.path)
    return _UPLOAD.sub("", path.rpartition("/")[2]) if "/data/upload/" in path else path


def person(value: Any, here: str, keep_address: bool) -> str:
    """Who answered: a name, a number, or an object that has a number and an address."""
    if isinstance(value, Mapping):
        names: Sequence[str] = ("email", "id") if keep_address else ("id",)
        value = next((value[name] for name in names if value.get(name)), None)
    name = unicodedata.normalize("NFC", _text(value, here))
    if len(name) > _LONGEST or not name.isprintable():
        raise UserError(
            f'{here}: the annotator "{shown(name)}" is no name of at most {_LONGEST} printable'
            " characters: mend it"
        )
    return name


def time(fields: Mapping[str, Any], here: str) -> str:
    """When it was answered; "" where nothing says so."""
    text = next((text for key in TIMES if (text := _text(fields.get(key), here))), "")
    try:
        return text and moment(text).isoformat()
    except ValueError as error:
        raise UserError(
            f'{here}: "{shown(text)}" is no time such as 2026-11-23T05:50:44Z: mend it, or empty'
            " the cell"
        ) from error


def _text(value: Any, here: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{here} has {KINDS[type(value)]} where a text is expected: mend it")
    try:
        return str(value).strip()
    except ValueError as error:  # Python limits the digits.
        raise UserError(f"{here} has a number that is too big: mend it") from error
