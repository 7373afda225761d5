"""Labelled photos in class folders: what is read, how it is split, and what is passed over."""

import os
import shutil
import subprocess
import sys

import locales
import numpy as np
import pytest
from conftest import ROOT, read_csv
from PIL import Image

from configs import smoke
from tavaal_jax import data
from tavaal_jax.data.pictures import decode
from tavaal_jax.data.sets import labelled_folder
from tavaal_jax.errors import UserError
from tavaal_jax.report import files

COLOURS = {"cat": (200, 60, 40), "dog": (40, 60, 200), "emu": (60, 180, 60)}


def draw(path, label, number):
    """A photo of its class's colour; each has another size and content."""
    random = np.random.default_rng([number, len(str(path.parent))])
    high, wide = 12 + number % 5, 16 + number % 7
    noise = random.integers(-30, 30, (high, wide, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(COLOURS[label]) + noise).astype(np.uint8)).save(path)
    return path


def draw_all(folder, count, labels=("cat", "dog")):
    for label in labels:
        for number in range(count):
            draw(folder / label / f"{number:02d}.png", label, number)
    return folder


@pytest.fixture
def split(tmp_path):
    """A folder with train (10 a class) and test (4)."""
    for part, count in (("train", 10), ("test", 4)):
        draw_all(tmp_path / "photos" / part, count)
    return tmp_path / "photos"


@pytest.fixture
def whole(tmp_path):
    """A folder with classes alone, 10 photos each."""
    return draw_all(tmp_path / "photos", 10)


def settings(folder, **options):
    config = smoke.get_config()
    config.dataset, config.data_dir = "labelled_folder", str(folder.parent / "data")
    config.labelled_folder.update(path=str(folder), image_size=8, **options)
    return config


def test_folders_train_and_test_are_the_splits(split, capsys):
    config = settings(split)
    assert data.facts(config) == (20, 2, (8, 8, 3), False)
    found = data.load(config)
    assert found.class_names == ("cat", "dog")
    assert list(found.train_ids[:2]) == ["train/cat/00.png", "train/cat/01.png"]
    np.testing.assert_array_equal(np.bincount(found.train_labels), [10, 10])
    np.testing.assert_array_equal(found.test_labels, [0] * 4 + [1] * 4)
    assert found.train_images.shape == (20, 8, 8, 3)
    for image, name in zip(found.train_images, found.train_ids, strict=True):
        np.testing.assert_array_equal(image, decode.decode(split / name, 8, 3))
    said = capsys.readouterr().err
    assert said == f"Decoding 28 photos of {split}, once.\n"


def test_photos_are_decoded_once(split, capsys, monkeypatch):
    config = settings(split)
    assert not data.is_at_hand(config)
    before = data.load(config).fingerprint()
    assert data.is_at_hand(config)
    monkeypatch.delattr(decode, "decode_checked")
    capsys.readouterr()
    assert data.load(config).fingerprint() == before
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    shutil.rmtree(next((split.parent / "data" / "decoded").glob("photos-*")))
    assert data.load(config).fingerprint() == before


def test_the_keys_of_decoding_are_those_of_peoples_images(split):
    config = settings(split, channels=1, resize="pad")
    assert data.facts(config).shape == data.load(config).shape == (8, 8, 1)
    expected = decode.decode(split / "train/cat/00.png", 8, 1, "pad")
    np.testing.assert_array_equal(data.load(config).train_images[0], expected)


def test_val_is_the_test_set_where_there_is_no_other(split, capsys):
    (split / "test").rename(split / "val")
    assert len(data.load(settings(split)).test_images) == 8
    assert f"{split} has no folder test: val is the test set" in capsys.readouterr().err


def test_without_a_test_set_a_share_of_each_class_is_one_by_content(whole, tmp_path):
    config = settings(whole, test_fraction=0.3)
    assert data.facts(config).train_size == 14
    found = data.load(config)
    np.testing.assert_array_equal(np.bincount(found.train_labels), [7, 7])
    np.testing.assert_array_equal(np.bincount(found.test_labels), [3, 3])
    assert found.train_ids[0].startswith("cat/")
    # Neither seed nor name changes who is tested.
    for number, path in enumerate(sorted(whole.rglob("*.png"))):
        path.rename(path.with_name(f"renamed_{99 - number}.png"))
    config.seed = 7
    again = data.load(config)
    order = lambda images: sorted(np.asarray(image).tobytes() for image in images)
    assert order(again.test_images) == order(found.test_images)


def test_train_alone_is_split(whole, tmp_path, capsys):
    (tmp_path / "above").mkdir()
    whole.rename(tmp_path / "above" / "train")
    found = data.load(settings(tmp_path / "above"))
    assert len(found.test_images) == 4  # 2.5 of each class
    assert "a share of train is the test set" in capsys.readouterr().err


def test_what_is_passed_over_is_counted_and_named_once(split, capsys):
    train, test = split / "train", split / "test"
    (train / "cat" / ".hidden.png").write_bytes(b"x")
    (train / "cat" / "notes.txt").write_text("x")
    os.mkfifo(train / "cat" / "pipe.png")  # Opening it would wait for ever.
    (train / "cat" / "gone.png").symlink_to("nowhere.png")
    (train / "cat" / "circle").symlink_to(".")
    (split / "README").write_text("x")
    (split / "unlabelled").mkdir()
    (train / "emu").mkdir()
    for number in range(4):
        (train / "dog" / f"broken_{number}.jpg").write_bytes(b"no picture")
    shutil.copy(train / "cat" / "00.png", train / "cat" / "copy.png")
    shutil.copy(test / "cat" / "00.png", train / "cat" / "leak.png")
    shutil.copy(train / "cat" / "05.png", train / "dog" / "both.png")
    found = data.load(settings(split))
    lines = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert {line.removeprefix(f"{split}: passed over ") for line in lines} == {
        "hidden files: 1 (train/cat/.hidden.png)",
        "files of other endings: 1 (train/cat/notes.txt)",
        "links that lead nowhere or in a circle, and pipes: 3 (train/cat/circle,"
        " train/cat/gone.png, train/cat/pipe.png)",
        "files outside of a class folder: 1 (README)",
        "folders beside train and the test set: 1 (unlabelled)",
        "class folders without a photo: 1 (train/emu)",
        "files that cannot be decoded: 4 (train/dog/broken_0.jpg (no JPEG, PNG, WEBP, BMP, GIF, "
        "TIFF or PPM), train/dog/broken_1.jpg (no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM), "
        "train/dog/broken_2.jpg (no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM), 1 more)",
        "duplicates: 1 (train/cat/copy.png)",
        "training photos that are in the test set, too: 1 (train/cat/leak.png)",
        "photos that are in two classes: 2 (train/cat/05.png, train/dog/both.png)",
    }
    assert found.class_names == ("cat", "dog")
    np.testing.assert_array_equal(np.bincount(found.train_labels), [9, 10])
    assert len(found.test_images) == 8
    data.load(settings(split))
    assert capsys.readouterr().err == ""


def test_photos_that_are_too_large_or_cut_are_passed_over(split, capsys):
    path = split / "train" / "cat" / "00.png"
    path.write_bytes(path.read_bytes()[:-40])
    found = data.load(settings(split, max_pixels=310))
    said = capsys.readouterr().err
    assert "train/cat/00.png (" in said
    assert "pixels, more than max_pixels (310)" in said
    assert "train/cat/00.png" not in found.train_ids


def test_a_file_that_changes_is_decoded_anew(split):
    config = settings(split)
    before = data.fingerprint(config)
    first = np.asarray(data.load(config).train_images)
    Image.new("RGB", (40, 40), "white").save(split / "train" / "cat" / "00.png")
    assert data.fingerprint(config) != before
    again = np.asarray(data.load(config).train_images)
    assert (again[0] == 255).all()
    np.testing.assert_array_equal(again[1:], first[1:])


def test_the_fingerprint_is_the_same_wherever_the_folder_lies(split, tmp_path):
    before = data.fingerprint(settings(split))
    (tmp_path / "other").mkdir()
    other = shutil.move(split, tmp_path / "other" / "place")
    assert data.fingerprint(settings(other)) == before


def line(config):
    with pytest.raises(UserError) as error:
        data.facts(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_that_cannot_be_used(split, tmp_path):
    config = settings(split)
    config.labelled_folder.path = ""
    assert "--config.labelled_folder.path=FOLDER" in line(config)
    assert "it is not there" in line(settings(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("x")
    assert "it is a file" in line(settings(tmp_path / "file"))
    draw(split / "test" / "emu" / "0.png", "emu", 0)
    assert "test photos of 'emu', a class without training photos" in line(settings(split))
    shutil.rmtree(split / "test" / "emu")
    shutil.rmtree(split / "train" / "dog")
    shutil.rmtree(split / "test" / "dog")
    assert "two or more classes, and has only cat" in line(settings(split))


def test_photos_that_come_out_white_are_told(split, capsys):
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(split / "train" / "cat" / "deep.tif")
    data.load(settings(split))
    said = capsys.readouterr().err
    assert 'give --config.labelled_folder.low_high="(0, 63)"' in said


@pytest.mark.parametrize("locale", locales.NAMES)
def test_no_locale_changes_a_name(locale, tmp_path):
    draw_all(tmp_path / "photos", 6)
    os.rename(tmp_path / "photos" / "cat", tmp_path / "photos" / "größe")
    draw(tmp_path / "photos" / "dog" / "猫.png", "dog", 9)
    script = (
        "import pathlib, sys\n"
        "from configs import smoke\n"
        "from tavaal_jax import data\n"
        "config, root = smoke.get_config(), sys.argv[1]\n"
        "config.dataset, config.data_dir = 'labelled_folder', root + '/data'\n"
        "config.labelled_folder.update(path=root + '/photos', image_size=8)\n"
        "for _ in range(2):\n"
        "    found = data.load(config)\n"
        "names = sorted(map(str, [*found.train_ids, *found.class_names]))\n"
        "pathlib.Path(root, 'names').write_text('\\n'.join(names), encoding='utf-8')\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True,
        env={**os.environ, **locales.settings(locale, tmp_path / "locales")},
    )  # fmt: skip
    names = (tmp_path / "names").read_text(encoding="utf-8").splitlines()
    assert {"dog", "größe"} < set(names)
    assert any(name.startswith("größe/") for name in names)


def test_a_share_of_nothing_is_no_test_set(whole):
    assert "labelled_folder.test_fraction is 0" in line(settings(whole, test_fraction=0.0))


def test_links_in_a_circle_end(whole):
    os.symlink(whole, whole / "cat" / "above")
    assert len(labelled_folder._listing(settings(whole)).photos) == 30  # dog's are below cat, too


@pytest.mark.slow
def test_a_study_runs_by_one_flag_and_knows_other_data(run_main, tmp_path):
    folder = draw_all(tmp_path / "photos", 20)
    flags = (
        "--config.dataset=labelled_folder", f"--config.labelled_folder.path={folder}",
        "--config.labelled_folder.image_size=8", "--config.labelled_folder.channels=1",
        f"--config.data_dir={tmp_path / 'data'}", "--config.methods=coreset",
        "--config.trials=1", "--config.cycles=2", "--config.initial=8", "--config.budget=4",
        "--config.subset=0", "--config.batch_size=8", "--config.epochs=2",
    )  # fmt: skip
    done = run_main("smoke", tmp_path / "study", *flags)
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "study" / "results.csv")
    assert [row["labelled"] for row in rows] == ["8", "12"]
    picks = read_csv(tmp_path / "study" / "coreset" / "trial_0" / "picks.csv")
    assert all(row["id"].startswith(("cat/", "dog/")) for row in picks)
    assert (tmp_path / "study" / "picks.png").exists()
    assert "<img" in (tmp_path / "study" / "report.html").read_text()
    assert files.read_config(tmp_path / "study")["data"]
    assert "nothing to do" in run_main("smoke", tmp_path / "study", *flags).stdout
    draw(folder / "cat" / "new.png", "cat", 99)
    done = run_main("smoke", tmp_path / "study", *flags)
    assert done.returncode == 2
    assert "the images and labels of the data set" in done.stderr
