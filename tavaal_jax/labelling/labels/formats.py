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
from tavaal_jax.labelling.labels.rows import (
    CHOICE,
    KINDS,
    LABELS,
    NAMES,
    TIMES,
    Answer,
    Rejected,
    place,
    shown,
)

MOST_ROWS = 10**6
"""Limit for all files together; an image in a class folder is a row."""


_Row = Answer | Rejected


class ParsedFile(NamedTuple):
    """Answers in one file, and how many rows it has."""

    answers: list[Answer]
    rows: int
    """All rows, also those without an answer; reading ends behind MOST_ROWS."""
    rejected: list[str]
    """Places of rows saying only which class an image is not."""


_NEEDED = (
    "a column of images (id or file, filename, file_name, image, image_path, path, filepath) and"
    " one of labels (label, class or category)"
)
# Embedded images are not read, and csv limits the length of a cell.
_EMBEDDED = re.compile(r"data:[a-z]+/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=]*")
_FORMULA = re.compile(r"'+[=+\-@\t\r]")
_BOXES = frozenset(
    ("xmin", "x_min", "x1", "left", "bbox", "bbox_x", "box", "bndbox", "xcenter", "x_center")
)
"""Columns of tables of boxes, several of which may lie in an image."""


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
    every = [one for found in per_row for one in found]
    answers = [one for one in every if isinstance(one, Answer)]
    rejected = [one.place for one in every if isinstance(one, Rejected)]
    return ParsedFile(answers, len(per_row), rejected)


def is_table(text: str) -> bool:
    """Whether a text begins with the header of a table of labels."""
    try:
        return bool(text.strip()) and bool(_delimiter(text, ""))
    except UserError:
        return False


# Tables


def _table(text: str, source: str) -> Iterator[list[_Row]]:
    """The answers of each row that is not empty."""
    text = _EMBEDDED.sub("", text)
    header: list[str] | None = None
    boxes: dict[tuple[str, str], Answer] = {}
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
            # A file's name may begin or end with a blank.
            fields |= {k: _unescaped(c) for k, c in zip(header, row, strict=False) if k in NAMES}
            found = rows.parse_row(fields, source, number)
            if not _BOXES.isdisjoint(header):
                _check_boxes(found, boxes)
            yield found
    except csv.Error as error:
        raise UserError(
            f"{place(source, line)}: {error}: close its quotes, or save the file once more"
        ) from error


def _check_boxes(found: list[_Row], before: dict[tuple[str, str], Answer]) -> None:
    """Raises UserError where two boxes of an image have different labels."""
    for answer in found:
        if isinstance(answer, Answer):
            first = before.setdefault((answer.id, answer.name), answer)
            if first.label != answer.label:
                raise UserError(
                    f"{place(answer.source, answer.line)}: {shown(answer.name or answer.id)} is"
                    f" {shown(answer.label)}, and {shown(first.label)} in line {first.line}: it is"
                    " a table of boxes, several to an image, so give one class for an image"
                )


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
    has_label = not keys.isdisjoint(LABELS)
    has_label |= CHOICE in keys and rows.is_flat_export(keys)
    has_label |= "accept" in keys and "answer" in keys
    return not keys.isdisjoint(("id", "tavaal_id", *NAMES)) and has_label


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
    return _unescaped(cell.strip()).strip()


def _unescaped(cell: str) -> str:
    """A cell without the apostrophe that keeps spreadsheets from reading it as a formula."""
    return cell[1:] if _FORMULA.match(cell) else cell


# JSON


def _records(text: str, source: str, keep_addresses: bool) -> Iterator[list[_Row]]:
    """The answers of each object."""
    records = list(_rows_of_columns(_objects(text, source)))
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


def _rows_of_columns(
    records: list[tuple[int, dict[str, object]]],
) -> Iterator[tuple[int, dict[str, object]]]:
    """The records; instead of a data frame's columns, as pandas writes them, its rows."""
    for number, record in records:
        columns = {key: value for key, value in record.items() if isinstance(value, dict)}
        if len(columns) < 2 or len(columns) < len(record) or _is_task(record):
            yield number, record
            continue
        if not _is_header({_key(key) for key in columns}):
            yield number, record
            continue
        indices = dict.fromkeys(index for column in columns.values() for index in column)
        for at, index in enumerate(indices, 1):
            yield at, {key: column.get(index) for key, column in columns.items()}


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
) -> list[_Row]:
    """The answers in a task of Label Studio, or in an annotation that holds its task."""
    here = place(source, number)
    is_task = "task" not in record
    task = record if is_task else record["task"]
    data = task.get("data") if isinstance(task, dict) else None
    # Label Studio before 1.0 called annotations completions.
    several = record.get("annotations") or record.get("completions") or []
    annotations = several if is_task else [record]
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise _not_label_studio(here)
    fields = {_key(key): value for key, value in data.items()}
    found: list[_Row] = []
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise _not_label_studio(here)
        skipped = True in (annotation.get("was_cancelled"), annotation.get("skipped"))
        label = "" if skipped else _choice(annotation.get("result"), here)
        if label or skipped:
            found.append(
                Answer(
                    source, number, *rows.image(fields, here), label, skipped,
                    rows.annotator(annotation.get("completed_by"), here, keep_addresses),
                    rows.time(annotation, here), is_offered=bool(data.get("tavaal_request")),
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
