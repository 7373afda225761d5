"""Folders of labels: which files are read, and how."""

import json
import os

import pytest
from label_files import line, put, read, said, task

from tavaal_jax.labelling.labels import answers, formats
from tavaal_jax.labelling.labels.rows import Answer

HEADER = "file,label\n"


@pytest.fixture
def labels(tmp_path):
    """A folder of labels."""
    folder = tmp_path / "labels"
    folder.mkdir()
    return folder


def test_class_folders(labels):
    put(labels, "cat/x.png", b"x")
    put(labels, "cat/y.JPG", b"y")
    put(labels, "from CVAT/hot dog/x.png", b"z")
    for name in (*answers.NO_CLASS, "Unlabelled"):
        put(labels, f"{name}/{name}.png", b"w")
    x = "i2d711642b726b044"
    assert read(labels)[:2] == [
        Answer("labels/cat/x.png", 0, x, "cat/x.png", "cat", False, "", "", True),
        Answer("labels/cat/y.JPG", 0, "ia1fce4363854ff88", "cat/y.JPG", "cat", False, "", "", True),
    ]
    assert [a.label for a in read(labels)] == ["cat", "cat", "hot dog"]
    (labels / "linked").mkdir()
    (labels / "linked" / "z.png").symlink_to(labels / "cat" / "x.png")
    assert [a.id for a in read(labels) if a.label == "linked"] == [x]


def test_metadata_say_what_images_are(labels):
    for name in ("train/x.png", "train/deep/y.png", "cat/z.png"):
        put(labels, name, name)
    put(labels, "train/metadata.csv", "file_name,label\nx.png,dog\n")
    assert [a.label for a in read(labels)] == ["cat", "dog"]
    put(labels, "metadata.jsonl", '{"file_name": "w.png", "label": "owl"}')
    put(labels, "w.png", "w.png")
    assert [a.label for a in read(labels)] == ["cat", "owl", "dog"]


def test_an_image_in_no_class(labels, tmp_path):
    path = put(labels, "x.png", b"x")
    assert "labels/x.png lies in no folder" in line(labels)
    assert f"{path} lies in no folder" in line(tmp_path / "none" / "labels", path)
    assert f"{path} lies in no folder" in line(None, labels)


def test_what_programs_leave_behind_is_not_read(labels):
    for name in (
        ".~lock.a.csv#", "a.csv~", ".a.csv.swp", "a.csv.tmp", "a.csv.part", "~$a.xlsx", "#a.csv#",
        ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/cat/x.png", ".hidden/a.csv",
        "a.csv.crdownload",
    ):  # fmt: skip
        put(labels, name, b"\0")
    assert read(labels) == []


def test_further_files_and_folders(labels, tmp_path):
    put(labels, "b.csv", "file,label\nb.png,cat\n")
    sheet = put(tmp_path, "to_label/cycle_000/to_label.csv", "file,label\nc.png,cat\n")
    other = put(tmp_path / "other", "a.csv", "file,label\na.png,cat\n")
    (tmp_path / "link.csv").symlink_to(other)
    everything = read(labels, sheet, other.parent)
    assert [a.source for a in everything] == [
        "labels/b.csv", "other/a.csv", "to_label/cycle_000/to_label.csv"
    ]  # fmt: skip
    assert read(labels, other, other.parent, labels, sheet, labels / "b.csv") == everything
    assert [a.source for a in read(None, other)] == [str(other)]
    assert [a.source for a in read(None, tmp_path / "link.csv")] == [str(tmp_path / "link.csv")]
    assert read(tmp_path / "none") == []
    assert f"{tmp_path / 'none'} does not exist" in line(labels, tmp_path / "none")


def test_order_is_that_of_names(labels):
    for name in "ZbAa":
        put(labels, f"{name}.csv", f"file,label\nx,{name}\ny,{name}\n")
    found = read(labels)
    assert [a.label for a in found] == list("AAZZaabb")
    assert [a.line for a in found] == [2, 3] * 4


# What is wrong


def test_names_of_files_are_shown_in_one_line(labels):
    put(labels, "a\nb\x1b[31m.csv", "x")
    os.mkdir(os.fsencode(labels) + b"/\xff")
    assert "labels/a\\nb\\x1b[31m.csv has no header" in line(labels)
    put(labels, "a\nb\x1b[31m.csv", "file,label\nx,\x1b[31m\n")
    assert read(labels)[0].source.isprintable()


@pytest.mark.parametrize(
    ("limit", "least", "says"),
    [
        ("MOST_BYTES", 18, "has more than"),
        ("MOST_ROWS", 5, "more than"),
        ("MOST_FILES", 2, "files"),
    ],
)
def test_limits(labels, monkeypatch, limit, least, says):
    for name in ("a.csv", "b.csv"):
        put(labels, name, "file,label\nx,\ny,a\n")
    put(labels, "cat/x.png", b"x" * 1000)

    def set_to(number):
        for module in (answers, formats):
            monkeypatch.setattr(module, limit, number, raising=False)

    set_to(least)
    assert len(read(labels)) == 3
    set_to(least - 1)
    message = line(labels)
    assert message.startswith("labels/")
    assert says in message


def test_target_storage_is_as_long_as_there_are_rows(labels, monkeypatch):
    monkeypatch.setattr(answers, "MOST_FILES", 0)
    for number in range(3):
        put(labels, f"{number}", json.dumps({"task": {"data": {"file": "x"}}, "result": []}))
    assert read(labels) == []
    put(labels, "a.json", "[]")
    assert "more than 0 files of labels" in line(labels)


def test_true_limits(labels):
    assert (answers.MOST_BYTES, answers.MOST_ROWS, answers.MOST_FILES) == (100 * 2**20, 10**6, 1000)
    with put(labels, "a.csv", "").open("wb") as file:
        file.truncate(answers.MOST_BYTES + 1)  # Of no room on the disk.
    assert "labels/a.csv has more than 100 MB" in line(labels)


def test_links_and_what_is_no_file(labels, tmp_path):
    secret = put(tmp_path, "secret", "file,label\nx,hidden\n")
    (labels / "a.csv").symlink_to(secret)
    message = line(labels)
    assert "labels/a.csv is a link" in message
    assert "hidden" not in message
    (labels / "a.csv").unlink()
    (labels / "deep").mkdir()
    (labels / "deep" / "folder").symlink_to(tmp_path)
    assert "labels/deep/folder is a link" in line(labels)
    (labels / "deep" / "folder").unlink()
    (labels / "deep" / "x.png").symlink_to(tmp_path / "gone")
    assert "labels/deep/x.png cannot be read (No such file" in line(labels)
    (labels / "deep" / "x.png").unlink()
    for name in ("pipe.csv", "deep/pipe.png"):
        os.mkfifo(labels / name)
        assert f"labels/{name} cannot be read (not a regular file)" in line(labels)
        (labels / name).unlink()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in line(labels, tmp_path / "loop")


def test_what_may_not_be_read(labels, monkeypatch):
    put(labels, "a.csv", HEADER)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(answers.os, "open", refuse)
    assert "labels/a.csv cannot be read (Permission denied)" in line(labels)
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", refuse)
    assert "labels cannot be read (Permission denied)" in line(labels)


def test_nothing_in_a_file_is_opened(labels, tmp_path, monkeypatch):
    secret = put(tmp_path, "secret.png", "a secret")
    rows = [str(secret), "../secret.png", f"file://{secret}", "../../../../etc/passwd", "/dev/zero",
            f"/data/local-files/?d={secret}"]  # fmt: skip
    put(labels, "a.csv", "\n".join(["file,label", *(f"{row},cat" for row in rows)]))
    put(labels, "b.json", json.dumps([task("cat", data={"image": row, "id": row}) for row in rows]))
    opened, original = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest: opened.append(str(path)) or original(path, *rest)
    )
    assert len(read(labels)) == 2 * len(rows)
    assert opened == [str(labels / "a.csv"), str(labels / "b.json")]


class Growing:
    """Opens files that somebody else writes to while they are read, `times` times."""

    def __init__(self, times, change):
        self._opened, self.times, self._change = answers._opened, times, change

    def __call__(self, path, flags=0):
        file = self._opened(path, flags)
        if self.times:
            self.times -= 1
            read = file.read
            change = self._change

            class Proxy:
                fileno, __enter__ = file.fileno, lambda self: self
                __exit__ = file.__exit__

                def read(self, size):
                    data = read(size)
                    change(path)
                    return data

            return Proxy()
        return file


@pytest.mark.parametrize("change", ["appended", "rewritten"])
def test_a_file_that_changes_while_it_is_read_is_read_again(labels, monkeypatch, change):
    put(labels, "a.csv", "file,label\nx,ca\n")
    lines = iter(["y,dog\n", "z,fox\n", "w,owl\n"])

    def write(path):
        with path.open("a") as file:
            file.write(next(lines))
        if change == "rewritten":  # Of the same length.
            path.write_text("file,label\nx,do\n")
            os.utime(path, ns=(1, next(times)))

    times = iter([1, 2, 3])
    monkeypatch.setattr(answers.time, "sleep", lambda _: None)
    monkeypatch.setattr(answers, "_opened", Growing(1, write))
    whole = [("x", "ca"), ("y", "dog")] if change == "appended" else [("x", "do")]
    assert said(labels) == whole


def test_a_file_that_does_not_stop_changing(labels, monkeypatch):
    put(labels, "a.csv", "file,label\nx,ca\n")

    def write(path):
        with path.open("a") as file:
            file.write("y,dog\n")

    monkeypatch.setattr(answers.time, "sleep", lambda _: None)
    monkeypatch.setattr(answers, "_opened", Growing(9, write))
    assert "labels/a.csv is being written" in line(labels)


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_or_the_new(labels, monkeypatch):
    put(labels, "a.csv", "file,label\nx,old\ny,old\n")

    def replace(path):
        new = path.with_name("new.tmp")
        new.write_text("file,label\nx,new\n")
        os.replace(new, path)

    monkeypatch.setattr(answers, "_opened", Growing(1, replace))
    assert said(labels) == [("x", "old"), ("y", "old")]
    assert said(labels) == [("x", "new")]
