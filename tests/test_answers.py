"""Folders of labels: which files are read, and how."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from label_files import image, line, passed, put, read, said, task

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels import answers, formats, listing
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


# What is meant as labels

LEFT = [
    ".bak", ".orig", ".old", ".save", ".1", "~", ".part", ".tmp", ".txt", ".md", ".xml", ".yaml",
    ".crdownload", ".html", ".BAK",
]  # fmt: skip


@pytest.mark.parametrize("ending", [*LEFT, ".csv.bak", " copy"])
def test_a_backup_never_wins_and_is_named(labels, ending):
    put(labels, "a.csv", "file,label\nx.png,dog\n")
    name = f"a{ending}" if ending in (".txt", ".md", ".xml", ".yaml", ".html") else f"a.csv{ending}"
    put(labels, name, "file;label\nx.png;cat\n" if ending != ".txt" else "Ann labelled these\n")
    assert said(labels) == [("x.png", "dog")]
    assert passed(labels) == [
        "1 file of other kinds than .csv .tsv .json .jsonl .ndjson and images in class folders:"
        f" labels/{name}"
    ]


def test_what_is_hidden_or_of_other_programs_is_counted(labels):
    for name in (".a.csv.swp", ".DS_Store", "Thumbs.db", "~$a.csv", "#a.csv#", "__MACOSX/a.csv"):
        put(labels, name, b"\0")
    put(labels, "cat/x.png.bak", b"\0")
    hidden, others = passed(labels)
    assert hidden == (
        "6 files hidden or of other programs: labels/#a.csv#, labels/.DS_Store,"
        " labels/.a.csv.swp, ..."
    )
    assert others.startswith("1 file of other kinds")
    assert others.endswith(": labels/cat/x.png.bak")
    assert read(labels) == []


@pytest.mark.parametrize(
    "name", ["a.xlsx", "a.XLS", "export.zip", "a.csv.gz", "a.parquet", "a.ods"]
)
def test_what_holds_labels_in_another_form_is_asked_for(labels, name):
    put(labels, name, b"PK\3\4")
    assert f"labels/{name} is a workbook or an archive: save it as CSV" in line(labels)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (".ann.csv.icloud", ".ann.csv.icloud stands for ann.csv, which is in iCloud: download"),
        ("cat/.x.png.icloud", "stands for x.png, which is in iCloud"),
        ("ann.gsheet", "ann.gsheet stands for ann, which is in Google Drive: save it as CSV"),
    ],
)  # fmt: skip
def test_what_stands_for_a_file_elsewhere_is_no_label_taken_back(labels, name, says):
    put(labels, name, b"bplist00")
    assert says in line(labels)
    (labels / name).unlink()
    put(labels, ".notes.pdf.icloud", b"bplist00")
    assert read(labels) == []


def test_a_text_that_is_a_table_and_a_file_that_is_named(labels, tmp_path):
    put(labels, "a.txt", "file\tlabel\nx.png\tcat\n")
    notes = put(labels, "notes.txt", b"caf\xe9")
    odd = put(tmp_path, "a.csv.bak", "file,label\ny.png,dog\n")
    assert [a.label for a in read(labels, odd)] == ["dog", "cat"]
    assert passed(labels, odd)[0].endswith(": labels/notes.txt")
    assert "labels/notes.txt is not UTF-8" in line(labels, notes)


def test_a_file_without_any_answer_is_told(labels):
    put(labels, "a.csv", "file,label\nx.png,\n")
    put(labels, "b.json", json.dumps([task()]))
    assert passed(labels) == ["2 files of labels without any answer: labels/a.csv, labels/b.json"]


def test_images_in_folders_that_are_no_class_are_told_unless_they_are_one(labels):
    for name in ("unlabelled/a.png", "no_label/b.png", "cat/c.png"):
        put(labels, name, name)
    assert [a.label for a in read(labels)] == ["cat"]
    assert passed(labels) == [
        "2 images in folders that are no class: labels/no_label/b.png, labels/unlabelled/a.png"
    ]
    assert [a.label for a in read(labels, classes=("cat", "unlabelled"))] == ["cat", "unlabelled"]


@pytest.mark.parametrize("parts", [("train", "val"), ("Test",), ("training", "validation", "dev")])
def test_parts_of_a_data_set_are_no_classes(labels, parts):
    for part in parts:
        put(labels, f"{part}/{part}.png", part)
    assert "labels/ has the folders" in line(labels)
    assert len(read(labels, classes=parts)) == len(parts)
    images = [image(row, f"{part}/{row}.png") for row, part in enumerate(parts)]
    for key in ("folder.images", "folder.test"):
        for class_folders in (True, None):
            with pytest.raises(UserError, match=f"{key} has the folders .* of a data set: give"):
                answers.from_class_folders(images, (), class_folders, key)
    assert answers.from_class_folders(images, (), False, "folder.images").answers == []
    found = answers.from_class_folders(images, parts, True, "folder.images").answers
    assert {answer.label for answer in found} == set(parts)
    images.append(image(9, "cat/9.png"))
    assert len(answers.from_class_folders(images, (), True, "folder.images").answers) > 1


def test_class_folders_are_stripped(labels):
    images = [image(0, "cat /0.png"), image(1, "cat/1.png"), image(2, "cat\u00a0/2.png")]
    found = answers.from_class_folders(images, (), True, "folder.images").answers
    assert {answer.label for answer in found} == {"cat"}
    for name in ("cat /p.png", "cat\u00a0/q.png"):
        put(labels, name, name)
    assert {answer.label for answer in read(labels)} == {"cat"}


COPIES = (
    "ann (1).csv", "ann copy.csv", "ann copy 2.csv", "ann - Copy.csv", "ann - Copy (2).csv",
    "ann.sync-conflict-20261101-120000-ABCDEFG.csv", "ann (Bob's conflicted copy 2026-11-01).csv",
    "ann_conflict-20261101-120000.csv", "ann (SFConflict bob@x.org 2026-11-01).csv",
    "ann-DESKTOP-4F5G6H7.csv",
)  # fmt: skip


@pytest.mark.parametrize("copy", COPIES)
def test_a_file_and_its_copy_that_disagree(labels, copy):
    put(labels, "ann.csv", "file,label\np0.png,dog\np1.png,dog\n")
    put(labels, copy, "file,label\np0.png,cat\np1.png,dog\n")
    assert line(labels) == (
        f"labels/{copy} and labels/ann.csv, of which it seems to be a copy, say different things of"
        " 1 images, first p0.png (cat, dog): take the older one away"
    )
    put(labels, copy, "file,label\np0.png,dog\np2.png,dog\n")
    assert len(read(labels)) == 4
    # With times the newer one is known; and nothing is known of a file without its original.
    for name, label, day in (("ann.csv", "dog", 1), (copy, "cat", 2)):
        put(labels, name, f"file,label,updated\np0.png,{label},2026-01-0{day}\n")
    assert len(read(labels)) == 2
    (labels / "ann.csv").unlink()
    put(labels, "ann (2).csv", "file,label\np0.png,cat\n")
    put(labels, "ann (10).csv", "file,label\np0.png,dog\n")
    put(labels, copy, "file,label\np1.png,dog\n")
    sources = [answer.source for answer in read(labels)]
    assert sources.index("labels/ann (2).csv") < sources.index("labels/ann (10).csv")


def test_requests_lists_and_what_lies_beside_them(tmp_path):
    meant = ("to_label.csv", "to_label_1of2.csv", "to_label_2of2.csv")
    for name in (*meant, "index.html", "HOWTO.txt", "label_studio.json", "label_studio.xml"):
        put(tmp_path, f"to_label/cycle_000/{name}", "x")
    put(tmp_path, "to_label/cycle_1000/to_label.csv", "x")
    beside = ("cycle_000/to_label (1).csv", "cycle_000/to_label copy.csv", "cycle_000/a.csv",
              "cycle_000.bak/to_label.csv", "to_label.csv")  # fmt: skip
    for name in beside:
        put(tmp_path, f"to_label/{name}", "x")
    lists, (others,) = listing.requests(tmp_path, [tmp_path / "to_label/cycle_000/a.csv"])
    assert [path.name for path in lists] == [*meant, "to_label.csv"]
    assert set(others.names) == {f"to_label/{name}" for name in beside if "/a" not in name}
    put(tmp_path, "to_label/cycle_000/to_label.xlsx", "x")
    with pytest.raises(UserError, match="is a workbook"):
        listing.requests(tmp_path, [])


def test_the_locale_garbles_no_class(labels, tmp_path):
    script = (
        "import pathlib, sys; from tavaal_jax.labelling.labels import answers\n"
        "for a in answers.read(pathlib.Path(sys.argv[1])).answers: print(ascii(a[:5]))"
    )
    for name in ("größe/ä.png", "猫/x.png"):
        put(labels, name, name)
    put(labels, "käse.csv", "file,label\nö.png,käse\n")
    outcomes = set()
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0"}, latin_1(tmp_path)):
        if locale is not None:
            done = subprocess.run(
                [sys.executable, "-c", script, labels], capture_output=True, check=True,
                env={**os.environ, "PYTHONCOERCECLOCALE": "0", **locale},
            )  # fmt: skip
            outcomes.add(done.stdout.decode())
    assert outcomes == {"".join(f"{a[:5]!a}\n" for a in read(labels))}


def latin_1(tmp_path):
    """Settings of a Latin-1 locale; None where none can be made."""
    if shutil.which("localedef") is None:
        return None
    done = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "en_US"],
        capture_output=True, check=False,
    )  # fmt: skip
    is_made = (tmp_path / "en_US").is_dir() and done.returncode in (0, 1)
    return {"LOCPATH": str(tmp_path), "LC_ALL": "en_US", "PYTHONUTF8": "0"} if is_made else None
