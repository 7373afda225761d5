"""The cache of decoded photographs: it grows, and is right whatever happens to who writes it."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from tavaal_jax.data import row_cache
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
    """All of `todo` are there, each once and as it decodes."""
    rows = found.rows([name for name, _ in todo])
    assert sorted(rows) == list(range(len({name for name, _ in todo})))
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
    monkeypatch.setattr(row_cache.filelock, "FileLock", None)  # Nor is anything locked for nothing.
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
    assert len(found.array) == 4
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


def test_an_index_that_was_cut_anywhere_loses_only_its_end(todo, cache):
    Decoded(cache, SHAPE).add(todo[:3])
    index = cache / "index.jsonl"
    whole = index.read_bytes()
    pixels = (cache / "pixels.u8").read_bytes()
    for cut in range(len(whole)):
        index.write_bytes(whole[:cut])
        found = Decoded(cache, SHAPE)
        assert len(found.array) == whole[:cut].count(b"\n")
        found.add(todo[:3])
        check(found, todo[:3])
        assert (index.read_bytes(), (cache / "pixels.u8").read_bytes()) == (whole, pixels)


@pytest.mark.parametrize(
    "lines",
    [b"\xff\0garbage\n", b"[]\n", b"{}\n", b"\n\n", b'{"id": "i1"}\n', b'{"id": 1, "row": 2}\n',
     b'{"id": "i1", "row": 7}\n', b'{"id": "i1", "row": "2"}\n'],
)  # fmt: skip
def test_a_damaged_index_is_used_as_far_as_it_is_right(todo, cache, lines):
    Decoded(cache, SHAPE).add(todo[:4])
    index = cache / "index.jsonl"
    whole = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([*whole[:2], lines, *whole[2:]]))
    found = Decoded(cache, SHAPE)
    assert len(found.array) == 2
    found.add(todo)
    check(found, todo)


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
    found.add(todo)
    check(found, todo)


def test_pixels_without_a_line_are_written_over(todo, cache):
    found = Decoded(cache, SHAPE)
    found.add(todo[:3])
    with (cache / "pixels.u8").open("ab") as file:
        file.write(b"\xaa" * 1000)
    found.add(todo)
    check(found, todo)


def test_pixels_are_on_the_disk_before_the_line_that_names_them(todo, cache, monkeypatch):
    names = {}
    opened = []
    write, sync = row_cache._write, os.fsync

    def note(file, place, content):
        names[file.fileno()] = os.path.basename(file.name)
        opened.append(("write", names[file.fileno()]))
        write(file, place, content)

    monkeypatch.setattr(row_cache, "_write", note)
    monkeypatch.setattr(os, "fsync", lambda fd: (opened.append(("sync", names[fd])), sync(fd)))
    Decoded(cache, SHAPE).add(todo)
    assert opened == [
        ("write", "pixels.u8"), ("sync", "pixels.u8"), ("write", "index.jsonl"),
        ("sync", "index.jsonl"),
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["pixels.u8", "index.jsonl"])
def test_a_full_disk_is_named_and_what_is_there_stays(todo, cache, monkeypatch, file):
    found = Decoded(cache, SHAPE)
    found.add(todo[:4])
    write = row_cache._write

    def full(opened, place, content):
        if str(opened.name).endswith(file):
            write(opened, place, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(opened, place, content)

    monkeypatch.setattr(row_cache, "_write", full)
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
    with pytest.raises(
        UserError, match=r"cannot write .*: free some space, or set --config\.data_dir"
    ):
        Decoded(tmp_path / "file" / "photos", SHAPE).add(todo)


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
    lines = [json.loads(line) for line in (cache / "index.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(len(todo)))


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
