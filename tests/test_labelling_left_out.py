"""What the labelling loop leaves out: in its log once, in status.json always; reserved words."""

import collections
import csv
import json
import shutil

import people
import pytest

from tavaal_jax.errors import UserError


@pytest.fixture
def started(tmp_path):
    """A function that starts the study, and its workdir, with a request."""
    people.folder(tmp_path / "photos", 24)
    one, workdir = people.config(tmp_path / "photos", tmp_path), tmp_path / "work"
    people.run(one, workdir)
    return lambda: people.run(one, workdir), workdir


def status(workdir):
    return json.loads((workdir / "status.json").read_text("utf-8"))


def test_what_is_left_out_is_logged_once_and_always_in_the_status(started):
    run, workdir = started
    assert status(workdir)["passed_over"] == {"images": [], "labels": []}
    (workdir / "labels" / "a.csv.bak").write_text("file,label\nphoto_000.png,cat\n")
    (workdir / "labels" / "a.csv").write_text("file,label\nphoto_000.png,nan\n")
    request = workdir / "to_label" / "cycle_000"
    shutil.copy(request / "to_label.csv", request / "to_label (1).csv")
    copy = workdir / "to_label" / "cycle_000.bak" / "to_label.csv"
    copy.parent.mkdir()
    shutil.copy(request / "to_label.csv", copy)
    shutil.copytree(workdir / "cycles" / "cycle_000", workdir / "cycles" / "cycle_000.bak")
    lines = [line for line in run()[1] if line.startswith("not read: ")]
    assert sorted(lines) == [
        "not read: 1 entry of cycles/ beside the cycles: cycles/cycle_000.bak",
        "not read: 1 file of other kinds than .csv .tsv .json .jsonl .ndjson and images in class"
        " folders: labels/a.csv.bak",
        "not read: 1 row saying nan, which is no answer: labels/a.csv line 2",
        "not read: 2 files in to_label/ beside its lists (answers of your own belong into"
        " labels/): to_label/cycle_000.bak/to_label.csv, to_label/cycle_000/to_label (1).csv",
    ]
    told = status(workdir)["passed_over"]["labels"]
    assert {one["count"] for one in told} == {1, 2}
    assert ["labels/a.csv.bak"] in [one["first"] for one in told]
    assert not [line for line in run()[1] if line.startswith("not read: ")]
    assert status(workdir)["passed_over"]["labels"] == told
    (workdir / "labels" / "b.csv.bak").write_text("later")
    (line,) = [line for line in run()[1] if line.startswith("not read: ")]
    assert line.endswith("2 files of other kinds than .csv .tsv .json .jsonl .ndjson and images in"
                         " class folders: labels/a.csv.bak, labels/b.csv.bak")  # fmt: skip


def test_a_word_that_is_asked_about(started):
    run, workdir = started
    rows = people.requested(workdir, 0)
    lines = [
        "file,label",
        *(f"{row['file']},{'bad' if n % 2 else 'good'}" for n, row in enumerate(rows)),
    ]
    (workdir / "labels" / "a.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"bad is said of .*\.exclude_answers=.*\.classes="):
        run()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["bad", "unsure"])
def test_class_folders_called_like_a_word(tmp_path, word):
    """Their images are trained and tested on, and the page offers another word."""
    photos = tmp_path / "photos"
    truth = people.folder(photos, 24, (word, "good"))
    for name, label in truth.items():
        (photos / label).mkdir(exist_ok=True)
        (photos / name).rename(photos / label / name)
    people.folder(tmp_path / "flat", 8, (word, "good"), first=100)
    for path in sorted((tmp_path / "flat").iterdir()):
        number = int(path.stem.removeprefix("photo_"))
        target = tmp_path / "test" / (word, "good")[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.name)
    changes = {"folder.class_folders": True, "folder.test": str(tmp_path / "test")}
    one, workdir = people.config(photos, tmp_path, **changes), tmp_path / "work"
    line, log = people.run(one, workdir)
    assert line is None
    assert len([line for line in log if line.startswith(f'"{word}" is a class here')]) == 1
    assert set((workdir / "classes.txt").read_text().split()) == {word, "good"}
    with (workdir / "labels.csv").open(newline="") as file:
        counts = collections.Counter((r["label"], r["split"]) for r in csv.DictReader(file))
    assert counts == {(word, "train"): 12, ("good", "train"): 12, (word, "test"): 4,
                      ("good", "test"): 4}  # fmt: skip
    assert status(workdir)["test"]["n"] == 8
    assert len(status(workdir)["notes"]) == 1
