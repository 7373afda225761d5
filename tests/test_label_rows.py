"""What one row says: its image, its label, its time."""

import json

import pytest
from label_files import put, read, said, task

from tavaal_jax.labelling.labels.rows import moment, place, shown


@pytest.fixture
def labels(tmp_path):
    """A folder of labels."""
    folder = tmp_path / "labels"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/local-files/?d=birds/a%20b%2Bc.png", "birds/a b+c.png"),
        ("http://localhost:8080/data/local-files/?d=birds%2Fx.png&y=1", "birds/x.png"),
        ("/data/upload/12/0a1b2c3d-x.png", "x.png"),
        ("http://host/prefix/data/upload/0a1b2c3d-0a1b2c3d-x%20y.png", "0a1b2c3d-x y.png"),
        ("s3://bucket/birds/x.png?token=1", "s3://bucket/birds/x.png?token=1"),
        ("/data/birds/100%.png", "/data/birds/100%.png"),
        ("0a1b2c3d-x.png", "0a1b2c3d-x.png"),
        ("what?.png", "what?.png"),
        ("http://[", "http://["),
    ],
)
def test_image_of_a_task(labels, url, name):
    put(labels, "a.json", json.dumps([task("cat", data={"image": url})]))
    put(labels, "b.csv", f'image,label\n"{url}",cat\n')
    assert [(a.id, a.name) for a in read(labels)] == [("", name)] * 2


@pytest.mark.parametrize("value", [["cat"], {"choices": ["cat"]}, " cat "])
def test_choices_of_json_min(labels, value):
    put(labels, "a.json", json.dumps([{"image": "x.png", "label": value, "annotation_id": 4}]))
    assert said(labels) == [("x.png", "cat")]


def test_number_of_a_task_is_no_id(labels):
    put(labels, "a.csv", "annotation_id,id,image,label\n1,17,x.png,cat\n")
    put(labels, "b.csv", "id,image,label\n17,x.png,cat\n")
    assert [(a.id, a.name) for a in read(labels)] == [("", "x.png"), ("17", "x.png")]


def test_places_and_texts():
    assert place("a.CSV", 3) == "a.CSV line 3"
    assert place("a.json", 3) == place("a", 3).replace("a ", "a.json ") == "a.json item 3"
    assert place("cat/x.png", 0) == "cat/x.png"
    assert shown("x" * 90) == "x" * 80 + "..."
    assert shown("a\nb") == "a\\nb"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2026-11-23T05:50:44Z", "2026-11-23T05:50:44.5Z"),
        ("2026-11-23T05:50:44+01:00", "2026-11-23T05:50:44Z"),
        ("2026-11-23T05:50:44", "2026-11-23 05:50:44.000001+00:00"),
        ("0001-01-01", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_moments(earlier, later):
    assert moment(earlier) < moment(later)
