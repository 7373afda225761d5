"""Cityscapes from its folders, and pictures that are decoded when they are read."""

import concurrent.futures
import dataclasses
import os
import shutil

import archives
import numpy as np
import pytest
from ml_collections import ConfigDict

from tavaal_jax.config import default as default_config
from tavaal_jax.data import cache, dataset, image_statistics, is_at_hand, load, pool
from tavaal_jax.data.pictures import lazy
from tavaal_jax.data.sets import cityscapes
from tavaal_jax.errors import UserError

TRAIN, TEST = (sorted(archives.FRAMES[split]) for split in ("train", "val"))


def settings(folder, data_dir=""):
    keys = {"folder": str(folder), "cache": True}
    return ConfigDict({"dataset": "cityscapes", "data_dir": str(data_dir), "cityscapes": keys})


def read(config):
    return cache.in_memory(
        lambda new: lazy.decode_all("cityscapes", cityscapes.undecoded(config), new)
    )


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cityscapes")
    archives.cityscapes_folder(folder)
    return folder


@pytest.fixture
def copy(unpacked, tmp_path):
    """A folder to damage."""
    return shutil.copytree(unpacked, tmp_path / "copy")


def image_file(folder, name, split="train"):
    city = name.partition("_")[0]
    return folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"


def label_file(folder, name, split="train"):
    city = name.partition("_")[0]
    return folder / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"


def line(call, *arguments):
    """The one line of the UserError that a call raises."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# What is read


def check(arrays):
    for split, frames in (("train", TRAIN), ("test", TEST)):
        images, raw = map(np.stack, zip(*map(archives.frame, frames), strict=True))
        np.testing.assert_array_equal(arrays[f"{split}_images"], images)
        labels = np.asarray(arrays[f"{split}_labels"])
        assert labels.dtype == np.uint8
        assert labels.shape == (len(frames), 64, 128)
        for train_id, raw_id in enumerate(cityscapes.RAW_IDS):
            np.testing.assert_array_equal(labels == train_id, raw == raw_id)
        others = ~np.isin(raw, cityscapes.RAW_IDS)
        np.testing.assert_array_equal(labels == pool.IGNORED, others)
    assert list(arrays["train_ids"]) == TRAIN
    assert tuple(arrays["class_names"]) == cityscapes.CLASS_NAMES


def test_folders_are_read_by_frame(unpacked, capsys):
    arrays = read(settings(unpacked))
    check(arrays)
    assert (arrays["train_labels"][TRAIN.index(archives.FRAMES_IGNORED)] == 255).all()
    assert "once: 0.0 GB" in capsys.readouterr().err


def test_without_a_cache_pictures_stand_for_the_same_arrays(unpacked):
    arrays = cityscapes.undecoded(settings(unpacked))
    assert {name for name, array in arrays.items() if isinstance(array, lazy.LazyPictures)} == {
        f"{split}_{what}" for split in ("train", "test") for what in ("images", "labels")
    }
    check(arrays)


def test_the_folder_is_below_data_dir_where_none_is_given(tmp_path, unpacked):
    (tmp_path / "cityscapes").symlink_to(unpacked)
    assert cityscapes.folder(settings("", data_dir=tmp_path)) == unpacked.resolve()


def test_each_folder_has_a_decoded_cache_of_its_own(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    folder = lambda name: cityscapes._cache_folder(settings(tmp_path / name))
    assert folder("a") != folder("b")
    assert folder("link") == folder("a")


def test_images_that_come_later_make_a_decoded_cache_of_their_own(copy):
    before = cityscapes._cache_folder(settings(copy))
    os.utime(image_file(copy, TRAIN[0]), (0, 0))
    assert cityscapes._cache_folder(settings(copy)) == before
    for split in ("train", "val"):
        other = image_file(copy, "bonn_000009_000019", split)
        other.parent.mkdir(exist_ok=True)
        other.touch()
        assert cityscapes._cache_folder(settings(copy)) != before
        other.unlink()


def test_a_part_of_cityscapes_is_told_from_the_whole(unpacked, capsys, monkeypatch):
    cityscapes.undecoded(settings(unpacked))
    said = capsys.readouterr().err
    assert said.startswith(f"{unpacked} has 3 + {len(TEST)} images where Cityscapes has 2,975 + 50")
    assert said.count("\n") == 1
    monkeypatch.setattr(cityscapes, "_COUNTS", {"train": 3, "test": len(TEST)})
    cityscapes.undecoded(settings(unpacked))
    assert capsys.readouterr().err == ""


def whole_config(folder, data_dir, **changes):
    config = default_config()
    config.dataset, config.data_dir = "cityscapes", str(data_dir)
    config.cityscapes.folder = str(folder)
    config.update_from_flattened_dict(changes)
    return config


def test_unpacked_folders_are_at_hand_unless_they_are_to_be_decoded_first(tmp_path, unpacked):
    data_dir = tmp_path / "data"
    at_hand = lambda **changes: is_at_hand(whole_config(unpacked, data_dir, **changes))
    assert at_hand()
    assert not at_hand(**{"cityscapes.cache": True})
    load(whole_config(unpacked, data_dir, **{"cityscapes.cache": True}))
    assert at_hand(**{"cityscapes.cache": True})
    assert not is_at_hand(whole_config(tmp_path, data_dir))


def test_a_decoded_cache_is_looked_at_once_and_shows_what_pictures_do(
    tmp_path, unpacked, monkeypatch
):
    decoded, lazy = (
        whole_config(unpacked, tmp_path, **{"cityscapes.cache": cached}) for cached in (True, False)
    )
    load(decoded)
    monkeypatch.setattr(cityscapes, "undecoded", None)
    monkeypatch.setattr(image_statistics, "_compute", None)
    again = load(decoded)
    monkeypatch.undo()
    pictures = load(lazy)
    for one, other in zip(again.image_statistics, pictures.image_statistics, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        again.image_statistics.pixels, dataclasses.replace(again, image_statistics=None).pixels
    )
    found, plain = (
        dataset.normaliser(decoded, again.train_images, known)
        for known in (again.image_statistics, None)
    )
    np.testing.assert_array_equal(found.std, plain.std)


# What is wrong with the files


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "leftImg8bit").mkdir()
    message = line(cityscapes.undecoded, settings(tmp_path))
    for part in (tmp_path, "gtFine", "cityscapes-dataset.com", "leftImg8bit_trainvaltest.zip"):
        assert str(part) in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_images(copy, split):
    shutil.rmtree(copy / "leftImg8bit" / split)
    message = line(cityscapes.undecoded, settings(copy))
    assert str(copy / "leftImg8bit" / split) in message
    assert "unpack leftImg8bit_trainvaltest.zip" in message


def test_images_without_a_label(copy):
    missing = [label_file(copy, name) for name in TRAIN[1:]]
    for path in missing:
        path.unlink()
    message = line(cityscapes.undecoded, settings(copy))
    assert "2 of 3 images" in message
    assert str(missing[0]) in message
    assert "unpack gtFine_trainvaltest.zip" in message


NOISE = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)


@pytest.mark.parametrize(
    ("place", "content", "reason"),
    [
        (image_file, archives.encoded(NOISE)[:9000], "cannot be decoded (image file is truncated"),
        (image_file, archives.encoded(NOISE)[:20], "cannot be decoded"),
        (image_file, b"", "cannot be decoded (no picture)"),
        (image_file, archives.encoded(NOISE[:, :100]), "100x64 pixels where 128x64 are expected"),
        (image_file, archives.encoded(NOISE[..., 0].astype(np.uint16)), "mode I;16"),
        (label_file, archives.encoded(NOISE[..., 0])[:4000], "cannot be decoded"),
        (label_file, archives.encoded(NOISE[:32, :, 0]), "128x32 pixels where 128x64 are expected"),
        (label_file, archives.encoded(NOISE[..., 0].astype(np.uint16)), "8-bit grey (L)"),
        (label_file, archives.encoded(NOISE), "mode RGB where 8-bit grey (L) or a palette (P) is"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(copy, tmp_path, place, content, reason):
    path = place(copy, TRAIN[1])
    path.write_bytes(content)
    arrays = cityscapes.undecoded(settings(copy))  # Nothing is decoded yet.
    name = "train_images" if place is image_file else "train_labels"
    assert arrays[name][0].shape[:2] == (64, 128)
    for call in (
        lambda: arrays[name][:, :4],
        lambda: cache.load_or_make(
            tmp_path / "made", lambda new: lazy.decode_all("x", arrays, new)
        ),
    ):
        message = line(call)
        assert str(path) in message
        assert reason in message
    assert not (tmp_path / "made").exists()


def test_a_file_that_has_gone(copy):
    arrays = cityscapes.undecoded(settings(copy))
    image_file(copy, TRAIN[1]).unlink()
    assert "(No such file or directory)" in line(lambda: arrays["train_images"][1])


def test_a_first_image_that_is_none(copy):
    image_file(copy, TRAIN[0]).write_bytes(b"")
    assert "(no picture)" in line(cityscapes.undecoded, settings(copy))


# Pictures


@pytest.fixture(params=["images", "labels"])
def both(request, unpacked):
    """Pictures, and the array that they stand for."""
    pictures = cityscapes.undecoded(settings(unpacked))[f"train_{request.param}"]
    return pictures, np.asarray(pictures)


@pytest.mark.parametrize(
    "key",
    [
        1, -1, np.int32(2), slice(None), slice(1, None), slice(2, None, -2), slice(5, 9), [2, 0, 0],
        [], np.array([[1, 2], [0, -1]]), np.array([True, False, True]), ...,
        (0, slice(3, 9)), (0, slice(3, 9), slice(100, 200)), ([2, 0], slice(None, None, -1)),
        (slice(2), slice(1), slice(-3, None)), (np.array([[1], [2]]), slice(0), slice(4)),
    ],
)  # fmt: skip
def test_pictures_are_indexed_like_an_array(both, key):
    pictures, array = both
    found = pictures[key]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array[key], strict=True)


def test_pictures_look_like_an_array(both):
    pictures, array = both
    for name in ("shape", "dtype", "ndim", "nbytes"):
        assert getattr(pictures, name) == getattr(array, name)
    assert len(pictures) == len(list(pictures)) == 3
    assert np.asarray(pictures, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(pictures, copy=False)
    with pytest.raises(IndexError, match="out of bounds"):
        pictures[3]
    for key in ((0, 1), (0, [1, 2]), (0, *[slice(None)] * array.ndim)):
        with pytest.raises(IndexError, match="cut by slices"):
            pictures[key]
    with pytest.raises(TypeError, match="item assignment"):
        pictures[0] = 0


def test_only_what_is_asked_for_is_decoded(both, monkeypatch):
    pictures, _ = both
    asked, original = [], lazy.pixels
    monkeypatch.setattr(
        lazy, "pixels", lambda file, *rest: asked.append(file) or original(file, *rest)
    )
    pictures.nbytes, pictures.shape, len(pictures)
    pictures[[2, 0], :4]
    assert [file.name.partition("_0")[0] for file in asked] == ["zurich", "bonn"]


def test_threads_share_pictures(both):
    pictures, array = both
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(pictures.__getitem__, [0, 1, 2] * 20))
    np.testing.assert_array_equal(found, np.concatenate([array] * 20))


def data_set(folder):
    arrays = cityscapes.undecoded(settings(folder))
    arrays["class_names"] = tuple(arrays["class_names"])
    return dataset.Dataset("cityscapes", **arrays)


def test_a_fingerprint_is_the_same_wherever_and_whenever_files_were_unpacked(
    unpacked, copy, monkeypatch
):
    monkeypatch.delattr(lazy, "pixels")  # Nothing is decoded for it.
    os.utime(image_file(copy, TRAIN[0]), (0, 0))
    one = data_set(unpacked).fingerprint()
    assert data_set(copy).fingerprint() == one
    with label_file(copy, TRAIN[1]).open("ab") as file:
        file.write(b"\0")
    assert data_set(copy).fingerprint() != one


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_grey_pictures_have_the_colours_of_grey(tmp_path, format):
    files = []
    for number, pixels in enumerate((np.full((8, 16), 9, np.uint8), NOISE[:8, :16])):
        files.append(tmp_path / f"{number}.{format}")
        files[-1].write_bytes(archives.encoded(pixels, format))
    pictures = lazy.LazyPictures(files, list(map(str, files)), (8, 16, 3))
    assert (pictures[0] == 9).all()
    assert pictures[:].shape == (2, 8, 16, 3)


# The whole program, on frames that are lower than the windows

FLAGS = (
    "--config.methods=tavaal", "--config.trials=1", "--config.cycles=2",
    "--config.epochs=2", "--config.batch_size=2", "--config.initial=2", "--config.budget=1",
    "--config.subset=0", "--config.augmentation.crop=96",
    "--config.task.widths=(4, 4, 4, 8, 8, 8, 8, 8)",
    "--config.task.blocks=(1, 1, 1, 1, 1, 1, 1, 1)", "--config.vae.latent=4",
    "--config.vae.widths=(4,)", "--config.discriminator.hidden=(8,)",
)  # fmt: skip


@pytest.mark.slow
def test_the_config_runs_on_decoded_files_and_on_a_cache_of_them(run_main, unpacked, tmp_path):
    def content(name, *flags):
        folder = f"--config.cityscapes.folder={unpacked}"
        data_dir = f"--config.data_dir={tmp_path / 'data'}"
        done = run_main("cityscapes", tmp_path / name, *FLAGS, folder, data_dir, *flags)
        assert done.returncode == 0, done.stderr
        return {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in (tmp_path / name).rglob("*.csv")
            if file.name in {"results.csv", "picks.csv", "class_iou.csv"}
        }

    lazy = content("lazy", "--config.data_placement=streamed")
    assert (
        content("cached", "--config.data_placement=resident", "--config.cityscapes.cache=True")
        == lazy
    )
    assert len(lazy["tavaal/trial_0/picks.csv"].splitlines()) == 2
    assert (tmp_path / "lazy" / "maps.png").exists()
