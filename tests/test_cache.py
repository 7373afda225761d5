"""The cache of decoded data sets: made once, whole or not at all."""

import errno
import multiprocessing
import os

import numpy as np
import pytest

from tavaal_jax.data import cache
from tavaal_jax.errors import UserError


def test_cache_is_made_once_and_read_back(tmp_path):
    made = []

    def make(new):
        made.append(1)
        cache.fill(new, {"train_images": np.arange(3), "class_names": np.array(["a", "b"])})

    for _ in range(2):
        arrays = cache.load_or_make(tmp_path / "set", make)
        np.testing.assert_array_equal(arrays["train_images"], [0, 1, 2])
        assert list(arrays["class_names"]) == ["a", "b"]
    assert len(made) == 1


def three(new):
    cache.fill(new, {"x": np.arange(3)})


def test_images_stay_on_the_disk(tmp_path):
    def make(new):
        images = new("train_images", (3,), np.uint8)
        assert isinstance(images, np.memmap)  # While they are made, too.
        images[:] = np.arange(3)
        cache.fill(new, {"train_labels": np.arange(3)})

    arrays = cache.load_or_make(tmp_path / "set", make)
    assert isinstance(arrays["train_images"], np.memmap)
    assert not isinstance(arrays["train_labels"], np.memmap)
    np.testing.assert_array_equal(arrays["train_images"], arrays["train_labels"])
    with pytest.raises(ValueError, match="read-only"):
        arrays["train_images"][0] = 1


def test_a_shape_may_hold_numpys_integers(tmp_path):
    make = lambda new: new("images", (np.arange(5).sum(), 2), np.uint8).fill(3)
    assert np.array_equal(
        cache.load_or_make(tmp_path / "set", make)["images"], np.full((10, 2), 3, np.uint8)
    )


def test_label_maps_stay_there_too(tmp_path):
    make = lambda new: cache.fill(new, {"train_labels": np.zeros((3, 4, 5), np.uint8)})
    arrays = cache.load_or_make(tmp_path / "set", make)
    assert isinstance(arrays["train_labels"], np.memmap)


def test_an_embedded_set_is_stored_nowhere():
    arrays = cache.in_memory(three)
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])


def test_a_failed_making_leaves_nothing_behind(tmp_path):
    def fail(new):
        new("x", (3,), int)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        cache.load_or_make(tmp_path / "set", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["set.lock"]


def test_a_failed_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cache.load_or_make(tmp_path / "set", three)
    assert [p.name for p in tmp_path.iterdir()] == ["set.lock"]


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / "set-killed").mkdir()
    (tmp_path / "set-killed" / "x.npy").write_bytes(b"half")
    cache.load_or_make(tmp_path / "set", three)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "set.lock"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*file.*: set --config\.data_dir"):
        cache.load_or_make(tmp_path / "file" / "set", three)


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        cache.load_or_make(tmp_path / "set", three)
    assert [p.name for p in tmp_path.iterdir()] == ["set.lock"]


def test_the_folder_is_below_data_dir_and_carries_a_version():
    assert cache.folder("/data", "cifar10").parts[:3] == ("/", "data", "decoded")
    assert cache.folder("/data", "cifar10").name.startswith("cifar10-v")
    assert "~" not in str(cache.folder("~/data", "cifar10"))


def _make_slowly(path, barrier, queue):
    def make(new):
        queue.put(os.getpid())
        cache.fill(new, {"x": np.full(200_000, 7)})

    barrier.wait()
    queue.put(int(cache.load_or_make(path, make)["x"].sum()))


def test_two_processes_that_start_together_make_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_make_slowly, args=(tmp_path / "set", barrier, queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    answers = [queue.get() for _ in range(3)]
    for worker in workers:
        worker.join()
    assert sorted(answers)[-2:] == [1_400_000] * 2
    assert sum(a != 1_400_000 for a in answers) == 1


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("name", ["x", "train_images"])
def test_a_damaged_file_is_named_with_its_mend(tmp_path, cut, name):
    make = lambda new: cache.fill(new, {"train_images": np.arange(3), "x": np.arange(3)})
    cache.load_or_make(tmp_path / "set", make)
    path = tmp_path / "set" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-5] if cut else b"no array")
    with pytest.raises(UserError, match="delete that folder, and it is made anew"):
        cache.load_or_make(tmp_path / "set", three)
