"""Data sets, imbalance, cache, augmentation."""

import gzip
import multiprocessing
import os
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits, moons
from tavaal_jax.data import augment, cache, debian_fashion_mnist, load
from tavaal_jax.data.dataset import Dataset, thinned
from tavaal_jax.errors import UserError


def test_moons_are_500_and_50_and_tested_evenly():
    data = load(moons.get_config())
    assert data.train_images.shape == (550, 2)
    np.testing.assert_array_equal(np.bincount(data.train_labels), [500, 50])
    np.testing.assert_array_equal(np.bincount(data.test_labels), [1000, 1000])


def test_digits_are_all_there_once():
    data = load(digits.get_config())
    assert data.train_images.shape == (1297, 8, 8, 1)
    assert data.test_images.shape == (500, 8, 8, 1)
    assert data.train_images.dtype == np.uint8
    assert len(set(data.train_ids)) == 1297
    assert min(np.bincount(data.test_labels)) >= 48


def test_normalised_training_images_have_mean_0_and_deviation_1():
    train, test = load(digits.get_config()).on_device()
    plain = np.asarray(train.plain(jnp.arange(1297)))
    np.testing.assert_allclose([plain.mean(), plain.std()], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(train.mean, test.mean)


def imbalanced(ratio, classes=(0, 1, 2, 3, 4)):
    labels = np.tile(np.arange(10, dtype=np.int32), 5000)
    numbers = np.arange(50_000)
    names = tuple("abcdefghij")
    data = Dataset("x", numbers, labels, numbers.astype(str), numbers[:1], labels[:1], names)
    return thinned(data, ratio, classes)


@pytest.mark.parametrize(("ratio", "kept"), [(10, 500), (100, 50)])
def test_imbalanced_cifar_counts(ratio, kept):
    data = imbalanced(ratio)
    np.testing.assert_array_equal(np.bincount(data.train_labels), [kept] * 5 + [5000] * 5)
    np.testing.assert_array_equal(data.train_images.astype(str), data.train_ids)
    assert list(data.train_images) == sorted(data.train_images)


def test_imbalance_of_every_second_class_as_the_released_code():
    counts = np.bincount(imbalanced(10, (1, 3, 5, 7, 9)).train_labels)
    np.testing.assert_array_equal(counts, [5000, 500] * 5)


def test_augment_shifts_and_flips_within_the_padding():
    image = jnp.arange(1, 17, dtype=jnp.uint8).reshape(4, 4, 1)
    padded = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)))
    allowed = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed += [x[:, ::-1] for x in allowed]
    one = jax.jit(lambda key: augment.augment(image, key, pad=1, flip=True))
    seen = set()
    for number in range(300):
        out = np.asarray(one(jax.random.key(number)))
        matches = [i for i, x in enumerate(allowed) if np.array_equal(out, x)]
        assert matches
        seen.add(matches[0])
    assert len(seen) == 18


def test_no_augmentation_changes_nothing():
    image = jnp.arange(16.0).reshape(4, 4, 1)
    np.testing.assert_array_equal(augment.augment(image, jax.random.key(0), 0, flip=False), image)


def test_cache_is_made_once_and_read_back(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"train_images": np.arange(3), "class_names": np.array(["a", "b"])}

    for _ in range(2):
        arrays = cache.load_or_make(tmp_path / "set", make)
        np.testing.assert_array_equal(arrays["train_images"], [0, 1, 2])
        assert list(arrays["class_names"]) == ["a", "b"]
    assert len(made) == 1


def test_a_failed_making_leaves_nothing_behind(tmp_path):
    def fail():
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        cache.load_or_make(tmp_path / "set", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["set.lock"]


def _make_slowly(path, barrier, queue):
    def make():
        queue.put(os.getpid())
        return {"x": np.full(200_000, 7)}

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


def test_debian_files_get_their_header_back(tmp_path):
    official = gzip.compress(b"pixels", mtime=5)
    stripped = official[:4] + struct.pack("<L", 99) + official[8:]
    restored = debian_fashion_mnist.with_header(stripped, "name", 5)
    assert gzip.decompress(restored) == b"pixels"
    assert restored[3] == 8
    assert restored[4:8] == struct.pack("<L", 5)
    assert restored[10:15] == b"name\0"


def test_files_that_are_not_the_official_ones_are_refused(tmp_path):
    with pytest.raises(UserError, match="is missing: apt-get install"):
        debian_fashion_mnist.restore(tmp_path, tmp_path / "data")
    for name in debian_fashion_mnist._OFFICIAL:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(UserError, match="does not give the official"):
        debian_fashion_mnist.restore(tmp_path, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.gz"))
