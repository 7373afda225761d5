"""Features in place of images: their cache, files of them, studies, people's images, models."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import people
import pytest
import tiny_backbone
from conftest import ROOT, read_csv

import tavaal_jax
from configs import digits
from tavaal_jax import config as configs
from tavaal_jax import predict
from tavaal_jax.data import feature_file
from tavaal_jax.data import features as stored
from tavaal_jax.data.dataset import Dataset, PhotoFiles
from tavaal_jax.data.feature_file import FeatureFile
from tavaal_jax.data.features import ImageFeatures, image_ids
from tavaal_jax.data.pool import RowView
from tavaal_jax.engine import memory, processes
from tavaal_jax.errors import UserError, WaitingForLabels
from tavaal_jax.labelling import reading
from tavaal_jax.labelling.workdir import LabellingWorkdir
from tavaal_jax.models import weights as loading
from tavaal_jax.models.backbones import load_backbone
from tavaal_jax.report import files
from tavaal_jax.study import features


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setitem(tavaal_jax.NETWORKS, tiny_backbone.NAME, tiny_backbone.row())
    return tiny_backbone.write(tmp_path / "tiny.npz")


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


class Counted:
    """An embedder without JAX that counts its images: their sums and first values."""

    digest, image_size, features, at_once = "0123456789abcdef0", 8, 2, 4

    def __init__(self):
        self.count = 0

    def __call__(self, images):
        self.count += len(images)
        return lambda: np.stack([images.sum((1, 2, 3)), images[:, 0, 0, 0]], 1).astype(np.float32)


def add(cache, images):
    ids = image_ids(images)
    return ids, cache.add(list(zip(ids, range(len(ids)), strict=True)))


# The cache


def test_an_image_is_computed_once_and_later_ones_cost_only_themselves(tmp_path):
    images, embedder = pictures(11), Counted()
    cache = ImageFeatures(tmp_path, embedder, images)
    ids, faults = add(cache, images[:9])
    assert (faults, embedder.count, len(set(ids))) == ({}, 9, 9)
    again = ImageFeatures(tmp_path, embedder, images)
    ids, _ = add(again, images)
    assert embedder.count == 11
    found = RowView(again.array, again.rows(ids))
    np.testing.assert_array_equal(found[:], embedder(images)())


def test_other_weights_sizes_and_decodings_have_a_folder_of_their_own(tmp_path):
    one, other, larger = Counted(), Counted(), Counted()
    other.digest, larger.image_size = "f" * 16, 16
    how = (None, stored.Decoding(), stored.Decoding("crop"), stored.Decoding("crop", (0.0, 9.0)))
    folders = {stored.folder(tmp_path, e, d) for e in (one, other) for d in how}
    folders |= {stored.folder(tmp_path, larger, d) for d in how[1:]}
    assert len(folders) == 11


def test_a_cache_that_was_cut_is_computed_again_where_it_lacks(tmp_path):
    images, embedder = pictures(8), Counted()
    cache = ImageFeatures(tmp_path, embedder, images)
    ids, _ = add(cache, images)
    file = cache.folder / "features.f32"
    with file.open("r+b") as opened:
        opened.truncate(5 * 8 + 3)
    again = ImageFeatures(tmp_path, embedder, images)
    add(again, images)
    assert embedder.count == 8 + 3
    np.testing.assert_array_equal(again.array[again.rows(ids)], embedder(images)())


def test_photos_that_cannot_be_decoded_keep_their_reason(tmp_path, weights):
    truth = people.folder(tmp_path / "photos", 5)
    paths = [tmp_path / "photos" / name for name in truth]
    paths[2].write_bytes(paths[2].read_bytes()[:60])
    ids = []
    for path in paths:
        with path.open("rb") as file:
            ids.append(stored.decode.content_id(file))
    embedder = Counted()
    cache = stored.PhotoFeatures(tmp_path / "cache", embedder)
    faults = cache.add(list(zip(ids, paths, strict=True)))
    assert list(faults) == [ids[2]]
    assert (embedder.count, cache.rows(ids).tolist()) == (4, [0, 1, -1, 2, 3])


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    class Endless:
        """An array of many images, made when they are asked for."""

        dtype, ndim, shape, nbytes = np.dtype(np.uint8), 4, (20_000, 4, 4, 1), 320_000

        def __len__(self):
            return self.shape[0]

        def __getitem__(self, key):
            number = np.arange(len(self))[key]
            bytes_ = np.stack([number % 256, number // 256], -1).astype(np.uint8)
            return np.broadcast_to(bytes_.reshape(*np.shape(number), 2, 1, 1).repeat(2, -3),
                                   (*np.shape(number), 4, 4, 1))  # fmt: skip

    embedder, most = Counted(), []
    embedder.at_once = 512
    images = Endless()
    ids = image_ids(images)
    cache = ImageFeatures(tmp_path, embedder, images)
    plain = cache._store

    def store(batch, *others):
        most.append(len(batch))
        plain(batch, *others)

    cache._store = store
    cache.add(list(zip(ids, range(len(ids)), strict=True)))
    assert len(set(ids)) == len(cache.array) == 20_000
    assert max(most) <= stored._MOST


# Files of features


def save(path, ids, values, **others):
    np.savez(path, ids=np.array(ids, str), features=values, **others)
    return str(path)


def test_a_file_is_matched_by_id_and_by_file_name(tmp_path):
    values = np.arange(12, dtype=np.float16).reshape(4, 3)
    file = FeatureFile(save(tmp_path / "f.npz", ["i1", "a/x.jpg", "y.jpg", "b/x.jpg"], values))
    faults = file.add([("i1", "/p/q.jpg"), ("i2", "/p/a/x.jpg"), ("i3", "/p/y.jpg"),
                       ("i4", "/p/c/x.jpg")])  # fmt: skip
    assert faults == {"i4": "no features in f.npz"}
    assert file.rows(["i1", "i2", "i3", "i4"]).tolist() == [0, 1, 2, -1]


def test_a_name_that_fits_several_images_fits_none(tmp_path):
    file = FeatureFile(save(tmp_path / "f.npz", ["x.jpg", "y.jpg"], np.zeros((2, 1), np.float32)))
    faults = file.add([("i1", "/p/a/x.jpg"), ("i2", "/p/b/x.jpg"), ("i3", "/p/y.jpg")])
    assert list(faults) == ["i1", "i2"]
    assert "its name for several images" in faults["i1"]


def test_what_a_file_gives_does_not_depend_on_what_it_gave_before(tmp_path):
    values = np.arange(2, dtype=np.float32)[:, None]
    file = FeatureFile(save(tmp_path / "f.npz", ["x.jpg", "y.jpg"], values))
    first = file.matching()
    assert first.add([("old", "/p/x.jpg"), ("i2", "/p/y.jpg")]) == {}
    edited = file.matching({"old", "i2"})  # x.jpg has another content by now.
    assert edited.add([("new", "/p/x.jpg"), ("i2", "/p/y.jpg")]) == {}
    assert (edited.rows(["new", "old"]).tolist(), first.rows(["old"]).tolist()) == ([0, -1], [0])
    second = ("other", "/p/camera/x.jpg")
    for todo in ([("old", "/p/x.jpg"), second], [second, ("old", "/p/x.jpg")]):
        kept = file.matching({"old"})  # An image that was there keeps its row.
        assert list(kept.add(todo)) == ["other"]
        assert kept.rows(["old", "other"]).tolist() == [0, -1]
        assert sorted(file.matching().add(todo)) == ["old", "other"]
    photos = PhotoFiles(np.array(["i1", "i2"]), ["/p/x.jpg", "/p/b/x.jpg"])
    with pytest.raises(UserError, match=r"images of two, a, b \(f\.npz has its name for several"):
        file.matching().rows_of("two", ["a", "b"], photos)


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "f.npz", ["x.jpg"], np.zeros((1, 1), np.float32))
    real = feature_file._read

    def overwritten(*arguments):
        found = real(*arguments)
        save(tmp_path / "f.npz", ["x.jpg"], np.ones((1, 3), np.float32))
        return found

    monkeypatch.setattr(feature_file, "_read", overwritten)
    with pytest.raises(UserError, match="which was written to while it was read"):
        FeatureFile(path)


def test_an_npy_has_its_ids_beside_it_and_stays_on_the_disk(tmp_path):
    np.save(tmp_path / "f.npy", np.ones((2, 3), np.float32))
    with pytest.raises(UserError, match=r"there is no file .*f\.txt: give it, a line with the id"):
        FeatureFile(str(tmp_path / "f.npy"))
    (tmp_path / "f.txt").write_text("a.jpg\nb.jpg\n")
    file = FeatureFile(str(tmp_path / "f.npy"))
    assert isinstance(file.array, np.memmap)
    assert file.rows(["b.jpg"]).tolist() == [1]


WRONG = [
    ({"features": np.zeros((2, 3))}, "it holds features: give it features"),
    ({"features": np.zeros((2, 3)), "ids": np.array(["a", "b"])}, "are float64"),
    ({"features": np.zeros((2, 3, 1), np.float32), "ids": np.array(["a", "b"])}, r"\(2, 3, 1\)"),
    ({"features": np.zeros((2, 3), np.float32), "ids": np.array(["a"])}, "2 features and 1 ids"),
    ({"features": np.zeros((2, 3), np.float32), "ids": np.array(["a", "a"])}, "'a' twice"),
    ({"features": np.full((2, 3), np.nan, np.float32), "ids": np.array(["a", "b"])},
     "of a are not finite"),
    ({"features": np.zeros((2, 3), np.float32), "ids": np.array(["a", None], object)},
     r"save float arrays, and ids as np\.array"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "says"), WRONG)
def test_a_file_that_is_none_is_one_line(tmp_path, content, says):
    np.savez(tmp_path / "f.npz", **content)
    with pytest.raises(UserError, match=says) as error:
        FeatureFile(str(tmp_path / "f.npz"))
    assert "\n" not in str(error.value)


def test_an_image_that_has_features_keeps_them_when_another_is_named_alike(tmp_path):
    people.folder(tmp_path / "photos", 3)
    (tmp_path / "work").mkdir()
    config = people.config(tmp_path / "photos", tmp_path)
    values = np.arange(2, dtype=np.float32)[:, None]
    names = ["photo_000.png", "photo_001.png"]
    config.backbone.features = save(tmp_path / "f.npz", names, values)
    workdir, said = LabellingWorkdir(tmp_path / "work"), []

    def status():
        images = reading.open_images(config, workdir)
        now = reading.take_snapshot(config, workdir, images, said.append, lambda: None)
        there, found = now.features_of([image.id for image in now.images])
        assert len(there) == len(found)
        return {image.file: image.status for image in now.images}, found[:, 0].tolist()

    first = dict(zip([*names, "photo_002.png"], ["ok", "ok", "no_features"], strict=True))
    assert status() == (first, [0, 1])
    assert any("file that cannot be used (no features in f.npz)" in line for line in said)
    people.folder(tmp_path / "photos" / "a_camera", 1, first=50)
    (tmp_path / "photos" / "a_camera" / "photo_050.png").rename(
        tmp_path / "photos" / "a_camera" / "photo_000.png"
    )
    for _ in range(2):  # As after a restart.
        features._kept.clear()
        assert status() == ({**first, "a_camera/photo_000.png": "no_features"}, [0, 1])
    config.backbone.features = save(tmp_path / "f.npz", ["a.png"], values[:1])
    with pytest.raises(
        UserError, match=r"can be read \(.*no features in f\.npz\): see to --config\.b"
    ):
        status()


# Configs and data sets


def images_of_two(count=40, tests=10):
    labels = np.arange(count + tests) % 2
    images = pictures(count + tests)
    images[labels == 1, :4] = np.minimum(images[labels == 1, :4] // 4 + 190, 255)
    return Dataset.from_arrays(
        images[:count], labels[:count], images[count:], labels[count:], name="two"
    )


def small(tmp_path, weights=""):
    config = digits.get_config()
    config.update(trials=1, cycles=2, initial=8, budget=4, subset=0, epochs=2, batch_size=8,
                  data_dir=str(tmp_path / "data"), methods="random,coreset")  # fmt: skip
    config.vae.latent = 2
    config.discriminator.hidden = (4,)
    return tiny_backbone.settings(config, weights) if weights else config


def test_keys_that_only_images_have_become_those_of_features(tmp_path, weights):
    config = small(tmp_path, weights)
    before = configs.plain(config)
    found = features.adapted(config)
    assert found.task.network in ("linear", "mlp")
    assert (found.vae.network, found.augmentation.pad, found.augmentation.flip) == ("mlp", 0, False)
    assert configs.plain(config) == before
    assert configs.plain(features.adapted(found)) == configs.plain(found)
    plain = small(tmp_path)
    before = configs.plain(plain)
    assert configs.flat(configs.plain(features.adapted(plain))) == {
        **configs.flat(before), "normalisation.features": "each",
    }  # fmt: skip
    assert configs.plain(plain) == before
    for key, value in (("weights", "w.npz"), ("image_size", 64)):
        config = small(tmp_path)
        config.backbone[key] = value
        with pytest.raises(UserError, match=f"backbone.{key} is {value}, and backbone.name is emp"):
            features.adapted(config)


def test_other_ids_beside_the_same_features_are_other_features(tmp_path):
    np.save(tmp_path / "f.npy", np.ones((2, 3), np.float32))
    config, found = small(tmp_path), []
    config.backbone.features = str(tmp_path / "f.npy")
    for ids in ("a.jpg\nb.jpg\n", "b.jpg\na.jpg\n", "a.jpg\nb.jpg\n"):
        (tmp_path / "new.txt").write_text(ids)
        (tmp_path / "new.txt").replace(tmp_path / "f.txt")
        found.append(features.digest(features.source(config)))
    assert found[0] == found[2] != found[1]


def test_features_of_a_data_set_take_the_place_of_its_images(tmp_path, weights):
    config, dataset = small(tmp_path, weights), images_of_two()
    told = []
    found = features.of_dataset(config, dataset, features.source(config), told.append)
    np.testing.assert_allclose(
        np.asarray(found.train_images),
        tiny_backbone.expected(dataset.train_images, weights), atol=1e-5,
    )  # fmt: skip
    assert (found.shape, len(found.test_images)) == ((tiny_backbone.FEATURES,), 10)
    assert found.train_ids is dataset.train_ids
    assert [e.text.partition(" in ")[0] for e in told if e.text] == [
        "Features of training images of two: 40", "Features of test images of two: 10",
    ]  # fmt: skip
    assert not [e for e in _told(config, dataset) if e.text]


def _told(config, dataset):
    told = []
    features.of_dataset(config, dataset, features.source(config), told.append)
    return told


def test_features_of_a_file_are_matched_by_the_data_sets_ids(tmp_path):
    config, dataset = small(tmp_path), images_of_two()
    ids = [*dataset.train_ids[::-1], *(f"test_{n}" for n in range(10))]
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float16)
    config.backbone.features = save(tmp_path / "f.npz", ids, values)
    found = features.of_dataset(config, dataset, features.source(config))
    assert found.train_images.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(found.train_images), values[:40][::-1])
    config.backbone.features = save(tmp_path / "g.npz", ids[:-2], values[:-2])
    with pytest.raises(UserError, match=r"none of 2 of the 10 images of two, test_8, test_9: add"):
        features.of_dataset(config, dataset, features.source(config))


def test_a_data_set_of_features_is_two_numbers_per_row():
    values, labels = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
    found = Dataset.from_features(values, labels)
    assert (found.shape, found.name, found.train_images.dtype) == ((3,), "features", np.float32)
    with pytest.raises(UserError, match=r"features have shape \(6, 8, 8, 3\): give \[N, F\]"):
        Dataset.from_features(pictures(6), labels)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"backbone.name": "tiny_backbon"}, r"did you mean tiny_backbone\?"),
     ({"backbone.weights": "/nowhere.npz"}, "nowhere"),
     ({"backbone.features": "f.npz"}, "set one of them"),
     ({"dataset": "moons"}, "moons has 2 features and no images"),
     ({"dataset": "scenes"}, "scenes has label maps"),
     ({"backbone.image_size": -1}, "backbone.image_size is -1: give 1 or more, or 0 for 8")],
)  # fmt: skip
def test_a_wrong_config_is_one_line(tmp_path, weights, changes, says):
    config = small(tmp_path, weights)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=says) as error:
        tavaal_jax.run_study(config, tmp_path / "work")
    assert "\n" not in str(error.value)


def test_all_processes_look_together_for_what_makes_features(tmp_path, weights, monkeypatch):
    inside, real = [], processes.together

    def together(function):
        inside.append(function)
        try:
            return real(function)
        finally:
            inside.pop()

    def source(config):
        assert inside
        raise UserError("it is not on this host")

    monkeypatch.setattr(processes, "together", together)
    monkeypatch.setattr(features, "source", source)
    with pytest.raises(UserError, match="it is not on this host"):
        tavaal_jax.run_study(small(tmp_path, weights), tmp_path / "work", images_of_two())


def test_a_record_of_other_weights_differs_by_one_line(tmp_path, weights):
    config = features.adapted(small(tmp_path, weights))
    digest = features.digest(features.source(config))
    record = files.running(config, features=digest)
    assert files.changed_keys(record, config, digest) == []
    time.sleep(0.01)
    tiny_backbone.write(weights, seed=1)
    assert files.changed_keys(record, config, features.digest(features.source(config))) == [
        "the content of the weights of backbone.name"
    ]
    del record["features"]  # Of an earlier version, and without a backbone.
    record["config"] = configs.plain(small(tmp_path))
    assert files.changed_keys(record, small(tmp_path), None) == []


# What makes features: read once, and known by all that changes them


def test_a_model_is_of_the_weights_that_made_its_features(tmp_path, weights, monkeypatch):
    dataset, real = images_of_two(), features.of_dataset
    config = features.adapted(small(tmp_path, weights))
    before = features.source(config).digest

    def replaced_afterwards(*arguments):
        found = real(*arguments)
        time.sleep(0.01)
        tiny_backbone.write(weights, seed=1)
        return found

    monkeypatch.setattr(features, "of_dataset", replaced_afterwards)
    learner = tavaal_jax.Learner("random", config)
    learner.fit(dataset.train_images, dataset.train_labels)
    assert learner._fitted.backbone.digest == before
    assert learner.predict(dataset.test_images).tolist() == dataset.test_labels.tolist()
    assert features.source(config).digest != before


def test_weights_that_are_written_while_they_are_read_are_refused(weights, monkeypatch):
    real = loading._tensors

    def overwritten(*arguments):
        time.sleep(0.01)
        tiny_backbone.write(weights, seed=1)
        return real(*arguments)

    monkeypatch.setattr(loading, "_tensors", overwritten)
    with pytest.raises(UserError, match="which was written to while it was read: wait for its end"):
        load_backbone(tiny_backbone.NAME, weights)


def test_all_that_changes_features_is_in_their_digest(tmp_path, weights, monkeypatch):
    row, found = tiny_backbone.row(), []
    for changes in (
        {}, {"mean": (0.5, 0.5, 0.25)}, {"deviation": (0.25, 0.25, 0.5)}, {"revision": 2}, {},
    ):  # fmt: skip
        changed = row._replace(published=row.published._replace(**changes))
        monkeypatch.setitem(tavaal_jax.NETWORKS, tiny_backbone.NAME, changed)
        found.append(load_backbone(tiny_backbone.NAME, weights).digest)
    monkeypatch.setattr(tiny_backbone, "FEATURES", 4)
    with np.load(weights) as file:
        np.savez(tmp_path / "less.npz", w=file["w"][:, :4])
    monkeypatch.setattr(loading.hashlib, "file_digest", lambda *_: loading.hashlib.sha256(b""))
    found += [load_backbone(tiny_backbone.NAME, str(tmp_path / "less.npz")).digest]
    monkeypatch.setattr(tiny_backbone, "FEATURES", 6)
    found += [load_backbone(tiny_backbone.NAME, weights).digest]
    assert found[0] == found[4]
    assert len(set(found)) == 6


def test_a_row_of_networks_that_is_replaced_is_used_at_once(tmp_path, weights, monkeypatch):
    config, dataset = small(tmp_path, weights), images_of_two(8, 2)
    source = features.source(config)
    assert features.source(config) is source
    before = features.of_dataset(config, dataset, source)
    row = tiny_backbone.row()
    changed = row._replace(published=row.published._replace(mean=(0.0,) * 3))
    monkeypatch.setitem(tavaal_jax.NETWORKS, tiny_backbone.NAME, changed)
    other = features.source(config)
    assert features.embedder(other).backbone is other
    after = features.of_dataset(config, dataset, other)
    assert (after.made_by.digest, before.made_by.digest) == (other.digest, source.digest)
    assert np.abs(np.asarray(after.train_images) - np.asarray(before.train_images)).max() > 0.01


def test_a_damaged_row_of_the_cache_is_computed_again(tmp_path, weights):
    config, dataset = small(tmp_path, weights), images_of_two(8, 2)
    source = features.source(config)
    features.of_dataset(config, dataset, source)
    (file,) = (tmp_path / "data" / "features").glob("*/features.f32")
    values = bytearray(file.read_bytes())
    values[3 * 4 * tiny_backbone.FEATURES] ^= 64
    file.write_bytes(values)
    found = features.of_dataset(config, dataset, source)
    np.testing.assert_allclose(
        np.asarray(found.train_images),
        tiny_backbone.expected(dataset.train_images, weights), atol=1e-5,
    )  # fmt: skip


def test_features_are_normalised_together_unless_the_user_decides(tmp_path, weights):
    values, labels = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
    given = Dataset.from_features(values, labels), Dataset.from_arrays(values, labels)
    how = lambda config, dataset=None: features.adapted(config, dataset).normalisation.features
    config = small(tmp_path)
    assert {how(config, one) for one in (None, *given)} == {"each"}  # No linear T.
    config.task.network = "linear"
    assert [how(config, one) for one in given] == ["together", "each"]
    assert how(small(tmp_path, weights)) == "together"
    for choice in ("each", "together"):
        for one in (config, small(tmp_path, weights)):
            one.normalisation.features = choice
            assert {how(one, x) for x in (None, *given)} == {choice}


def test_a_record_without_that_key_is_of_features_normalised_each(tmp_path, weights):
    plain = configs.plain(features.adapted(small(tmp_path)))
    earlier = {name: value for name, value in plain.items() if name != "normalisation"}
    assert list(configs.differences(earlier, plain)) == []
    together = configs.plain(features.adapted(small(tmp_path, weights)))
    changes = list(configs.differences(earlier, together))
    assert "normalisation.features (each -> together)" in changes


@pytest.mark.slow
@pytest.mark.parametrize("method", ["margin", "uherding", "coreset"])
def test_float16_on_a_disk_and_values_in_a_file_change_no_pick(tmp_path, monkeypatch, method):
    random = np.random.default_rng(0)
    labels = random.integers(2, size=300)
    values = (random.normal(size=(300, 6)) + labels[:, None]).astype(np.float16)
    np.save(tmp_path / "features.npy", values)
    config = small(tmp_path)
    config.update(methods=method, cycles=2, initial=20, budget=10)
    config.task.network, config.vae.network = "linear", "mlp"
    config.augmentation.update(pad=0, flip=False)

    def picks(where, features):
        data = Dataset.from_features(features, labels, values[:50], labels[:50])
        tavaal_jax.run_study(config, tmp_path / where, data)
        return (tmp_path / where / method / "trial_0" / "picks.csv").read_bytes()

    expected = picks("memory", values.astype(np.float32))
    config.data_placement = "streamed"
    sizes, allocate = [], os.posix_fallocate
    monkeypatch.setattr(memory, "_host_bytes", lambda: 4 * 2000)
    monkeypatch.setattr(os, "posix_fallocate", lambda *a: sizes.append(a[2]) or allocate(*a))
    assert picks("disk", np.load(tmp_path / "features.npy", mmap_mode="r")) == expected
    assert bool(sizes) == (method != "margin")  # Whose values are sorted out as they come.


@pytest.mark.slow
def test_values_that_nothing_holds_cost_their_own_method_alone(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    labels, values = random.integers(2, size=300), random.normal(size=(300, 6))
    config = small(tmp_path)
    config.update(methods="coreset,margin", cycles=2, initial=20, budget=10)
    config.task.network, config.vae.network = "linear", "mlp"
    config.augmentation.update(pad=0, flip=False)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memory, "_host_bytes", lambda: 4 * 1000)
    monkeypatch.setattr(os, "posix_fallocate", full)
    config.data_placement = "streamed"
    data = Dataset.from_features(values, labels, values[:50], labels[:50])
    with pytest.raises(
        UserError, match=r"coreset trial 0.* give a folder with more room in TMPDIR"
    ):
        tavaal_jax.run_study(config, tmp_path / "work", data)
    assert len(read_csv(tmp_path / "work" / "margin" / "trial_0" / "results.csv")) == 2
    monkeypatch.undo()
    tavaal_jax.run_study(config, tmp_path / "work", data)
    assert len(read_csv(tmp_path / "work" / "coreset" / "trial_0" / "results.csv")) == 2


# Notebooks


def test_embed_gives_ids_files_and_features(tmp_path, weights):
    people.folder(tmp_path / "photos", 5)
    there = {"weights": weights, "data_dir": str(tmp_path / "data")}
    found = tavaal_jax.embed(tmp_path / "photos", tiny_backbone.NAME, **there)
    assert found.files == [f"photo_{n:03d}.png" for n in range(5)]
    assert {one[0] for one in found.ids} == {"i"}
    images = np.stack([np.repeat(people.picture(n, n % 2)[..., None], 3, -1) for n in range(5)])
    expected = tiny_backbone.expected(images, weights)
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    told = []
    progress = lambda *counts: told.append(counts)
    arrays = tavaal_jax.embed(images, tiny_backbone.NAME, progress=progress, **there)
    assert told == [(n, 5) for n in (1, 2, 3, 4, 5)]
    np.testing.assert_allclose(arrays.features, expected, atol=1e-5)
    with pytest.raises(UserError, match=r"images are float64 \(5, 8, 8, 3\): give uint8"):
        tavaal_jax.embed(images / 255, tiny_backbone.NAME, **there)
    with pytest.raises(UserError, match="give one of stretch, crop, pad"):
        tavaal_jax.embed(images, tiny_backbone.NAME, resize="squeeze", **there)


def test_a_learner_on_images_works_on_features(tmp_path, weights):
    dataset = images_of_two()
    config = features.adapted(small(tmp_path, weights))
    learner = tavaal_jax.Learner("margin", config)
    y = dataset.train_labels.astype(float)
    y[10:] = np.nan
    picks = learner.query(dataset.train_images, y, batch_size=3)
    assert len(set(picks.tolist()) - set(range(10))) == 3
    probabilities = learner.predict_proba(dataset.test_images)
    model = tavaal_jax.load_model(learner.export(tmp_path / "model"))
    np.testing.assert_allclose(model.predict_proba(dataset.test_images), probabilities, atol=1e-5)
    assert model.shape == (tiny_backbone.FEATURES,)
    readme = (tmp_path / "model" / "README.txt").read_text()
    assert "put the file tiny.npz into this folder" in readme.replace("\n", " ")
    assert str(tmp_path) not in (tmp_path / "model" / "model.json").read_text()
    one = r"images have shape \(8, 8, 3\), as a single image has: .* is images\[None\]"
    with pytest.raises(UserError, match=one):
        model.predict_proba(dataset.test_images[0])
    with pytest.raises(UserError, match=one.replace("images", "X", 1).replace("images", "X")):
        learner.predict_proba(dataset.test_images[0])
    elsewhere = tmp_path / "elsewhere.npz"
    os.rename(weights, elsewhere)
    other = dataclasses.replace(model, folder=tmp_path / "work" / "model")
    # This process has them.
    np.testing.assert_array_equal(
        other.predict_proba(dataset.test_images), model.predict_proba(dataset.test_images)
    )
    for where, says in (
        ("", r"are not there: copy tiny\.npz to .*work/model"),
        (weights, r"are not there: copy tiny\.npz to .*work/model, or to .*tiny\.npz"),
    ):
        features._embedders.clear()
        with pytest.raises(UserError, match=says):
            dataclasses.replace(other, weights=where).predict_proba(dataset.test_images)
    (tmp_path / "work").mkdir()
    config.backbone.weights = str(elsewhere)
    files.write_config(tmp_path / "work", config)
    np.testing.assert_allclose(other.predict_proba(dataset.test_images), probabilities, atol=1e-5)
    tiny_backbone.write(elsewhere, seed=3)
    features._embedders.clear()
    with pytest.raises(UserError, match="holds other weights of tiny_backbone"):
        other.predict_proba(dataset.test_images)


def test_exported_programs_go_from_images_to_probabilities(tmp_path, weights):
    from jax import export as jax_export

    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("flatbuffers")
    dataset = images_of_two()
    learner = tavaal_jax.Learner("random", features.adapted(small(tmp_path, weights)))
    learner.fit(dataset.train_images, dataset.train_labels)
    folder = learner.export(tmp_path / "model")
    made, program = (
        jax_export.deserialize(bytearray((folder / f"{name}.jaxexport").read_bytes()))
        for name in ("features", "predict")
    )
    images = dataset.test_images[:3]
    expected = learner.predict_proba(images)
    np.testing.assert_allclose(program.call(made.call(images)), expected, atol=1e-5)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-5)
    record = json.loads((folder / "model.json").read_text())
    assert record["exported"]["features"]["images"] == "uint8 [b, 8, 8, 3]"
    assert record["exported"]["onnx"]["images"] == "uint8 [b, 8, 8, 3]"


# Whole runs


CONFIG = """
import sys
sys.path.insert(0, "tests")
import people, tiny_backbone
tiny_backbone.add()
tiny_backbone.slow_down({slow})

def get_config():
    import pathlib
    config = people.config({images!r}, pathlib.Path({place!r}))
    return tiny_backbone.settings(config, {weights!r})
"""


def command(tmp_path, weights, workdir, slow=0.0):
    """A command line and its environment: people's photos, with a backbone that may be slow."""
    file = tmp_path / f"config_{workdir}.py"
    file.write_text(
        CONFIG.format(
            slow=slow, images=str(tmp_path / "photos"), place=str(tmp_path), weights=weights
        )
    )
    argv = [sys.executable, "-m", "tavaal_jax.main", f"--config={file}"]
    return [*argv, f"--workdir={tmp_path / workdir}"], {**os.environ, "PYTHONPATH": str(ROOT)}


def start(tmp_path, weights, workdir, slow):
    argv, environment = command(tmp_path, weights, workdir, slow)
    return subprocess.Popen(
        argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cached(tmp_path):
    """Number of features in the only cache, and its file."""
    found = list((tmp_path / "cache" / "features").glob("*/features.f32"))
    count = found[0].stat().st_size // (4 * tiny_backbone.FEATURES) if found else 0
    return count, found


@pytest.mark.slow
def test_killed_amid_features_it_goes_on_and_two_at_once_share_a_cache(tmp_path, weights):
    people.folder(tmp_path / "photos", 200)
    first = start(tmp_path, weights, "work", 0.05)
    while cached(tmp_path)[0] < 40:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before, (file,) = cached(tmp_path)
    assert 40 <= before < 200
    begun = file.read_bytes()
    both = [start(tmp_path, weights, name, 0.02) for name in ("work", "other")]
    for one in both:
        text, _ = one.communicate()
        assert one.returncode == 75, text
    assert cached(tmp_path)[0] >= 200
    lines = (file.parent / "index.jsonl").read_text().splitlines()[1:]
    assert len(lines) == len({json.loads(line)["row"] for line in lines}) == 200
    kept = len(begun) - len(begun) % (4 * tiny_backbone.FEATURES)
    assert file.read_bytes()[:kept] == begun[:kept]
    whole = tavaal_jax.embed(
        tmp_path / "photos", tiny_backbone.NAME, weights, data_dir=str(tmp_path / "afresh")
    )
    again = tavaal_jax.embed(
        tmp_path / "photos", tiny_backbone.NAME, weights, data_dir=str(tmp_path / "cache")
    )
    assert len(whole.features) == 200
    np.testing.assert_array_equal(whole.features, again.features)


@pytest.mark.slow
def test_people_label_two_cycles_on_features(tmp_path, weights):
    truth = people.folder(tmp_path / "photos", 60)
    for number in range(100, 120):
        place = tmp_path / "test" / ("cat", "dog")[number % 2]
        people.folder(place, 1, (("cat", "dog")[number % 2],), number)
    config = people.config(
        tmp_path / "photos", tmp_path, **{"folder.test": str(tmp_path / "test"), "cycles": 2}
    )
    tiny_backbone.settings(config, weights)
    work = tmp_path / "work"
    line, log = people.run(config, work)
    assert "16 images to label" in line
    assert any("60 images found" in text for text in log)
    people.answer(work, 0, truth)
    line, log = people.run(config, work)
    assert "cycle 1: 8 images to label" in line, log
    assert any("cycle 0: accuracy" in text and "n = 20" in text for text in log)
    rows = read_csv(work / "predictions.csv")
    assert len(rows) == 60
    record = json.loads((work / "config.json").read_text())
    assert record["features"] == load_backbone(tiny_backbone.NAME, weights).digest
    assert record["config"]["task"]["network"] in ("linear", "mlp")
    new = people.folder(tmp_path / "photos", 5, first=200)
    people.answer(work, 1, {**truth, **new})
    line, log = people.run(config, work)
    assert line is None
    assert any("5 images added" in text for text in log)
    assert len(read_csv(work / "predictions.csv")) == 65
    out = tmp_path / "p.csv"
    assert predict.predict(work / "model", tmp_path / "photos", out, print) == 65
    theirs = {row["id"]: row["p_cat"] for row in read_csv(work / "predictions.csv")}
    for row in read_csv(out):
        assert float(row["p_cat"]) == pytest.approx(float(theirs[row["id"]]), abs=1e-5)


@pytest.mark.slow
def test_a_cycle_is_of_the_weights_that_it_has_begun_with(tmp_path, weights):
    truth = people.folder(tmp_path / "photos", 40)
    config = people.config(tmp_path / "photos", tmp_path)
    tiny_backbone.settings(config, weights)
    work, digests = tmp_path / "work", [load_backbone(tiny_backbone.NAME, weights).digest]
    people.run(config, work)
    people.answer(work, 0, truth)

    def replace_weights(event):
        if event.stage == "solve":
            tiny_backbone.write(weights, seed=1)
            shutil.rmtree(tmp_path / "cache" / "features", ignore_errors=True)

    with pytest.raises(WaitingForLabels, match="cycle 1: 8 images to label"):
        tavaal_jax.run_study(config, work, progress=replace_weights)
    digests.append(load_backbone(tiny_backbone.NAME, weights).digest)
    record = json.loads((work / "cycles" / "cycle_000" / "config.json").read_text())
    model = json.loads((work / "model" / "model.json").read_text())
    assert record["features"] == model["backbone"]["digest"] == digests[0] != digests[1]
    assert len(read_csv(work / "predictions.csv")) == 40
    (work / "model" / "tiny.npz").write_bytes(b"others")
    people.answer(work, 1, truth)
    line, log = people.run(config, work)
    assert "cycle 2: 8 images to label" in line, log
    model = json.loads((work / "model" / "model.json").read_text())
    assert model["backbone"]["digest"] == digests[1]
    assert not (work / "model" / "tiny.npz").exists()


@pytest.mark.slow
def test_a_study_on_features_of_images_and_its_continuation(tmp_path, weights):
    config, dataset = small(tmp_path, weights), images_of_two()
    config.methods = "random,tavaal"
    log = []
    result = tavaal_jax.run_study(config, tmp_path / "work", dataset, progress=log.append)
    (line,) = [e.text for e in log if e.text and e.text.startswith("On features instead of images")]
    assert "task.network (resnet -> linear), " in line
    assert "dataset (" not in line
    assert {row["method"] for row in result.rows()} == {"random", "tavaal"}
    picks = (tmp_path / "work" / "tavaal" / "trial_0" / "picks.csv").read_bytes()
    given = features.of_dataset(config, dataset, features.source(config))
    arrays = Dataset.from_features(
        np.asarray(given.train_images), given.train_labels, np.asarray(given.test_images),
        given.test_labels, name="two",
    )  # fmt: skip
    plain = features.adapted(config)
    plain.backbone.update(name="", weights="")
    tavaal_jax.run_study(plain, tmp_path / "arrays", arrays)
    assert (tmp_path / "arrays" / "tavaal" / "trial_0" / "picks.csv").read_bytes() == picks
    time.sleep(0.01)
    tiny_backbone.write(weights, seed=1)
    with pytest.raises(UserError, match=r"the content of the weights of backbone\.name"):
        tavaal_jax.run_study(config, tmp_path / "work", dataset)
    os.unlink(weights)  # A finished study needs none.
    log = []
    tavaal_jax.run_study(config, tmp_path / "work", dataset, progress=lambda e: log.append(e.text))
    assert any("are finished; nothing to do" in (text or "") for text in log)
    config.trials = 2
    with pytest.raises(UserError, match=r"backbone\.weights is .*, and there is no such file"):
        tavaal_jax.run_study(config, tmp_path / "work", dataset)
