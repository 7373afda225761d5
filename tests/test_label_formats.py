"""Tables and JSON of labels: what people have, and every way in which a file can be wrong."""

import json
import shutil

import pytest
from label_files import SAMPLES, line, put, read, said, task

from tavaal_jax.labelling.labels import rows
from tavaal_jax.labelling.labels.rows import Answer


@pytest.fixture
def labels(tmp_path):
    """A folder of labels."""
    folder = tmp_path / "labels"
    folder.mkdir()
    return folder


# Label Studio

NAME = "images/img 0{} ü.png"


def exported(number, label, when, skipped=False, item=None):
    """An answer to a task of ours."""
    name = NAME.format(number)
    when = f"2026-11-23T05:50:{when}+00:00"
    return Answer("labels/x", number + 1 if item is None else item, name, name, label, skipped, "1",
                  when, is_offered=True)  # fmt: skip


LABELLED = [
    exported(0, "red", "44.343386"),
    exported(1, "red", "45.735979"),
    exported(2, "unsure", "44.802517"),
    exported(3, "", "45.042201", skipped=True),
    exported(4, "red", "45.507127"),
    exported(4, "blue", "45.653433"),
]
NOT_SKIPPED = [exported(n, label, t, item=item) for n, label, t, item in (
    (0, "red", "44.343386", 1), (1, "red", "45.735979", 2), (2, "unsure", "44.802517", 3),
    (4, "blue", "45.653433", 4), (4, "red", "45.507127", 5),
)]  # fmt: skip


@pytest.mark.parametrize(
    ("sample", "expected", "first"),
    [("export.json", LABELLED, 0), ("export_min.json", NOT_SKIPPED, 0),
     ("export.csv", NOT_SKIPPED, 1)],
)  # fmt: skip
def test_exports_of_label_studio(labels, sample, expected, first):
    shutil.copy(SAMPLES / sample, labels / sample)
    source = f"labels/{sample}"
    assert read(labels) == [a._replace(source=source, line=a.line + first) for a in expected]
    # Whatever it is called, where it is given by name.
    path = (labels / sample).rename(labels.parent / "x")
    assert read(labels, path) == [a._replace(source="x", line=a.line + first) for a in expected]


def test_target_storage_of_label_studio(labels):
    shutil.copytree(SAMPLES / "target_storage", labels / "target_storage")
    found = read(labels)
    assert [(a.source, a.name, a.label, a.skipped) for a in found] == [
        ("labels/target_storage/27", NAME.format(0), "blue", False),
        ("labels/target_storage/28", NAME.format(1), "red", False),
        ("labels/target_storage/29", NAME.format(2), "", True),
    ]
    assert {(a.annotator, a.line) for a in found} == {("1", 1)}
    assert [a.updated[14:26] for a in found] == ["59:27.514620", "59:25.918403", "59:26.105626"]
    assert {a.annotator for a in read(labels, keep_annotators=True)} == {"test@localhost.com"}


def test_embedded_images_are_not_read(labels):
    image = "data:image/jpeg;base64," + "A+/9" * 50_000
    put(labels, "a.json", json.dumps([task("cat", data={"image": image, "tavaal_id": "i0"})]))
    put(labels, "b.csv", f'annotation_id,id,image,label,tavaal_id\n1,2,"{image}",cat,i0\n')
    put(labels, "c.csv", f"annotation_id;id;image;label;tavaal_id\n1;2;{image};cat;i0\n")
    assert [(a.id, a.name, a.label) for a in read(labels)] == [("i0", "", "cat")] * 3


def test_what_is_no_answer_of_label_studio(labels):
    unanswered = [
        task(), task() | {"annotations": []}, {"data": {"file": "x.png"}, "predictions": [{}]},
        task("") | {"drafts": [{"result": []}]}, task(result=None),
    ]  # fmt: skip
    put(labels, "a.json", json.dumps(unanswered))
    put(labels, "b.json", "[]")
    assert read(labels) == []


# Tables

ROWS = [("i1", "cat"), ("i2", "dog, big"), ("i3", "ü;x")]


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("more", [0, 2])
def test_what_spreadsheets_save(labels, start, end, between, more):
    rows = [("ID", "Label"), ("i0", ""), *ROWS, ("", "")]
    cell = lambda text: f'"{text}"' if {",", ";"} & set(text) else text
    lines = [between.join([*map(cell, row), *[""] * more]) for row in rows]
    put(labels, "a.csv", start + end.join(lines) + end * 3)
    assert said(labels) == ROWS
    assert [a.line for a in read(labels)] == [3, 4, 5]


@pytest.mark.parametrize("column", ["id", *rows.NAMES])
@pytest.mark.parametrize("label", rows.LABELS)
def test_columns(labels, column, label):
    put(labels, "a.tsv", f"rank\t{column}\t{label}\tnote\n1\tx.png\t cat \tnice\n2\ty.png\n\n")
    assert said(labels) == [("x.png", "cat")]


def test_all_columns_of_a_row(labels):
    put(
        labels, "a.csv",
        "rank,id,file,label,annotator,note,updated_at\n"
        "0,i7,birds/x.png,cat, ann ,,2026-01-02 03:04:05\n"
        "1,,'=x.png,'-cat,'@bob,'+,2026-01-02T03:04:05+01:00\n"
        "2,i9,,' = ,,,\n",
    )  # fmt: skip
    assert read(labels) == [
        Answer("labels/a.csv", 2, "i7", "birds/x.png", "cat", False, "ann",
               "2026-01-02T03:04:05+00:00"),
        Answer("labels/a.csv", 3, "", "=x.png", "-cat", False, "@bob", "2026-01-02T03:04:05+01:00"),
        Answer("labels/a.csv", 4, "i9", "", "' =", False, "", ""),
    ]  # fmt: skip


def test_first_column_of_several_counts(labels):
    put(labels, "a.csv", "category,class,label,path,file,tavaal_id,id\na,b,c,p.png,f.png,i1,i2\n")
    assert [(a.id, a.name, a.label) for a in read(labels)] == [("i1", "f.png", "c")]


def test_table_of_another_program(labels):
    put(
        labels, "a.csv", 'sep=;\n"file";"label"\nx.png;"a ""cat"", so"\n"y\nz.png"; dog \nw.png;"e"'
    )
    assert said(labels) == [("x.png", 'a "cat", so'), ("y\nz.png", "dog"), ("w.png", "e")]
    assert [a.line for a in read(labels)] == [3, 4, 6]


def test_objects_of_lines(labels):
    lines = [{"file_name": "a/x.png", "label": 3}, {"file_name": "y.png", "label": None},
             {"file_name": "z.png", "label": "cat", "annotator": "ann"}]  # fmt: skip
    put(labels, "metadata.jsonl", "\n\n".join(map(json.dumps, lines)) + "\n")
    assert said(labels) == [("a/x.png", "3"), ("z.png", "cat")]
    assert [a.line for a in read(labels)] == [1, 5]
    put(labels, "metadata.jsonl", json.dumps(lines[0]))
    assert said(labels) == [("a/x.png", "3")]


# What is wrong


HEADER = "file,label\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        # Bytes.
        ("", "is empty"),
        ("\ufeff \n", "is empty"),
        (b"file,label\nx,\xe4\n", "not UTF-8 at byte 13 (0xe4, line 2)"),
        (b"\xef\xbb\xbffile,label\nx,caf\xe9\n", "not UTF-8 at byte 19 (0xe9, line 2)"),
        (b"file,label\nx,\xf0\x9f", "not UTF-8 at byte 13 (0xf0, line 2)"),
        (HEADER.encode() + b"x,c\0t\n", "NUL at byte 14"),
        ("file,label\nx,cat\n".encode("utf-16"), "is UTF-16"),
        ("file,label\nx,cat\n".encode("utf-16-be"), "is UTF-16"),
        ("file,label\nx,cat\n".encode("utf-16-le"), "is UTF-16"),
        ("file,label\nx,cat\n".encode("utf-32"), "is UTF-32"),
        (b"PK\x03\x04\x14", "workbook or an archive"),
        # Tables.
        ("x.png,cat\n", "no header"),
        ("file,labels\nx.png,cat\n", "no header"),
        ("name,label\nx.png,cat\n", "no header"),
        ("<!DOCTYPE html>\n<html>", "no header"),
        ("sep=;", "no header"),
        ("\"file\nlabel", "no header"),
        ("File,file,label\nx,y,cat\n", "has 'file' twice"),
        (HEADER + "\nx.png,cat,dog\n", "line 3 has 3 cells, and the header 2"),
        (HEADER + "a.png,cat\nx.png,\"cat\ny.png,dog\n", "line 3: unexpected end of data"),
        (HEADER + "x.png,\"cat\"s\n", "line 2: ',' expected after"),
        (HEADER + f"x.png,{'c' * 140_000}\n", "line 2: field larger than field limit (131072)"),
        (HEADER + ",cat\n", "line 2 names no image"),
        ("annotation_id,id,image,label\n1,2,,cat\n", "line 2 names no image"),
        ("file,label,updated_at\nx,cat,yesterday\n", 'line 2: "yesterday" is no time'),
        ("file,label,annotator\nx,cat," + "a" * 101, "annotator"),
        ("file,label,annotator\nx,cat,a\u202eb", "annotator"),
        # JSON.
        ("{", "damaged JSON"),
        (json.dumps([task("cat")])[:-5], "damaged JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"file": "x", "label": "a"}\n{"file', "line 2: damaged JSON"),
        ('{"file": "x", "label": "a"}\n' + "[" * 100_000, "line 2: damaged JSON (it is nested"),
        ('{"file": "x", "label": "a"}\n[]', "item 2 is a list where an object is expected"),
        ("[" + "9" * 5000 + "]", "a number is too big"),
        ('{"file": "x", "label": "a"}\n' + "9" * 5000, "a number is too big"),
        ("[1]", "item 1 is a number where an object is expected"),
        ('[{"file": "x", "label": "a"}, null]', "item 2 is null"),
        ('{"images": [], "annotations": [], "categories": []}', "neither Label Studio's tasks"),
        ('[{"file": "x", "text": "a"}]', "neither Label Studio's tasks"),
        ('[{"label": "cat"}, {"file": "x", "label": "cat"}]', "item 1 names no image"),
        ('[{"file": ["x"], "label": "cat"}]', "item 1 has a list where a text is expected"),
        ('[{"file": "x", "label": 1.5}]', "item 1 has a number where a text is expected"),
        ('[{"file": "x", "label": true}]', "item 1 has true or false where"),
        ('[{"file": "x", "label": ["a", "b"]}]', "item 1 has 2 labels where one is expected"),
        ('[{"file": "x", "label": {"choices": ["a", "b"]}}]', "item 1 has 2 labels"),
        ('[{"file": "x", "label": "a", "updated_at": 5}]', "is no time"),
        ('[{"file": "x", "label": "a", "annotator": "\\ud800"}]', "annotator"),
        # Label Studio.
        ([task("cat", "dog")], "item 1 has 2 labels where one is expected: choose one"),
        ([task("cat", data={"text": "x"})], "item 1 names no image"),
        ([task("cat"), task(result=[{"type": "rectanglelabels"}])], "item 2 has a result where"),
        ([task(result={"a": 1})], "no task or annotation"),
        ([task(result=[1])], "no task or annotation"),
        ([task() | {"annotations": {"a": 1}}], "no task or annotation"),
        ([task() | {"annotations": [7]}], "no task or annotation"),
        ({"task": 7, "result": []}, "no task or annotation"),
        ({"task": {"data": None}, "result": []}, "no task or annotation"),
        ([task("cat", updated_at="soon")], "is no time"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_named_with_the_place(labels, content, says):
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    is_json = content[:1] in ("[", "{")
    path = put(labels, "a.json" if is_json else "a.csv", content)
    message = line(labels)
    assert message.startswith(f"labels/{path.name}")
    assert says in message
    path.rename(labels / "7")
    assert line(labels).startswith("labels/7")
    (labels / "7").rename(labels / "b.txt")
    assert line(labels, labels / "b.txt").startswith("labels/b.txt")
