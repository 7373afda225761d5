"""Data sets from arrays and by name, imbalance, normalisation."""

import dataclasses
import hashlib
import tracemalloc

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import digits
from tavaal_jax import config as configs
from tavaal_jax.data import Dataset, is_at_hand, load, pool
from tavaal_jax.data.dataset import normaliser
from tavaal_jax.data.loading import thinned
from tavaal_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]


def test_normalised_training_images_have_mean_0_and_deviation_1():
    data = load(digits.get_config())
    train, test = data.resident(normaliser(digits.get_config(), data.train_images))
    plain = np.asarray(train.plain(np.arange(1297)))
    np.testing.assert_allclose([plain.mean(), plain.std()], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(train.normalise.mean, test.normalise.mean)


def test_what_goes_to_the_devices_has_no_training_label():
    data = Dataset.from_arrays(IMAGES, LABELS, IMAGES[:2], LABELS[:2])
    train, test = data.resident(normaliser(configs.default(), data.train_images))
    np.testing.assert_array_equal(train.labels, [-1] * 6)
    np.testing.assert_array_equal(test.labels, [0, 1])


# From arrays


def test_images_from_arrays():
    data = Dataset.from_arrays(IMAGES, LABELS, IMAGES[:2], np.array(LABELS[:2], np.uint8))
    assert (data.name, data.classes, data.shape) == ("arrays", 3, (4, 4, 3))
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(data.train_images, IMAGES)
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert list(data.train_ids) == [f"train_{i}" for i in range(6)]
    assert not data.is_plane


def test_images_without_channels_get_one():
    data = Dataset.from_arrays(IMAGES[..., 0], LABELS, IMAGES[:2, :, :, 0], LABELS[:2])
    assert data.train_images.shape == (6, 4, 4, 1)
    assert data.test_images.shape == (2, 4, 4, 1)
    np.testing.assert_array_equal(data.train_images[..., 0], IMAGES[..., 0])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, bool])
def test_features_of_any_numbers_become_float32(dtype):
    features = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    data = Dataset.from_arrays(features, [0, 1, 0], features[:1], [1])
    assert data.train_images.dtype == data.test_images.dtype == np.float32
    np.testing.assert_array_equal(data.train_images, [[0, 1], [1, 1], [1, 0]])
    assert data.is_plane


def mapped(folder, values):
    np.save(folder / "features.npy", values)
    return np.load(folder / "features.npy", mmap_mode="r")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_mapped_from_a_disk_stay_there(dtype, tmp_path):
    features = mapped(tmp_path, np.array([[0, 1], [1, 1], [1, 0]], dtype))
    data = Dataset.from_features(features, [0, 1, 0], [[0.1, 0.2]], [1])
    assert np.shares_memory(data.train_images, features)
    assert data.train_images.dtype == dtype
    assert data.test_images.dtype == np.float32
    bad = mapped(tmp_path, np.array([[0, 1], [1, np.inf]], dtype))
    with pytest.raises(UserError, match="with NaN, infinity or what float32 cannot hold"):
        Dataset.from_features(bad, [0, 1])


def test_what_is_not_only_read_from_a_disk_is_copied(tmp_path):
    labels, values = [0, 1, 0], mapped(tmp_path, np.eye(3, dtype=np.float16))
    changing = np.load(tmp_path / "features.npy", mmap_mode="c")
    for given in (mapped(tmp_path, np.eye(3)), values.copy(), changing):
        data = Dataset.from_features(given, labels)
        assert data.train_images.dtype == np.float32
        assert not np.shares_memory(data.train_images, given)


def test_a_fingerprint_is_the_same_from_a_disk_as_from_memory(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)
    labels = [0, 1, 0, 1, 1]
    there = Dataset.from_features(mapped(tmp_path, values), labels)
    assert there.fingerprint() == Dataset.from_features(values, labels).fingerprint()


def test_lists_names_and_ids_are_taken():
    data = Dataset.from_arrays(
        [[0.0, 1.0], [2.0, 3.0]], [0, -1], ids=["a", 7], class_names=["cat", "dog"], name="mine"
    )
    assert list(data.train_ids) == ["a", "7"]
    assert data.class_names == ("cat", "dog")
    assert data.name == "mine"


def test_without_a_test_set_there_is_an_empty_one():
    data = Dataset.from_arrays(IMAGES, [0, 1, -1, -1, -1, -1])
    assert data.test_images.shape == (0, 4, 4, 3)
    assert data.test_images.dtype == np.uint8
    assert data.test_labels.shape == (0,)
    assert data.test_labels.dtype == np.int32
    np.testing.assert_array_equal(data.train_labels, [0, 1, -1, -1, -1, -1])


def test_a_class_that_only_the_test_set_has_counts():
    assert Dataset.from_arrays(IMAGES, [0, 1] * 3, IMAGES[:1], [4]).classes == 5


POINTS = np.arange(12.0).reshape(6, 2)
NAN = np.where(POINTS == 3, np.nan, POINTS)
FAULTS = {
    "float images": ((IMAGES / 255, LABELS), {}, "images are float64 (6, 4, 4, 3): give uint8"),
    "text": ((POINTS.astype(str), LABELS), {}, "images are <U"),
    "complex": ((POINTS + 1j, LABELS), {}, "images are complex128 (6, 2): give uint8"),
    "not finite": ((NAN, LABELS), {}, "images with NaN, infinity or what"),
    "masked": ((np.ma.masked_equal(POINTS, 3), LABELS), {}, "1 of 12 values of images are masked"),
    "masked test images": (
        (POINTS, LABELS, np.ma.masked_equal(POINTS, 3), LABELS),
        {},
        "1 of 12 values of test_images are masked: fill them in, or leave",
    ),
    "dates": ((POINTS.astype("M8[D]"), LABELS), {}, "images of type datetime64[D]: give numbers"),
    "lost in float32": (
        (POINTS + 1.7e9, LABELS),
        {},
        "column 0 of images has 6 different values, of which float32 tells 1 apart: subtract",
    ),
    "channels first": (
        (np.zeros((6, 3, 8, 8), np.uint8), LABELS),
        {},
        "images have shape (6, 3, 8, 8), which would be 8 channels of 3 x 8 pixels: give [N, H, W",
    ),
    "one dimension": ((IMAGES[:, 0, 0, 0], LABELS), {}, "images have shape (6,): give"),
    "five dimensions": ((IMAGES[..., None], LABELS), {}, "images have shape (6, 4, 4, 3, 1)"),
    "no images": ((IMAGES[:0], []), {}, "images have shape (0, 4, 4, 3)"),
    "too few labels": ((IMAGES, LABELS[:5]), {}, "labels are int64 (5,): give whole numbers [6]"),
    "one-hot labels": ((IMAGES, np.eye(6, dtype=int)), {}, "labels are int64 (6, 6)"),
    "float labels": ((IMAGES, np.array(LABELS, float)), {}, "labels are float64 (6,)"),
    "negative labels": ((IMAGES, [-2, *LABELS[1:]]), {}, "labels hold -2: give -1 or more"),
    "test images alone": ((IMAGES, LABELS, IMAGES), {}, "go together: give both or neither"),
    "test labels alone": ((IMAGES, LABELS, None, LABELS), {}, "go together"),
    "other size": (
        (IMAGES, LABELS, IMAGES[:, :2], LABELS),
        {},
        "test_images are uint8 (2, 4, 3) and images uint8 (4, 4, 3): give both alike",
    ),
    "other kind": ((IMAGES, LABELS, POINTS, LABELS), {}, "test_images are float32 (2,)"),
    "no test images": ((IMAGES, LABELS, IMAGES[:0], []), {}, "test_images have shape (0, 4, 4, 3)"),
    "unknown test label": (
        (IMAGES, LABELS, IMAGES, [-1, *LABELS[1:]]),
        {},
        "test_labels hold -1: give 0 or more",
    ),
    "one class": ((IMAGES, [0] * 6), {}, "labels go up to 0 and there are 1 classes"),
    "no label": ((IMAGES, [-1] * 6), {}, "labels go up to -1 and there are 0 classes"),
    "too few names": (
        (IMAGES, LABELS),
        {"class_names": ["a", "b"]},
        "labels go up to 2 and there are 2 classes: give class_names",
    ),
    "ids twice": ((IMAGES, LABELS), {"ids": list("aabcde")}, "ids are 6: give 6 different ones"),
    "an id that no file can hold": (
        (IMAGES, LABELS),
        {"ids": ["\udcff", *"abcde"]},
        "'\\udcff' is an id or class name that no file can hold: rename it",
    ),
    "masked labels": (
        (IMAGES, np.ma.masked_equal(LABELS, 2)),
        {},
        "labels are masked: give -1 to those that are unknown",
    ),
    "no features": ((POINTS[:, :0], LABELS), {}, "images have shape (6, 0): give images, or"),
    "people's name": ((IMAGES, LABELS), {"name": "people"}, "name is 'people', which is people's"),
    "too few ids": ((IMAGES, LABELS), {"ids": list("abc")}, "ids are 3: give 6 different ones"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_arrays_that_do_not_fit_are_refused_in_one_line(fault):
    arguments, keywords, expected = FAULTS[fault]
    with pytest.raises(UserError) as error:
        Dataset.from_arrays(*arguments, **keywords)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_the_highest_class_of_maps_is_found_without_a_copy_of_them():
    maps = np.full((40, 256, 256), 255, np.uint8)
    images = np.broadcast_to(np.uint8(0), (*maps.shape, 3))
    maps[7, 3, 3] = 4
    tracemalloc.start()
    assert Dataset.from_arrays(images, maps).classes == 5
    assert tracemalloc.get_traced_memory()[1] < 2 * maps.nbytes
    tracemalloc.stop()
    with pytest.raises(UserError, match="labels go up to -1 and there are 0 classes"):
        Dataset.from_arrays(images, np.full_like(maps, 255))


def test_a_fingerprint_is_that_of_whole_arrays_although_it_is_taken_in_parts(monkeypatch):
    monkeypatch.setattr(pool, "_BYTES", 100)
    data = Dataset.from_arrays(IMAGES[:, ::-1], LABELS, IMAGES[:2], LABELS[:2])
    whole = hashlib.sha256()
    for array in (data.train_images, data.train_labels, data.test_images, data.test_labels):
        whole.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    assert len(list(pool.parts(data.train_images))) > 1
    assert data.fingerprint() == whole.hexdigest()

    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(pool.RowView, "__array__", refuse)
    rows = pool.RowView(IMAGES, np.arange(6))
    taken = dataclasses.replace(data, train_images=rows)
    plain = dataclasses.replace(data, train_images=IMAGES)
    assert taken.fingerprint() == plain.fingerprint()


# Normalisation


def settings(mean, deviation):
    return ConfigDict({"normalisation": {"mean": mean, "deviation": deviation, "features": "each"}})


def test_constants_of_the_config_are_used_where_it_has_them():
    found = normaliser(settings((0.5, 0.4, 0.3), (0.2, 0.2, 0.2)), IMAGES)
    np.testing.assert_allclose(found.mean.ravel(), [127.5, 102.0, 76.5], rtol=1e-6)
    np.testing.assert_allclose(found.std.ravel(), [51.0] * 3, rtol=1e-6)
    assert normaliser(settings((0.5,), (0.2,)), IMAGES).mean.shape == (1, 1, 1)
    own = normaliser(settings((), ()), IMAGES)
    np.testing.assert_allclose(own.mean.ravel(), IMAGES.mean((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "images"), [((0.5, 0.5), IMAGES), ((0.5,), POINTS), ((0.5,) * 3, IMAGES / 255)]
)
def test_constants_that_do_not_fit_the_images_are_refused(mean, images):
    with pytest.raises(UserError, match=f"normalisation.mean has {len(mean)} values"):
        normaliser(settings(mean, mean), images)


# Imbalance


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


def test_a_class_keeps_one_image_at_least():
    assert list(np.bincount(imbalanced(10**6, (3,)).train_labels))[2:5] == [5000, 1, 5000]


def test_the_config_thins_the_training_set_alone():
    config = digits.get_config()
    config.imbalance.update(ratio=10, classes=(0, 1))
    whole, thin = load(digits.get_config()), load(config)
    before, after = (np.bincount(data.train_labels) for data in (whole, thin))
    np.testing.assert_array_equal(after, [*(before[:2] // 10), *before[2:]])
    np.testing.assert_array_equal(whole.test_images, thin.test_images)


# By name


def test_an_embedded_data_set_is_at_hand_and_others_once_they_are_decoded(tmp_path):
    config = digits.get_config()
    assert is_at_hand(config)
    config.dataset, config.data_dir = "cifar10", str(tmp_path)
    assert not is_at_hand(config)
    (tmp_path / "decoded" / "cifar10-v1").mkdir(parents=True)
    assert is_at_hand(config)
    config.dataset = "arrays"
    assert not is_at_hand(config)


def test_what_was_decoded_before_is_read_from_its_folder(tmp_path):
    config = digits.get_config()
    config.dataset, config.data_dir = "cifar10", str(tmp_path)
    folder = tmp_path / "decoded" / "cifar10-v1"
    folder.mkdir(parents=True)
    arrays = {
        "train_images": IMAGES, "train_labels": np.array(LABELS, np.int32),
        "train_ids": np.array(list("abcdef")), "test_images": IMAGES[:2],
        "test_labels": np.array([0, 1], np.int32), "class_names": np.array(["x", "y", "z"]),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    data = load(config)
    assert data.class_names == ("x", "y", "z")
    assert data.name == "cifar10"
    np.testing.assert_array_equal(data.train_images, IMAGES)
    assert list(data.train_ids) == list("abcdef")
