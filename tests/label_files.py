"""Label files for tests, in every format, and what is read from them."""

import json
import pathlib

import pytest

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels import answers
from tavaal_jax.labelling.labels.consensus import aggregate
from tavaal_jax.labelling.labels.rows import Answer

SAMPLES = pathlib.Path(__file__).parent / "data" / "labels"
"""Exports of a Label Studio 1.23.2 server."""
UNSURE, BAD = ("unsure", "skip", "?"), ("bad", "bad image")


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder, *further, **options):
    return answers.read(folder, further, **options).answers


def passed(folder, *further, **options):
    """Lines about what is not read."""
    return [kind.line for kind in answers.read(folder, further, **options).passed]


def said(folder):
    """Image and label of each answer."""
    return [(answer.id or answer.name, answer.label) for answer in read(folder)]


def line(folder, *further):
    """The error line of reading."""
    with pytest.raises(UserError) as caught:
        read(folder, *further)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    assert message.count(": ") >= 1
    return message


def task(*choices, data=None, **annotation):
    """A task with one annotation as Label Studio exports it."""
    result = [
        {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [c]}}
        for c in choices
    ]
    return {
        "id": 7,
        "data": {"file": "x.png"} if data is None else data,
        "annotations": [{"completed_by": 3, "result": result, **annotation}],
    }


# Images, answers, verdicts


def number(index):
    return f"i{index:016x}"


def image(index, file, status="ok", id=None):
    return Image(number(index) if id is None else id, file, status, 8, 8, "RGB")


IMAGES = (
    image(0, "a.jpg"),
    image(1, "birds/x.jpg"),
    image(2, "owls/x.jpg"),
    image(3, "birds/deep/y.v2.png"),
    image(0, "birds/copy of a.jpg", f"duplicate_of:{number(0)}"),
    image(5, "gone.jpg", "missing"),
    image(6, "torn.jpg", "corrupt", ""),
    image(7, "new.jpg", "missing"),
    image(8, "new.jpg"),
    image(9, "cafe\u0301\\z.jpg"),
)


def answer(name="", label="cat", id="", line=2, source="labels/a.csv", annotator="", updated="",
           skipped=False):  # fmt: skip
    return Answer(source, line, id, name, label, skipped, annotator, updated)


def aggregated(*said, images=IMAGES, classes=(), fixed=False, unsure=UNSURE, bad=BAD, **options):
    options |= {"classes": classes, "fixed": fixed, "unsure": unsure, "bad": bad}
    found = aggregate(images, said, **options)
    for order in (said[::-1], sorted(said)):
        assert aggregate(images, order, **options) == found
    return found


def kinds(*said, **options):
    """The verdict on each image: its class, or the kind."""
    found = aggregated(*said, **options)
    assert not found.unmatched
    return {name: verdict.label or verdict.kind for name, verdict in found.verdicts.items()}


# The same rows in every form


def table(rows, between=",", end="\n", start=""):
    quote = lambda text: '"' + text.replace('"', '""') + '"'
    lines = [["id", "file", "label", "annotator", "updated_at"], *rows]
    return start + "".join(between.join(map(quote, line)) + end for line in lines)


def annotation(row):
    """Of Label Studio, without the task."""
    _, _, label, person, when = row
    base = task(label)["annotations"][0] | {"updated_at": when or None, "completed_by": person}
    return base | ({"result": [], "was_cancelled": True} if label == "unsure" else {})


def label_studio(rows):
    return json.dumps(
        [{"data": {"tavaal_id": r[0], "file": r[1]}, "annotations": [annotation(r)]} for r in rows]
    )


def json_min(rows):
    keys = ("tavaal_id", "image", "label", "annotator", "updated_at")
    return json.dumps(
        [{"id": 7, "annotation_id": 1, **dict(zip(keys, row, strict=True))} for row in rows]
    )


def label_studio_table(rows):
    text = table(rows).replace('"id","file"', '"tavaal_id","image"', 1)
    return text.replace("\n", ',"1","2"\n').replace('"1","2"', '"annotation_id","id"', 1)


def lines(rows):
    keys = ("id", "file_name", "label", "annotator", "updated_at")
    return "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows)


TABLES = {
    "csv": table,
    "tsv": lambda rows: table(rows, "\t"),
    "semicolon": lambda rows: table(rows, ";", "\r\n", "\ufeff"),
    "json": label_studio,
    "json_min": json_min,
    "label_studio_csv": label_studio_table,
    "jsonl": lines,
}


def write(folder, name, form, rows, contents=None):
    """The rows as a file or folder of that form; (source, line, row) of each."""
    rows = list(rows)
    if form in TABLES:
        name += {"json": ".json", "json_min": ".json", "jsonl": ".jsonl"}.get(form, ".csv")
        put(folder, name, TABLES[form](rows))
        first = 2 if form in ("csv", "tsv", "semicolon", "label_studio_csv") else 1
        return [(f"labels/{name}", at, row) for at, row in enumerate(rows, first)]
    written = []
    for at, row in enumerate(rows):
        if form == "storage":
            path = f"{name}/{at}"
            data = {"tavaal_id": row[0], "file": row[1]}
            put(folder, path, json.dumps(annotation(row) | {"task": {"id": 1, "data": data}}))
            written.append((f"labels/{path}", 1, row))
        else:
            path = f"{name}/{row[2]}/{at}.png"
            put(folder, path, contents[row[0]])
            written.append((f"labels/{path}", 0, row))
    return written
