"""Requests to people: what lies in their folders, to the letter."""

import base64
import csv
import io
import json
import os
import pathlib
import re
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from tavaal_jax.errors import UserError
from tavaal_jax.labelling import requests
from tavaal_jax.labelling.labels import answers
from tavaal_jax.labelling.requests import RequestItem

IMAGES = pathlib.Path("/photos/birds")
WORDS = {"unsure": ("unsure", "skip", "?"), "bad": ("bad", "bad image")}
FILES = {
    "HOWTO.txt", "index.html", "label_studio.json", "label_studio.xml", "to_label.csv",
}  # fmt: skip
EVIL = "<img src=x onerror=alert(1)>.png"
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1")


def picture(path, side):
    """A JPEG whose colour depends on the file."""
    out = io.BytesIO()
    colour = (sum(os.fsencode(path.name)) % 256, 100, 200)
    Image.new("RGB", (side, side // 2), colour).save(out, "JPEG")
    return out.getvalue()


def asked_of(*files, guess=""):
    return [RequestItem(f"i{k:016x}", name, IMAGES / name, guess) for k, name in enumerate(files)]


def write(workdir, asked, number=3, **changes):
    arguments = {
        "classes": ("cat", "dog"), **WORDS, "preview": picture, "label_studio_images": "embed",
        "label_studio_root": "", "images_folder": IMAGES,
    }  # fmt: skip
    return requests.write(workdir, number, asked, **{**arguments, **changes})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_of(path):
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline="")))


def tasks_of(folder):
    return json.loads((folder / "label_studio.json").read_bytes())


# The folder


def test_a_request_is_a_folder_with_five_files(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg", "b.jpg"))
    assert folder == tmp_path / "to_label" / "cycle_003" == requests.request_folder(tmp_path, 3)
    assert set(contents(folder)) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["to_label"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    asked = asked_of("a.jpg", "ü/b.jpg", EVIL)
    first, second = (write(tmp_path / name, asked, part_count=2) for name in ("one", "other"))
    assert contents(first) == contents(second)
    assert len(contents(first)) == len(FILES) + 2


def test_a_request_that_is_there_is_left_alone(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg"))
    (folder / "to_label.csv").write_text("filled")
    (folder / "HOWTO.txt").unlink()
    before = contents(folder)
    assert write(tmp_path, asked_of("other.jpg")) == folder
    assert contents(folder) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
def test_what_fails_leaves_nothing(tmp_path, error):
    def fails(path, side):
        if path.name == "b.jpg":
            raise error("no")
        return picture(path, side)

    with pytest.raises(error):
        write(tmp_path, asked_of("a.jpg", "b.jpg"), preview=fails)
    assert list(tmp_path.iterdir()) == []


def test_what_was_killed_half_way_is_written_anew(tmp_path, monkeypatch):
    asked = asked_of("a.jpg")
    whole = contents(write(tmp_path / "whole", asked))
    with monkeypatch.context() as patch:
        patch.setattr(requests.shutil, "rmtree", lambda *a, **k: None)  # A kill cleans nothing up.
        patch.setattr(requests.static, "page_html", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(tmp_path / "killed", asked)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [".cycle_003.tmp"]
    assert contents(write(tmp_path / "killed", asked)) == whole
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["to_label"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "to_label").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*to_label/cycle_003 .*continues") as error:
        write(tmp_path, asked_of("a.jpg"))
    assert "\n" not in str(error.value)


def test_a_picture_that_has_gone_since_is_asked_for_all_the_same(tmp_path):
    def gone(path, side):
        raise FileNotFoundError(path)

    folder = write(tmp_path, asked_of("a.jpg"), preview=gone)
    assert tasks_of(folder)[0]["data"]["image"].startswith("data:image/gif;base64,")
    assert "cannot be shown" in (folder / "index.html").read_text("utf-8")


# The list


def test_the_list_to_the_letter(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg", "ü/b, c.jpg", 'quo"te;.png'))
    assert (folder / "to_label.csv").read_bytes() == (
        b"\xef\xbb\xbfrank,id,file,label,annotator,note\n"
        b"0,i0000000000000000,a.jpg,,,\n"
        b'1,i0000000000000001,"\xc3\xbc/b, c.jpg",,,\n'
        b'2,i0000000000000002,"quo""te;.png",,,\n'
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula_and_the_reader_finds_the_name_again(tmp_path, name):
    folder = write(tmp_path, asked_of(name))
    (row,) = rows_of(folder / "to_label.csv")[1:]
    assert row[2] == f"'{name}" == requests.escape_formula(name)
    labels = tmp_path / "labels"
    labels.mkdir()
    text = (folder / "to_label.csv").read_bytes().replace(b",,,\n", b",cat,,\n")
    (labels / "filled.csv").write_bytes(text)
    (answer,) = answers.read(labels).answers
    assert (answer.id, answer.name, answer.label) == ("i0000000000000000", name, "cat")


def test_names_with_line_ends_stay_in_their_cell(tmp_path):
    folder = write(tmp_path, asked_of("a\rb\nc.jpg", "d.jpg"))
    rows = rows_of(folder / "to_label.csv")
    assert [row[2] for row in rows] == ["file", "a\rb\nc.jpg", "d.jpg"]


def test_names_that_are_no_utf_8_are_written_with_a_mark(tmp_path):
    folder = write(tmp_path, asked_of(os.fsdecode(b"a\xff.jpg")))
    assert rows_of(folder / "to_label.csv")[1][1:3] == ["i0000000000000000", "a?.jpg"]
    assert tasks_of(folder)[0]["data"]["file"] == "a?.jpg"


def test_a_guess_is_no_answer(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg", guess="cat"))
    assert rows_of(folder / "to_label.csv")[1][3:] == ["", "", "guess: cat"]
    assert answers.read(None, [folder / "to_label.csv"]).answers == []


def test_parts_take_turns(tmp_path):
    names = [f"{k}.jpg" for k in range(7)]
    folder = write(tmp_path, asked_of(*names), part_count=3)
    parts = [rows_of(folder / f"to_label_{part}of3.csv") for part in (1, 2, 3)]
    assert [[row[0] for row in part[1:]] for part in parts] == [
        ["0", "3", "6"], ["1", "4"], ["2", "5"],
    ]  # fmt: skip
    whole = rows_of(folder / "to_label.csv")
    assert all(part[0] == whole[0] for part in parts)
    assert sorted(row for part in parts for row in part[1:]) == whole[1:]
    assert "to_label_1of3.csv to to_label_3of3.csv" in (folder / "HOWTO.txt").read_text("utf-8")


def test_there_are_no_more_parts_than_images(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg", "b.jpg"), part_count=5)
    lists = {path.name for path in folder.glob("*.csv")}
    assert lists == {"to_label.csv", "to_label_1of2.csv", "to_label_2of2.csv"}
    alone = write(tmp_path, asked_of("a.jpg"), number=4, part_count=5)
    assert {path.name for path in alone.glob("*.csv")} == {"to_label.csv"}


# Label Studio


def test_tasks_to_the_letter(tmp_path):
    asked = asked_of("ü b.jpg", "a.jpg")
    folder = write(tmp_path, asked)
    uri = lambda one: base64.b64encode(picture(one.path, 512)).decode()
    assert tasks_of(folder) == [
        {
            "data": {
                "image": f"data:image/jpeg;base64,{uri(one)}", "tavaal_id": one.id,
                "file": one.file, "tavaal_request": "cycle_003",
            },
            "predictions": [
                {"model_version": "tavaal_cycle_003", "score": (rank + 0.5) / 2, "result": []}
            ],
        }
        for rank, one in enumerate(asked)
    ]  # fmt: skip


def test_a_guess_is_a_prediction(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg", guess="cat"))
    (task,) = tasks_of(folder)
    assert task["predictions"][0]["result"] == [
        {
            "from_name": "label", "to_name": "image", "type": "choices",
            "value": {"choices": ["cat"]},
        }
    ]  # fmt: skip


def test_pictures_of_tasks_are_large_where_those_of_the_page_are_small(tmp_path):
    sides = []

    def noted(path, side):
        sides.append(side)
        return b"jpeg"

    write(tmp_path, asked_of(*(f"{k}.jpg" for k in range(301))), preview=noted)
    assert sides == [256, 512] * 301
    sides.clear()
    write(tmp_path, asked_of("a.jpg"), number=4, preview=noted)
    assert sides == [512]


@pytest.mark.parametrize("root", ["/photos", "/", ""])
def test_local_images_are_quoted_below_the_root(tmp_path, root):
    asked = asked_of("a b/ü&d=1#?.jpg", EVIL)
    folder = write(tmp_path, asked, label_studio_images="local", label_studio_root=root)
    below = "photos/birds" if root == "/" else "birds"
    assert [task["data"]["image"] for task in tasks_of(folder)] == [
        f"/data/local-files/?d={below}/a%20b/%C3%BC%26d%3D1%23%3F.jpg",
        f"/data/local-files/?d={below}/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E.png",
    ]
    how = (folder / "HOWTO.txt").read_text("utf-8")
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root or '/photos'}\n" in how
    assert 'label_studio_images="local"' in how


@pytest.mark.parametrize("root", ["/photos/birds", "/photos/birds/more", "/other"])
def test_a_root_that_is_not_above_the_images_is_refused(tmp_path, root):
    with pytest.raises(UserError, match=f"label_studio_root={root} is not above .*{IMAGES}") as e:
        write(
            tmp_path, asked_of("a.jpg"), label_studio_images="local", label_studio_root=root
        )  # fmt: skip
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def choices_of(folder):
    view = ET.fromstring((folder / "label_studio.xml").read_text("utf-8"))
    assert (view.tag, [part.tag for part in view]) == ("View", ["Image", "Choices"])
    assert view[0].attrib == {"name": "image", "value": "$image", "zoom": "true"}
    assert view[1].attrib == {
        "name": "label", "toName": "image", "choice": "single", "showInLine": "true",
    }  # fmt: skip
    return [choice.attrib for choice in view[1]]


def test_the_interface_to_the_letter(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg"))
    assert (folder / "label_studio.xml").read_text("utf-8") == (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true"/>\n'
        '  <Choices name="label" toName="image" choice="single" showInLine="true">\n'
        '    <Choice value="cat" hotkey="1"/>\n'
        '    <Choice value="dog" hotkey="2"/>\n'
        '    <Choice value="unsure"/>\n'
        '    <Choice value="bad image"/>\n'
        "  </Choices>\n"
        "</View>\n"
    )


def test_names_in_the_interface_are_escaped(tmp_path):
    names = ["it's", 'say "x"', "a & b", "<b>", "ü"]
    folder = write(tmp_path, asked_of("a.jpg"), classes=names)
    assert [choice["value"] for choice in choices_of(folder)[:5]] == names


def test_classes_beyond_nine_have_no_key_and_digits_their_own(tmp_path):
    many = [f"class {k}" for k in range(11)]
    found = choices_of(write(tmp_path, asked_of("a.jpg"), classes=many))
    assert [choice.get("hotkey") for choice in found] == [*"123456789"] + [None] * 4
    digits = [*"0123456789", "none"]
    found = choices_of(write(tmp_path, asked_of("a.jpg"), number=4, classes=digits))
    assert [choice.get("hotkey") for choice in found] == [*"0123456789"] + [None] * 3


def test_words_that_are_switched_off_are_no_choice(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg"), classes=(), unsure=(), bad=())
    assert choices_of(folder) == []


# HOWTO.txt


def test_how_to_answer(tmp_path):
    folder = write(tmp_path, asked_of("a.jpg", "b.jpg"))
    how = (folder / "HOWTO.txt").read_text("utf-8")
    assert how.startswith("HOW TO ANSWER cycle_003: 2 images to label\n")
    for part in (
        "exit code 75", "same command", "index.html", "to_label.csv", "labels/<class>/",
        "Classes so far: cat, dog.", "unsure or skip or ?", "bad or bad image",
        "label_studio.xml", "label_studio.json", "--internal-host 127.0.0.1", "Sequential",
        "LABEL_STUDIO_COLLECT_ANALYTICS=false", "LABEL_STUDIO_SENTRY_DSN=", "IGNORE_SKIPPED",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true", '"model_version": "tavaal_cycle_003"',
        "labels_cycle_003_<your name>.csv", 'label_studio_images="embed"', "folder.request_parts=3",
        "<workdir>/to_label", "<workdir>/labels/label_studio", 'case $? in 75)',
    ):  # fmt: skip
        assert part in how, part
    assert max(map(len, how.splitlines())) <= 102
    assert not re.search(r"\$[a-z]", how.replace("$(curl", "").replace("$token", ""))


@pytest.mark.parametrize(
    ("classes", "fixed", "said"),
    [
        ((), False, "There are no classes yet"),
        (("cat",), False, "Classes so far: cat. Another name makes a new class."),
        (("cat",), True, "Classes: cat. Any other is refused."),
    ],
)
def test_what_it_says_of_classes(tmp_path, classes, fixed, said):
    folder = write(tmp_path, asked_of("a.jpg"), classes=classes, fixed=fixed)
    assert said in (folder / "HOWTO.txt").read_text("utf-8")


def test_many_classes_are_wrapped(tmp_path):
    many = [f"class number {k}" for k in range(100)]
    how = (write(tmp_path, asked_of("a.jpg"), classes=many) / "HOWTO.txt").read_text("utf-8")
    assert max(map(len, how.splitlines())) <= 102
    assert "class number 99" in how
