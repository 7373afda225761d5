"""What is remembered of files: each is read once, and again when it may have changed."""

import io
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images import facts, inventory

LATER = 10 * 10**9


@pytest.fixture
def looked(monkeypatch):
    """Names of files that have been read."""
    found = []
    read_head = facts.read_head
    monkeypatch.setattr(
        inventory,
        "read_head",
        lambda path: (found.append(os.path.basename(path)), read_head(path))[1],
    )
    return found


@pytest.fixture
def clock(monkeypatch):
    """Sets how much later than it is the scan's clock goes, in ns."""
    now = time.time_ns
    return lambda later: monkeypatch.setattr(inventory.time, "time_ns", lambda: now() + later)


def draw(path, number):
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(out, "BMP")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(out.getvalue())


@pytest.fixture
def read_head(tmp_path):
    for number in range(5):
        draw(tmp_path / "images" / f"{number}.bmp", number)
    index = tmp_path / "index.jsonl"
    return lambda: inventory.scan(tmp_path / "images", (), index, 10**6).images


def test_a_file_is_read_once(read_head, looked, clock):
    clock(LATER)
    first = read_head()
    assert len(looked) == 5
    assert read_head() == first
    assert len(looked) == 5


def test_one_that_was_read_when_it_was_new_is_read_again(read_head, looked, clock):
    read_head()
    read_head()
    assert len(looked) == 10
    clock(LATER)
    read_head()
    read_head()
    assert len(looked) == 15


def test_a_time_in_the_future_is_only_a_time(read_head, looked, clock, tmp_path):
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (2_300_000_000, 2_300_000_000))  # As from a camera whose clock is ahead.
    clock(LATER)
    first = read_head()
    looked.clear()
    assert read_head() == first
    assert looked == []


def test_one_that_has_changed_is_read_again(read_head, looked, clock, tmp_path):
    clock(LATER)
    read_head()
    looked.clear()
    path = tmp_path / "images" / "2.bmp"
    before = path.stat()
    draw(path, 9)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # Size and time as they were.
    assert path.stat().st_size == before.st_size
    names = [image.id for image in read_head()]
    assert looked == ["2.bmp"]
    assert len(set(names)) == 5


def test_a_cache_that_was_cut_or_scribbled_in_is_only_slower(read_head, looked, clock, tmp_path):
    clock(LATER)
    first = read_head()
    index = tmp_path / "index.jsonl"
    whole = index.read_bytes()
    line = whole.splitlines()[0]
    others = json.dumps([99, *json.loads(line)[1:]]).encode()
    fewer = json.dumps([*json.loads(line)[:4], ["x"]]).encode()
    for content in (
        whole[:-7], whole[:100], b"", b"\xff\0\n{}\n[]\n1\n" + whole, others + b"\n" + fewer,
    ):  # fmt: skip
        index.write_bytes(content)
        assert read_head() == first
        looked.clear()
        assert read_head() == first
        assert looked == []


def test_a_cache_of_files_that_are_gone_is_compacted(read_head, clock, tmp_path):
    clock(LATER)
    read_head()
    index = tmp_path / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(b"".join(whole.replace(b".bmp", b"%d.bmp" % k) for k in range(40)) + whole)
    read_head()
    assert index.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["index.jsonl"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    draw(tmp_path / "images" / "a.bmp", 1)
    with pytest.raises(
        UserError, match=r"cannot write .*index\.jsonl .*: see to its folder; the same"
    ):
        inventory.scan(tmp_path / "images", (), tmp_path / "file" / "index.jsonl", 10**6)


def test_many_files_that_are_known_are_not_opened(read_head, clock, tmp_path, monkeypatch):
    for number in range(300):
        draw(tmp_path / "images" / f"more{number}.bmp", number % 250)
    clock(LATER)
    first = read_head()
    monkeypatch.setattr(facts.decode, "content_id", None)
    assert read_head() == first
