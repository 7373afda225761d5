"""The cache of decoded photographs: it grows, and is right whatever happens to who writes it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from tavaal_jax.data import row_files
from tavaal_jax.data.pictures import cache as picture_cache
from tavaal_jax.data.pictures import decode as pictures
from tavaal_jax.data.pictures.cache import Decoded
from tavaal_jax.errors import UserError

SHAPE = (8, 8, 3)


def draw(path, number, size=(12, 9)):
    """A picture of its own in a file: its id and path."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return identity(path), path


def identity(path):
    with path.open("rb") as file:
        return pictures.content_id(file)


@pytest.fixture
def todo(tmp_path):
    (tmp_path / "images").mkdir()
    return [draw(tmp_path / "images" / f"{number:03}.png", number) for number in range(10)]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "data" / "decoded" / "photos"


def check(found, todo):
    """All of `todo` are there, each in a row of its own and as it decodes."""
    ids = [name for name, _ in todo]
    rows = found.rows(ids)
    assert len(set(rows)) == len(set(ids))
    assert min(rows) >= 0
    for row, (_, path) in zip(rows, todo, strict=True):
        np.testing.assert_array_equal(found.array[row], pictures.decode(path, SHAPE[0], SHAPE[2]))


# Adding


def test_it_grows(todo, cache):
    found = Decoded(cache, SHAPE)
    assert found.array.shape == (0, *SHAPE)
    assert found.rows([todo[0][0]]).tolist() == [-1]
    assert found.add(todo[:4]) == {}
    check(found, todo[:4])
    first = found.array
    assert found.add(todo) == {}
    check(found, todo)
    np.testing.assert_array_equal(first, found.array[:4])  # Rows stay where they are.
    check(Decoded(cache, SHAPE), todo)
    assert found.rows([name for name, _ in todo]).tolist() == list(range(10))


def test_the_array_is_mapped_and_cannot_be_written(todo, cache):
    found = Decoded(cache, SHAPE)
    found.add(todo)
    assert isinstance(found.array, np.memmap)
    assert found.array is found.array
    assert (found.array.dtype, found.rows([]).dtype) == (np.uint8, np.int64)
    with pytest.raises(ValueError, match="read-only"):
        found.array[0] = 1


def test_nothing_is_decoded_twice(todo, cache, monkeypatch):
    Decoded(cache, SHAPE).add(todo)
    monkeypatch.setattr(pictures, "decode_checked", None)
    monkeypatch.setattr(row_files.filelock, "FileLock", None)  # Nor is anything locked for nothing.
    assert Decoded(cache, SHAPE).add(todo) == {}


def test_of_several_files_with_one_content_one_is_decoded(todo, cache):
    found = Decoded(cache, SHAPE)
    assert found.add([*todo, todo[3], (todo[0][0], todo[0][1].with_name("copy.png"))]) == {}
    check(found, todo)


def test_progress_counts_what_is_to_be_decoded(todo, cache):
    found, told = Decoded(cache, SHAPE), []
    found.add(todo[:7])
    found.add(todo, lambda *counts: told.append(counts))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_was_done_before_a_stop_stays(todo, cache, monkeypatch):
    monkeypatch.setattr(picture_cache, "_BATCH", 2)

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    found = Decoded(cache, SHAPE)
    with pytest.raises(KeyboardInterrupt):
        found.add(todo, stop)
    assert len(found.array) == 5  # Those of the batch that had begun, too.
    assert threading.active_count() == 1
    found.add(todo)
    check(found, todo)


def test_the_settings_are_those_of_decode(todo, cache):
    deep = cache.parent / "deep.png"
    cache.parent.mkdir(parents=True)
    Image.fromarray(np.full((8, 4), 700, np.uint16)).save(deep)
    found = Decoded(cache, (8, 8, 1), "pad", (0, 1400))
    found.add([(identity(deep), deep)])
    assert np.unique(found.array).tolist() == [0, 128]


def test_the_folder_is_below_data_dir_and_names_the_settings():
    path = picture_cache.folder("~/data", (64, 64, 3), "stretch", ())
    assert path.parts[-3:] == ("data", "decoded", "photos-64x64x3-stretch-v1")
    assert "~" not in str(path)
    path = picture_cache.folder("/data", (32, 32, 1), "crop", (0, 4095.5))
    assert path.name == "photos-32x32x1-crop-0-4095.5-v1"
    assert path != picture_cache.folder("/data", (32, 32, 1), "crop", (0, 4096))
    near = ((0, 1000400), (0, 1000399), (0.1234567, 1), (0.1234568, 1), (0, 1e16), (0, 1e16 + 2))
    names = {picture_cache.folder("/data", (32, 32, 1), "crop", both).name for both in near}
    assert len(names) == len(near)
    same = ((0, 65535), (0.0, 65535.0), (np.float32(0), np.float32(65535)))
    assert len({picture_cache.decoding(32, 1, "crop", both) for both in same}) == 1


def test_few_pictures_are_in_memory_at_a_time(cache, tmp_path, monkeypatch):
    todo = [draw(tmp_path / f"{number}.png", number) for number in range(60)]
    monkeypatch.setattr(picture_cache, "_BATCH", 1)
    lock, begun, done, most = threading.Lock(), [], [], []
    decode = pictures.decode_checked

    def count(*options):
        with lock:
            begun.append(1)
            most.append(len(begun) - len(done))
        return decode(*options)

    monkeypatch.setattr(pictures, "decode_checked", count)
    found = Decoded(cache, SHAPE)
    found.add(todo, lambda *_: done.append(1))
    assert max(most) <= picture_cache._AHEAD
    assert found.rows([name for name, _ in todo]).tolist() == list(range(60))  # In order.


# What cannot be decoded


def test_damaged_ones_have_a_reason_that_is_remembered(todo, cache, monkeypatch):
    path = todo[2][1]
    path.write_bytes(path.read_bytes()[:100])
    todo[2] = identity(path), path
    found = Decoded(cache, SHAPE)
    faults = found.add(todo)
    assert list(faults) == [todo[2][0]]
    assert found.rows([todo[2][0], todo[3][0]]).tolist() == [-1, 2]
    check(found, todo[:2] + todo[3:])
    monkeypatch.setattr(pictures, "decode_checked", None)
    assert Decoded(cache, SHAPE).add(todo) == faults
    assert found.add(todo[:2]) == {}  # Of others nothing is said.


def test_what_an_older_version_could_not_decode_is_tried_again(todo, cache):
    Decoded(cache, SHAPE).add(todo[:2])
    index = cache / "index.jsonl"
    lines = index.read_bytes() + b'{"id": "%s", "fault": "old"}\n' % todo[2][0].encode()
    index.write_bytes(lines)
    found = Decoded(cache, SHAPE)
    assert found.add(todo) == {}
    check(found, todo)
    check(Decoded(cache, SHAPE), todo)


def test_values_that_come_out_white_are_remembered(cache, tmp_path):
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.tif")
    fine = draw(tmp_path / "b.png", 1)
    name = identity(tmp_path / "a.tif")
    first = Decoded(cache, SHAPE)
    first.add([(name, tmp_path / "a.tif"), fine])
    for found in (first, Decoded(cache, SHAPE)):
        assert found.overflows([name, fine[0]]) == [("floats", 0, 63)]


def test_all_may_be_damaged(cache, tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    name = identity(tmp_path / "a.png")
    found = Decoded(cache, SHAPE)
    assert list(found.add([(name, tmp_path / "a.png")])) == [name]
    assert found.array.shape == (0, *SHAPE)


def test_what_vanishes_or_changes_after_the_scan_is_tried_again(todo, cache):
    todo[0][1].unlink()
    before = todo[1][1].read_bytes()
    draw(todo[1][1], 99)
    todo[9][1].unlink()
    todo[9][1].mkdir()
    found = Decoded(cache, SHAPE)
    assert found.add(todo) == {
        todo[0][0]: pictures.GONE, todo[1][0]: pictures.CHANGED, todo[9][0]: "Is a directory",
    }  # fmt: skip
    check(found, todo[2:9])
    draw(todo[0][1], 0)
    todo[1][1].write_bytes(before)
    assert found.add(todo[:9]) == {}
    for name, path in todo[:9]:
        np.testing.assert_array_equal(
            found.array[found.rows([name])[0]], pictures.decode(path, SHAPE[0], SHAPE[2])
        )


@pytest.mark.parametrize("is_damaged", [True, False])
def test_one_that_is_written_while_it_is_decoded_has_changed(todo, cache, monkeypatch, is_damaged):
    decode = pictures.decode_checked

    def change(file, *options):
        os.utime(file.fileno(), ns=(0, 0))
        if is_damaged:
            raise pictures.Corrupt("cut short")
        return decode(file, *options)

    monkeypatch.setattr(pictures, "decode_checked", change)
    found = Decoded(cache, SHAPE)
    assert found.add(todo[:1]) == {todo[0][0]: pictures.CHANGED}
    monkeypatch.undo()
    assert found.add(todo[:1]) == {}


def test_too_little_memory_is_no_fault_of_the_file(todo, cache, monkeypatch):
    def full(*_):
        raise pictures.Corrupt("too little memory", lasting=False)

    monkeypatch.setattr(pictures, "decode_checked", full)
    found = Decoded(cache, SHAPE)
    assert set(found.add(todo).values()) == {"too little memory"}
    monkeypatch.undo()
    assert found.add(todo) == {}
    check(found, todo)


# What happens to the files


def test_an_index_that_was_cut_anywhere_loses_only_its_end(todo, cache, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # It takes most of the time.
    Decoded(cache, SHAPE).add(todo[:2])
    index = cache / "index.jsonl"
    whole, pixels = index.read_bytes(), (cache / "pixels.u8").read_bytes()
    header = whole.index(b"\n") + 1
    for cut in range(len(whole)):
        (cache / "pixels.u8").write_bytes(pixels)
        index.write_bytes(whole)
        reader = Decoded(cache, SHAPE)
        mapped = reader.array
        index.write_bytes(whole[:cut])
        found = Decoded(cache, SHAPE)
        there = found.rows([name for name, _ in todo[:2]]) >= 0
        assert there.sum() == (whole[:cut].count(b"\n") - 1 if cut >= header else 0)
        found.add(todo[:3])
        check(found, todo[:3])
        check(Decoded(cache, SHAPE), todo[:3])
        assert mapped.tobytes() == pixels  # Nothing is written over what others have mapped.
        check(reader, todo[:2])


@pytest.mark.parametrize(
    "lines",
    [b"\xff\0garbage\n", b"[]\n", b"{}\n", b"\n\n", b'{"id": "i1"}\n', b'{"id": 1, "row": 2}\n',
     b'{"id": "i1", "row": 7, "crc": 1}\n', b'{"id": "i1", "row": "2", "crc": 1}\n',
     b'{"id": "i1", "row": 1}\n', b'{"id": "i1", "row": 1, "crc": -1}\n',
     b'{"id": "i1", "row": 1, "crc": 1, "overflow": 7}\n'],
)  # fmt: skip
def test_of_a_damaged_index_all_other_lines_are_used(todo, cache, lines):
    Decoded(cache, SHAPE).add(todo[:4])
    index = cache / "index.jsonl"
    whole = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([*whole[:3], lines, *whole[3:]]))
    found = Decoded(cache, SHAPE)
    check(found, todo[:4])
    index.write_bytes(b"".join([*whole[:2], lines, *whole[3:]]))  # In the place of a line.
    found = Decoded(cache, SHAPE)
    assert found.rows([name for name, _ in todo[:4]]).tolist() == [0, -1, 2, 3]
    found.add(todo)
    check(found, todo)
    check(Decoded(cache, SHAPE), todo)


def test_a_row_with_other_values_than_were_written_is_made_again(todo, cache):
    Decoded(cache, SHAPE).add(todo[:6])
    reader = Decoded(cache, SHAPE)
    check(reader, todo[:6])
    values = bytearray((cache / "pixels.u8").read_bytes())
    values[2 * 192 + 7] ^= 1
    (cache / "pixels.u8").write_bytes(values)
    found = Decoded(cache, SHAPE)
    assert found.rows([name for name, _ in todo[:6]]).tolist() == [0, 1, -1, 3, 4, 5]
    rows, faults = found.made_rows(todo)
    assert (rows[2] >= 6, faults) == (True, {})
    check(found, todo)
    check(Decoded(cache, SHAPE), todo)


def test_a_row_of_values_that_were_lost_is_never_anothers(todo, cache):
    Decoded(cache, SHAPE).add(todo[:6])
    os.truncate(cache / "pixels.u8", 3 * 192)
    Decoded(cache, SHAPE).add(todo[7:])  # These get rows of which the index has older lines.
    found = Decoded(cache, SHAPE)
    rows = found.rows([name for name, _ in todo])
    assert rows[3:6].tolist() == [-1, -1, -1]
    check(found, todo[:3] + todo[7:])
    found.add(todo)
    check(found, todo)


def test_a_file_that_was_cut_under_who_has_read_its_index(todo, cache):
    found = Decoded(cache, SHAPE)
    found.add(todo[:6])
    again = Decoded(cache, SHAPE)
    os.truncate(cache / "pixels.u8", 3 * 192 + 5)
    assert again.rows([name for name, _ in todo[:6]]).tolist() == [0, 1, 2, -1, -1, -1]
    again.add(todo)
    check(again, todo)


OLD = b'{"id": "i1", "row": 0}\n'
OTHERS = [
    b"", OLD, b'{"made_by": "f", "shape": [8, 8, 3], "dtype": "|u1"}\n' + OLD,
    b'{"made_by": "", "shape": [8, 8, 4], "dtype": "|u1"}\n' + OLD,
    b'{"made_by": "", "shape": [8, 8, 3], "dtype": "<f4"}\n' + OLD,
]  # fmt: skip


@pytest.mark.parametrize("index", OTHERS)
def test_files_of_another_header_or_none_are_replaced_and_not_overwritten(todo, cache, index):
    cache.mkdir(parents=True)
    old = bytes(range(192)) * 12
    (cache / "pixels.u8").write_bytes(old)
    (cache / "index.jsonl").write_bytes(index)
    mapped = np.memmap(cache / "pixels.u8", np.uint8, "r")
    found = Decoded(cache, SHAPE)
    assert (len(found.array), found.rows(["i1"]).tolist()) == (0, [-1])
    found.add(todo)
    check(found, todo)
    check(Decoded(cache, SHAPE), todo)
    assert mapped.tobytes() == old


def test_a_cache_that_is_deleted_stays_right_for_who_has_it_and_is_told_of(todo, cache):
    found = Decoded(cache, SHAPE)
    found.add(todo[:5])
    del found
    found = Decoded(cache, SHAPE)
    shutil.rmtree(cache)
    other = Decoded(cache, SHAPE)
    other.add(todo[5:])  # As many rows, of others.
    check(found, todo[:5])
    match = "was deleted or replaced while it was used: run the same command again"
    with pytest.raises(UserError, match=match):
        found.add(todo)
    check(found, todo[:5])
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=match):
        other.add(todo)


def test_a_cache_that_is_deleted_amid_adding_is_told_of_at_once(todo, cache, monkeypatch):
    monkeypatch.setattr(picture_cache, "_BATCH", 2)
    found = Decoded(cache, SHAPE)
    with pytest.raises(UserError, match="was deleted or replaced while it was used"):
        found.add(todo, lambda done, total: shutil.rmtree(cache) if done == 3 else None)
    Decoded(cache, SHAPE).add(todo)
    check(Decoded(cache, SHAPE), todo)


def test_pixels_that_are_missing_are_decoded_again(todo, cache):
    found = Decoded(cache, SHAPE)
    found.add(todo)
    pixels = cache / "pixels.u8"
    os.truncate(pixels, 5 * 192 - 1)
    found = Decoded(cache, SHAPE)
    assert len(found.array) == 4
    found.add(todo)
    check(found, todo)
    del found
    pixels.unlink()
    found = Decoded(cache, SHAPE)
    assert len(found.array) == 0
    assert found.rows([todo[0][0]]).tolist() == [-1]
    found.add(todo)
    check(found, todo)


def test_pixels_without_a_line_are_passed_over(todo, cache):
    found = Decoded(cache, SHAPE)
    found.add(todo[:3])
    with (cache / "pixels.u8").open("ab") as file:
        file.write(b"\xaa" * 1000)
    found.add(todo)
    check(found, todo)


def test_pixels_are_on_the_disk_before_the_line_that_names_them(todo, cache, monkeypatch):
    names = {}
    opened = []
    write, sync = row_files._write, os.fsync

    def note(file, place, content):
        names[file.fileno()] = os.path.basename(file.name)
        opened.append(("write", names[file.fileno()]))
        write(file, place, content)

    monkeypatch.setattr(row_files, "_write", note)
    monkeypatch.setattr(os, "fsync", lambda fd: (opened.append(("sync", names[fd])), sync(fd)))
    Decoded(cache, SHAPE).add(todo[:2])
    opened.clear()  # The header's.
    Decoded(cache, SHAPE).add(todo)
    assert opened == [
        ("write", "pixels.u8"), ("sync", "pixels.u8"), ("write", "index.jsonl"),
        ("sync", "index.jsonl"),
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["pixels.u8", "index.jsonl"])
def test_a_full_disk_is_named_and_what_is_there_stays(todo, cache, monkeypatch, file):
    found = Decoded(cache, SHAPE)
    found.add(todo[:4])
    write = row_files._write

    def full(opened, place, content):
        if str(opened.name).endswith(file):
            write(opened, place, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(opened, place, content)

    monkeypatch.setattr(row_files, "_write", full)
    match = r"cannot write .*photos \(No space left on device\): free some space, or set"
    with pytest.raises(UserError, match=match):
        found.add(todo)
    check(found, todo[:4])
    monkeypatch.undo()
    for again in (Decoded(cache, SHAPE), found):
        again.add(todo)
        check(again, todo)


def test_a_folder_that_cannot_be_written_is_named(todo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*: see to it, or set --config\.data_dir"):
        Decoded(tmp_path / "file" / "photos", SHAPE).add(todo)


class PlainFile:
    """A lock on a disk without locks: a file, which outlives its process."""

    def __init__(self, path):
        self.path = path

    def acquire(self, timeout):
        warnings.warn("flock is not supported", UserWarning, stacklevel=1)
        raise row_files.filelock.Timeout(str(self.path))


def test_a_lock_that_outlives_its_process_is_named(todo, cache, monkeypatch):
    monkeypatch.setattr(row_files.filelock, "FileLock", PlainFile)
    monkeypatch.setattr(row_files, "_PATIENCE", 0.1)
    told = []
    with pytest.raises(UserError, match=r"adds nothing to it: .* is gone, delete .*photos/\.lock"):
        Decoded(cache, SHAPE).add(todo, lambda *counts: (told.append(counts), time.sleep(0.06)))
    assert 1 < len(told) < 5


# Several processes, and their ends

ADD = """
import pathlib, sys
from tavaal_jax.data.pictures import cache as decoded
decoded._BATCH = 3
todo = [line.split(" ", 1) for line in sys.stdin.read().splitlines()]
found = decoded.Decoded(pathlib.Path(sys.argv[1]), (8, 8, 3))
print("ready", flush=True)
found.add([(name, pathlib.Path(path)) for name, path in todo], lambda *_: print(".", flush=True))
"""


def start(cache, todo):
    process = subprocess.Popen(
        [sys.executable, "-c", ADD, str(cache)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    process.stdin.write("".join(f"{name} {path}\n" for name, path in todo).encode())
    process.stdin.close()
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_process_leaves_a_cache_that_is_right(cache, tmp_path, kills):
    todo = [draw(tmp_path / f"{number:03}.png", number, (60, 40)) for number in range(15 * kills)]
    random = np.random.default_rng(kills)
    counts = [0]
    for _ in range(kills):
        with start(cache, todo) as process:
            for _ in range(random.integers(4, 16)):
                process.stdout.readline()
            threading.Event().wait(random.uniform(0, 0.003))
            process.send_signal(signal.SIGKILL)
            process.stdout.read()
        found = Decoded(cache, SHAPE)
        rows = found.rows([name for name, _ in todo])
        there = [item for item, row in zip(todo, rows, strict=True) if row >= 0]
        check(found, there)
        counts.append(len(there))
    assert counts == sorted(counts)
    assert counts[-1] > 0
    assert found.add(todo) == {}
    check(found, todo)
    lines = [json.loads(line) for line in (cache / "index.jsonl").read_text().splitlines()[1:]]
    assert len(lines) == len({line["row"] for line in lines}) == len(todo)  # Each made once.


def test_two_processes_decode_each_picture_once(todo, cache):
    first, second = start(cache, todo[:7]), start(cache, todo[3:])
    with first, second:
        told = first.stdout.read() + second.stdout.read()
    assert first.returncode == second.returncode == 0
    assert told == b".\n" * 10
    check(Decoded(cache, SHAPE), todo)


def test_a_reader_sees_what_another_adds_when_it_looks_again(todo, cache):
    reader, writer = Decoded(cache, SHAPE), Decoded(cache, SHAPE)
    writer.add(todo)
    assert len(reader.array) == 0
    assert reader.add(todo) == {}
    check(reader, todo)
