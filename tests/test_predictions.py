"""predictions.csv: its columns, its numbers, and that it is never half of one."""

import csv

import numpy as np
import pytest
from conftest import read_csv

from tavaal_jax.errors import UserError
from tavaal_jax.labelling import predictions
from tavaal_jax.labelling.predictions import PredictionRow

CLASSES = ("cat", "=dog")


def row(first=0.25, **changes):
    probabilities = np.array([first, 1 - first], np.float32)
    return PredictionRow("i01", "a.jpg", probabilities)._replace(**changes)


def test_columns_without_and_with_what_people_say(tmp_path):
    path = tmp_path / "predictions.csv"
    predictions.write(path, CLASSES, [row()])
    assert path.read_text() == (
        "id,file,predicted,confidence,p_cat,p_=dog\ni01,a.jpg,'=dog,0.75,0.25,0.75\n"
    )
    known = [row(split="train", label="cat"), row(0.75, split="unlabelled", label="")]
    predictions.write(path, CLASSES, known)
    assert path.read_text() == (
        "id,file,split,label,predicted,confidence,p_cat,p_=dog\n"
        "i01,a.jpg,train,cat,'=dog,0.75,0.25,0.75\n"
        "i01,a.jpg,unlabelled,,cat,0.75,0.75,0.25\n"
    )


def test_without_rows_there_is_a_header(tmp_path):
    predictions.write(tmp_path / "p.csv", CLASSES, [])
    assert (tmp_path / "p.csv").read_text() == "id,file,predicted,confidence,p_cat,p_=dog\n"


def test_probabilities_come_back_to_the_last_bit(tmp_path, rng):
    exponents = rng.uniform(-44, 0, 5000)
    values = np.concatenate([(10.0**exponents).astype(np.float32), np.float32([0, 1, 1e-45])])
    predictions.write(tmp_path / "p.csv", CLASSES, (row(value) for value in values))
    rows = read_csv(tmp_path / "p.csv")
    read = np.array([float(row["p_cat"]) for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(read.view(np.uint32), values.view(np.uint32))
    confidence = [float(row["confidence"]) for row in rows]
    both = [max(float(row["p_cat"]), float(row["p_=dog"])) for row in rows]
    np.testing.assert_array_equal(confidence, both)
    assert max(len(row["p_cat"]) for row in rows) <= 14


@pytest.mark.parametrize("file", ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png", "\ra.png"])
def test_no_spreadsheet_takes_a_name_for_a_formula(tmp_path, file):
    predictions.write(tmp_path / "p.csv", CLASSES, [row(file=file, split="train", label="=dog")])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as opened:
        (found,) = csv.DictReader(opened)
    assert (found["file"], found["label"], found["predicted"]) == (f"'{file}", "'=dog", "'=dog")


def test_names_of_any_letters(tmp_path):
    file = 'Ünïcødé, "quoted"\nand 鸟 \udcff.jpg'
    predictions.write(tmp_path / "p.csv", CLASSES, [row(file=file)])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as opened:
        (found,) = csv.DictReader(opened)
    assert found["file"] == file.replace("\udcff", "\\udcff")


def test_a_file_stays_as_it_was_where_a_row_cannot_be_had(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("before")

    def rows():
        yield row()
        assert path.read_text() == "before"
        raise OSError("a disk's")

    with pytest.raises(OSError, match="a disk's"):
        predictions.write(path, CLASSES, rows())
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]
    predictions.write(path, CLASSES, [row()])
    assert path.read_text().startswith("id,")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "p.csv").mkdir()
    for path in (tmp_path / "p.csv", tmp_path / "no" / "p.csv"):
        with pytest.raises(UserError, match=f"cannot write {path} .*: see to its folder"):
            predictions.write(path, CLASSES, [row()])
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]
