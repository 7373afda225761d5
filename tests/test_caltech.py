"""Caltech-101: TFDS's builder on a small archive; its images resized, split anew."""

import importlib.util
import io
import socket

import archives
import numpy as np
import pytest
from conftest import read_csv
from ml_collections import ConfigDict

from tavaal_jax.data import SETS, cache
from tavaal_jax.data.pictures import lazy
from tavaal_jax.data.sets import tfds
from tavaal_jax.errors import UserError


def read(data_dir):
    config = ConfigDict({"dataset": "caltech101", "data_dir": str(data_dir)})
    return cache.in_memory(lambda new: tfds.caltech101(config, new))


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra tfds")
    folder = tmp_path_factory.mktemp("data")
    archives.caltech101(folder)
    return read(folder)


def ids(name, first, last):
    return [f"{name}/image_{number:04d}" for number in range(first, last + 1)]


TRAIN = [
    *ids("accordion", 1, 22), *ids("background_google", 1, 21), *ids("faces", 1, 21)
]  # fmt: skip
TEST = [
    *ids("accordion", 23, 32), *ids("background_google", 22, 30), *ids("faces", 22, 31)
]  # fmt: skip


@pytest.mark.slow
def test_the_last_images_of_each_class_are_the_test_set(arrays):
    assert list(arrays["train_ids"]) == TRAIN
    assert len(arrays["class_names"]) == 102
    for split, expected in (("train", TRAIN), ("test", TEST)):
        labels = arrays[f"{split}_labels"]
        assert labels.dtype == np.int32
        named = arrays["class_names"][labels]
        assert list(named) == [name.partition("/")[0] for name in expected]
    assert arrays["class_names"][4] == "background_google"


@pytest.mark.slow
def test_images_are_resized_whole(arrays):
    for split, expected in (("train", TRAIN), ("test", TEST)):
        images = arrays[f"{split}_images"]
        assert images.shape == (len(expected), 224, 224, 3)
        assert images.dtype == np.uint8
        for name, image in zip(expected, images, strict=True):
            if name != archives.CALTECH_PANORAMA:
                picture = np.float32(archives.caltech_picture(name))
                colour = picture[0, 0]  # JPEG keeps it to a few parts of 255.
                assert np.abs(image - colour).max() < 6
    grey = arrays["train_images"][TRAIN.index(archives.CALTECH_GREY)]
    assert (grey == grey[..., :1]).all()
    panorama = arrays["train_images"][TRAIN.index(archives.CALTECH_PANORAMA)]
    assert panorama[:, :108].max() < 20
    assert panorama[:, 116:].min() > 235


def test_shrinking_averages():
    board = np.indices((448, 448)).sum(0) % 2 * 255
    file = io.BytesIO(archives.encoded(board.astype(np.uint8)))
    small = lazy.pixels(file, (224, 224, 3), "board", resize=True)
    assert small.shape == (224, 224, 3)
    assert np.abs(small.astype(int) - 127).max() <= 3


def test_the_archive_is_named_as_tfds_names_it(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    find = importlib.util.find_spec
    found = lambda name: "installed" if name == "tensorflow" else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(UserError, match=r"download=1 \(as caltech-101\.zip\) elsewhere"):
        read(tmp_path)


@pytest.mark.slow
def test_an_archive_placed_by_hand_is_found(tmp_path, monkeypatch):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra tfds")
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "caltech-101.zip").write_bytes(b"not the archive")
    with pytest.raises(UserError, match="preparing caltech101 failed") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_said_before_loading_is_the_papers():
    facts = SETS["caltech101"].facts
    assert facts.train_size == 8677 + 467 - 1019
    assert facts.shape == (224, 224, 3)


@pytest.mark.slow
def test_the_config_runs_on_a_small_archive(run_main, tmp_path):
    """Images that a VAE sees as thumbnails; a class that none of the first images has."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra tfds")
    archives.caltech101(tmp_path / "data")
    done = run_main(
        "caltech101", tmp_path / "study", f"--config.data_dir={tmp_path / 'data'}",
        "--config.methods=tavaal", "--config.trials=1", "--config.cycles=2",
        "--config.epochs=1", "--config.initial=16", "--config.budget=8", "--config.subset=16",
        "--config.task.widths=(4, 4, 4, 4)", "--config.task.blocks=(1, 1, 1, 1)",
        "--config.vae.latent=4", "--config.vae.widths=(4,)", "--config.discriminator.hidden=(8,)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "study" / "results.csv")
    assert [(r["method"], r["labelled"]) for r in rows] == [("tavaal", "16"), ("tavaal", "24")]
    assert (tmp_path / "study" / "picks.png").exists()
