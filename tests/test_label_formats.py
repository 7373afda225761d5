"""Tables and JSON of labels: what people have, and every way in which a file can be wrong."""

import json
import shutil

import pytest
from label_files import SAMPLES, image, line, passed, put, read, said, task

from tavaal_jax.labelling import requests, workdir
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


# Other programs


def prodigy(form, *rows):
    """Rows of a name, a label and Prodigy's answer in JSON lines or a table."""
    if form == "csv":
        return "image,label,answer\n" + "".join(",".join(row) + "\n" for row in rows)
    keys = ("image", "label", "answer")
    return "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_prodigy_rejects_or_ignores_is_not_labelled_so(labels, form):
    rows = [("a.png", "cat", "accept"), ("b.png", "cat", "reject"), ("c.png", "cat", "ignore")]
    put(labels, f"p.{form}", prodigy(form, *rows))
    assert [(a.name, a.label, a.skipped) for a in read(labels)] == [
        ("a.png", "cat", False), ("c.png", "", True)
    ]  # fmt: skip
    place = "line 3" if form == "csv" else "line 2"
    assert passed(labels) == [
        f"1 row rejecting a class, which is no answer: labels/p.{form} {place}"
    ]
    # Another column of that name means nothing.
    put(labels, f"p.{form}", prodigy(form, ("a.png", "cat", "yes")))
    assert said(labels) == [("a.png", "cat")]


def test_prodigys_choices_and_embedded_pictures(labels):
    picture = "data:image/png;base64,AAAA"
    rows = [
        {"image": "a.png", "accept": ["cat"], "answer": "accept", "options": [{"id": "cat"}]},
        {"image": picture, "path": "b.png", "accept": ["dog"], "answer": "accept"},
        {"image": picture, "meta": {"file": "c.png"}, "accept": ["dog"], "answer": "accept"},
        {"image": "d.png", "accept": [], "answer": "accept"},
        {"image": "e.png", "accept": ["dog"], "answer": "ignore"},
        {"image": "f.png", "accept": ["dog"], "answer": "reject"},
    ]
    put(labels, "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(a.name, a.label, a.skipped) for a in read(labels)] == [
        ("a.png", "cat", False), ("b.png", "dog", False), ("c.png", "dog", False),
        ("e.png", "", True),
    ]  # fmt: skip


def test_a_table_of_boxes(labels):
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    put(labels, "b.csv", head + "p0.png,8,8,cat,1,1,3,3\np0.png,8,8,cat,1,1,3,4\n")
    assert said(labels) == [("p0.png", "cat")] * 2
    put(labels, "b.csv", head + "p0.png,8,8,cat,1,1,3,3\np0.png,8,8,dog,1,1,3,4\n")
    assert line(labels) == (
        "labels/b.csv line 3: p0.png is dog, and cat in line 2: it is a table of boxes, several to"
        " an image, so give one class for an image"
    )


def test_a_data_frame_as_pandas_writes_it(labels):
    frame = {"file": {"0": "a.png", "1": "b.png"}, "label": {"0": "cat", "1": "dog"}}
    put(labels, "a.json", json.dumps(frame))
    assert said(labels) == [("a.png", "cat"), ("b.png", "dog")]
    assert [a.line for a in read(labels)] == [1, 2]
    put(labels, "a.json", '[{"file": "a.png", "label": 1.0}, {"file": "b.png", "label": NaN}]')
    assert said(labels) == [("a.png", "1")]


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"taxonomy": [["a", "b"]]}, "a taxonomy"), ({"rating": 4}, "a rating"),
     ({"text": ["x"], "rating": 4}, "an object")],
)  # fmt: skip
def test_a_label_of_another_kind(labels, value, kind):
    put(labels, "a.json", json.dumps([{"image": "x.png", "label": value, "annotation_id": 4}]))
    assert f"labels/a.json item 1: its label is {kind} where a choice is expected" in line(labels)


def test_other_names_in_exports_of_label_studio(labels):
    put(labels, "a.csv", "image,id,choice,annotation_id\nx.png,1,cat,1\n")
    put(labels, "b.json", json.dumps([{"image": "y.png", "choice": "dog", "lead_time": 3.5}]))
    old = {"result": task("owl")["annotations"][0]["result"]}
    put(labels, "c.json", json.dumps([{"data": {"image": "z.png"}, "completions": [old]}]))
    put(labels, "d.json", json.dumps([{"image": "w.png", "annotation_id": 1, "label": "",
                                       "was_cancelled": True}]))  # fmt: skip
    assert said(labels) == [("x.png", "cat"), ("y.png", "dog"), ("z.png", "owl"), ("w.png", "")]
    # Alone it may be anything.
    put(labels, "e.csv", "image,choice\nx.png,cat\n")
    assert "labels/e.csv has no header" in line(labels)


def test_what_a_page_or_task_of_ours_offered(labels):
    put(labels, "labels_cycle_003_Ann.csv", "id,label\ni1,bad\n")
    put(labels, "labels_Ann.csv", "id,label\ni1,bad\n")
    put(
        labels, "a.json", json.dumps([task("bad", data={"file": "x", "tavaal_request": "cycle_0"})])
    )
    put(labels, "b.json", json.dumps([task("bad")]))
    offered = {answer.source: answer.is_offered for answer in read(labels)}
    assert offered == {
        "labels/a.json": True, "labels/b.json": False, "labels/labels_Ann.csv": False,
        "labels/labels_cycle_003_Ann.csv": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["=x.png", "'=x.png", "''=x.png", "'x.png", "-1", "'-", "@"])
def test_every_name_comes_back_from_a_table(labels, tmp_path, name):
    escaped = requests.escape_formula(name)
    assert workdir.unescape_formula(escaped) == name
    put(labels, "a.csv", f"file,label\n{escaped},cat\n")
    assert said(labels) == [(name, "cat")]
    kept = workdir.LabellingWorkdir(tmp_path)
    images = (image(0, name),)
    kept.write_images(images)
    assert kept.images() == images


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
