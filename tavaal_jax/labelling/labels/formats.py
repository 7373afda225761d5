"""Formats of label files: tables, Label Studio's JSON, and an object per line."""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels import rows
from tavaal_jax.labelling.labels.rows import KINDS, LABELS, NAMES, TIMES, Answer, place, shown

MOST_ROWS = 10**6
"""Limit for all files together; an image in a class folder is a row."""


class ParsedFile(NamedTuple):
    """Answers in one file, and how many rows it has."""

    answers: list[Answer]
    rows: int
    """All rows, also those without an answer; reading ends behind MOST_ROWS."""


_NEEDED = (
    "a column of images (id or file, filename, file_name, image, image_path, path, filepath) and"
    " one of labels (label, class or category)"
)
# Embedded images are not read, and csv limits the length of a cell.
_EMBEDDED = re.compile(r"data:[a-z]+/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=]*")
_FORMULA = ("'=", "'+", "'-", "'@", "'\t", "'\r")


def parse(text: str, source: str, keep_addresses: bool = False) -> ParsedFile:
    """The answers in the text of a file, which messages call `source`. Raises UserError.

    `keep_addresses`: annotators are called by their mail addresses instead of Label Studio's
    numbers, where it gives both.
    """
    start = text.lstrip()[:1]
    if not start:
        raise UserError(f"{source} is empty: delete it, or save it once more")
    is_json = start in "[{"
    found = _records(text, source, keep_addresses) if is_json else _table(text, source)
    per_row = list(itertools.islice(found, MOST_ROWS + 1))
    return ParsedFile([answer for answers in per_row for answer in answers], len(per_row))


# Tables


def _table(text: str, source: str) -> Iterator[list[Answer]]:
    """The answers of each row that is not empty."""
    text = _EMBEDDED.sub("", text)
    header: list[str] | None = None
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(text, source),
        skipinitialspace=True, strict=True,
    )  # fmt: skip
    line = 1
    try:
        for row in reader:
            number, line = line, reader.line_num + 1
            here = place(source, number)
            cells = [_unquoted(cell) for cell in row]
            if not any(cells) or (header is None and _is_separator(row)):
                continue
            if header is None:
                header = _header(cells, here)
                continue
            if any(cells[len(header) :]):
                raise UserError(
                    f"{here} has {len(cells)} cells, and the header {len(header)}: quote a cell"
                    " that holds the character between cells"
                )
            fields = dict(zip(header, cells, strict=False))
            yield rows.parse_row(fields, source, number)
    except csv.Error as error:
        raise UserError(
            f"{place(source, line)}: {error}: close its quotes, or save the file once more"
        ) from error


def _delimiter(text: str, source: str) -> str:
    """The delimiter by which the first row is a header. Raises UserError where none is."""
    lines = (line for line in io.StringIO(text, newline="") if line.strip())
    first = next(lines)
    if _is_separator([first]):  # A line sep=; tells Excel the delimiter; some programs write it.
        first = next(lines, "")
    for delimiter in ",;\t":
        try:
            row = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))
        except csv.Error:
            continue
        if _is_header({_key(cell) for cell in row}):
            return delimiter
    raise UserError(
        f"{source} has no header with {_NEEDED}, divided by commas, semicolons or tabs, but"
        f' begins with "{shown(first.strip())}": add one, or take the file away'
    )


def _is_separator(row: list[str]) -> bool:
    return row[0].strip().casefold().startswith("sep=")


def _is_header(keys: Set[str]) -> bool:
    return not keys.isdisjoint(("id", "tavaal_id", *NAMES)) and not keys.isdisjoint(LABELS)


def _header(cells: list[str], here: str) -> list[str]:
    keys = [_key(cell) for cell in cells]
    while not keys[-1]:
        keys.pop()
    for key in ("id", "tavaal_id", "annotator", *NAMES, *LABELS, *TIMES):
        if keys.count(key) > 1:
            raise UserError(f"{here}: the header has {key!r} twice: rename one of them")
    return keys


def _key(text: str) -> str:
    return text.strip().casefold()


def _unquoted(cell: str) -> str:
    """A cell without the apostrophe that keeps spreadsheets from reading it as a formula."""
    cell = cell.strip()
    return cell[1:].strip() if cell.startswith(_FORMULA) else cell


# JSON


def _records(text: str, source: str, keep_addresses: bool) -> Iterator[list[Answer]]:
    """The answers of each object."""
    records = _objects(text, source)
    tasks = [_is_task(record) for _, record in records]
    flat = [record for (_, record), task in zip(records, tasks, strict=True) if not task]
    if flat and not any(_is_header({_key(key) for key in record}) for record in flat):
        raise UserError(
            f"{source} holds neither Label Studio's tasks nor objects with {_NEEDED}: export it as"
            " JSON, JSON-MIN or CSV, or take the file away"
        )
    for (number, record), task in zip(records, tasks, strict=True):
        if task:
            yield _annotated(record, source, number, keep_addresses)
        else:
            yield rows.parse_row(
                {_key(key): value for key, value in record.items()}, source, number
            )


def _objects(text: str, source: str) -> list[tuple[int, dict[str, object]]]:
    """Numbered objects of a file that is a list, one object, or an object per line."""
    try:
        found = json.loads(text)
        records = list(enumerate(found if isinstance(found, list) else [found], 1))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or not text.lstrip().startswith("{"):
            raise _broken(source, error.lineno, error.msg) from error
        lines = enumerate(text.split("\n"), 1)
        records = [(number, _line(line, source, number)) for number, line in lines if line.strip()]
    except (RecursionError, ValueError) as error:
        raise _broken(source, 0, _reason(error)) from error
    for number, record in records:
        if not isinstance(record, dict):
            raise UserError(
                f"{place(source, number)} is {KINDS[type(record)]} where an object is expected:"
                " export it once more"
            )
    return records


def _line(line: str, source: str, number: int) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise _broken(source, number, error.msg) from error
    except (RecursionError, ValueError) as error:
        raise _broken(source, number, _reason(error)) from error


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number is too big"


def _broken(source: str, line: int, reason: str) -> UserError:
    where = f"{source} line {line}" if line else source
    return UserError(f"{where}: damaged JSON ({reason}): save or export it once more")


def _is_task(record: Mapping[str, object]) -> bool:
    return "result" in record if "task" in record else isinstance(record.get("data"), dict)


def _annotated(
    record: dict[str, object], source: str, number: int, keep_addresses: bool
) -> list[Answer]:
    """The answers in a task of Label Studio, or in an annotation that holds its task."""
    here = place(source, number)
    is_task = "task" not in record
    task = record if is_task else record["task"]
    data = task.get("data") if isinstance(task, dict) else None
    annotations = (record.get("annotations") or []) if is_task else [record]
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise _not_label_studio(here)
    fields = {_key(key): value for key, value in data.items()}
    found = []
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise _not_label_studio(here)
        skipped = annotation.get("was_cancelled") is True
        label = "" if skipped else _choice(annotation.get("result"), here)
        if label or skipped:
            found.append(
                Answer(
                    source, number, *rows.image(fields, here), label, skipped,
                    rows.annotator(annotation.get("completed_by"), here, keep_addresses),
                    rows.time(annotation, here),
                )
            )  # fmt: skip
    return found


def _not_label_studio(here: str) -> UserError:
    return UserError(f"{here} is no task or annotation of Label Studio: export it once more")


def _choice(result: object, here: str) -> str:
    """The one choice of an annotation's result; "" where it has none."""
    items = [] if result is None else result
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _not_label_studio(here)
    values = [item.get("value") for item in items if item.get("type") == "choices"]
    if items and not values:
        raise UserError(
            f"{here} has a result where none of them is a choice: set Label Studio up with the"
            " request's label_studio.xml"
        )
    labels = [rows.label(value, here) for value in values]
    return rows.single(labels, here)
