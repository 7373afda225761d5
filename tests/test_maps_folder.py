"""Images and label maps in two folders: how they are matched, read and checked."""

import shutil

import numpy as np
import pytest
from conftest import read_csv
from PIL import Image

from configs import scenes
from tavaal_jax import data
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.errors import UserError

HIGH, WIDE = 16, 24
VOID = 9


def draw(root, name, number, palette=False, size=(HIGH, WIDE)):
    """An image and its map: classes 0 to 2 in rectangles, void at the bottom."""
    random = np.random.default_rng(number)
    high, wide = size
    labels = np.zeros(size, np.uint8)
    labels[high // 3 :, : wide // 2] = 1
    labels[: random.integers(4, high), wide - 6 :] = 2
    labels[-2:] = VOID
    colours = np.array([[40, 40, 40], [200, 50, 50], [50, 50, 200], *([[0, 0, 0]] * 7)])
    image = (colours[labels] + random.integers(0, 40, (*size, 3))).astype(np.uint8)
    for folder, ending in (("images", "jpg"), ("maps", "png")):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image if folder == "images" else labels)
        if palette and folder == "maps":
            picture = Image.fromarray(labels, "P")
            picture.putpalette(list(range(256)) * 3)
        picture.save(root / folder / f"{name}.{ending}")
    return labels


@pytest.fixture
def root(tmp_path):
    for number in range(6):
        draw(tmp_path, f"train/{number}", number, palette=number % 2)
    for number in range(3):
        draw(tmp_path, f"val/{number}", 100 + number)
    return tmp_path


def settings(root, **options):
    config = scenes.get_config()
    config.dataset, config.data_dir = "maps_folder", str(root / "data")
    config.maps_folder.update(
        images=str(root / "images"), maps=str(root / "maps"), ignore=VOID, **options
    )
    return config


def line(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def check_maps(found, root):
    for name, labels in zip(found.train_ids, found.train_labels[:], strict=True):
        raw = np.asarray(Image.open(root / "maps" / name.replace("jpg", "png")))
        np.testing.assert_array_equal(labels, np.where(raw == VOID, 255, raw))


@pytest.mark.parametrize("cache", [False, True])
def test_subfolders_are_the_splits_and_maps_are_matched_by_name(root, cache):
    config = settings(root, cache=cache)
    assert data.facts(config) == (6, 2, (HIGH, WIDE, 3), True)
    assert data.is_at_hand(config) == (not cache)
    found = data.load(config)
    assert data.is_at_hand(config)
    assert isinstance(found.train_images, LazyPictures) != cache
    assert list(found.train_ids) == [f"train/{number}.jpg" for number in range(6)]
    assert found.class_names == ("0", "1", "2")
    assert found.test_images.shape == (3, HIGH, WIDE, 3)
    check_maps(found, root)
    np.testing.assert_array_equal(found.train_images[0], Image.open(root / "images/train/0.jpg"))
    counts = [np.bincount(labels.ravel(), minlength=256)[:3] for labels in found.train_labels[:]]
    np.testing.assert_array_equal(found.image_statistics.pixels, counts)


def test_text_files_name_the_splits(tmp_path, capsys):
    for number in range(5):
        draw(tmp_path, f"all/{number}", number)
    (tmp_path / "images" / "unlabelled.jpg").write_bytes(b"x")
    (tmp_path / "train.txt").write_text("all/0.jpg\n1\n\nall/2\n")
    (tmp_path / "test.txt").write_text("3.png\n")
    options = {split: str(tmp_path / f"{split}.txt") for split in ("train", "test")}
    found = data.load(settings(tmp_path, **options, class_names=("a", "b", "c", "d")))
    assert list(found.train_ids) == ["all/0.jpg", "all/1.jpg", "all/2.jpg"]
    assert len(found.test_images) == 1
    assert found.classes == 4
    assert "passed over images in neither split: 2 (all/4.jpg, unlabelled.jpg)" in (
        capsys.readouterr().err
    )
    (tmp_path / "test.txt").write_text("3\n0\n")
    assert "are in maps_folder.train and in .test" in line(
        data.facts, settings(tmp_path, **options)
    )
    (tmp_path / "test.txt").write_text("3\nfour\n")
    assert "names 1 images that are not in" in line(data.facts, settings(tmp_path, **options))


def test_all_are_resized_images_smoothly_and_maps_to_the_nearest(root):
    draw(root, "train/large", 7, size=(40, 60))
    assert "give --config.maps_folder.image_size" in line(data.load, settings(root))
    found = data.load(settings(root, image_size=(8, 12)))
    assert found.shape == (8, 12, 3)
    labels = np.asarray(found.train_labels)
    assert labels.shape == (7, 8, 12)
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    small = Image.open(root / "images/train/large.jpg").resize((12, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.train_images[6], small)


def test_the_fingerprint_is_the_same_wherever_the_folders_lie(root, tmp_path):
    before = data.fingerprint(settings(root))
    other = tmp_path / "other"
    for name in ("images", "maps"):
        shutil.copytree(root / name, other / name)
    assert data.fingerprint(settings(other)) == before
    Image.new("L", (WIDE, HIGH)).save(other / "maps" / "train" / "0.png")
    assert data.fingerprint(settings(other)) != before


# What is wrong with the files


def test_what_has_no_counterpart_is_named(root):
    (root / "images/train/0.jpg").rename(root / "0.jpg")
    assert "1 maps in" in line(data.facts, settings(root))
    assert "have no image, train/0" in line(data.facts, settings(root))
    (root / "0.jpg").rename(root / "images/train/0.jpg")
    (root / "maps/val/1.png").unlink()
    assert "have no map in" in line(data.facts, settings(root))
    shutil.copy(root / "images/train/0.jpg", root / "images/train/0.png")
    assert "the same name but for the ending" in line(data.facts, settings(root))


def test_values_that_are_no_class(root):
    path = root / "maps/train/3.png"
    names = {"class_names": ("a", "b", "c")}
    assert data.load(settings(root, **names)).classes == 3
    labels = np.zeros((HIGH, WIDE), np.uint8)
    labels[0, 0] = 5
    Image.fromarray(labels).save(path)
    message = line(data.load, settings(root, **names))
    assert f"{path} holds the value 5, and maps_folder.class_names has 3 names" in message
    labels[0, 0] = 255
    Image.fromarray(labels).save(path)
    assert "hold values up to 255 beside maps_folder.ignore = 9" in line(data.load, settings(root))


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (Image.new("L", (WIDE, HIGH - 1)), "its image 24x16: give both the same size"),
        (Image.new("RGB", (WIDE, HIGH)), "mode RGB where 8-bit grey (L) or a palette (P)"),
        (Image.new("I;16", (WIDE, HIGH)), "mode I;16 where"),
    ],
)
def test_a_map_that_is_not_what_it_should_be(root, picture, reason):
    path = root / "maps/train/3.png"
    picture.save(path)
    message = line(data.load, settings(root))
    assert str(path) in message
    assert reason in message


def test_an_image_that_is_turned_when_it_is_shown(root):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (WIDE, HIGH)).save(root / "images/train/2.jpg", exif=exif)
    assert "save it upright" in line(data.load, settings(root))


def test_keys_that_cannot_be_used(root, tmp_path):
    config = settings(root)
    config.maps_folder.maps = ""
    assert "maps_folder.maps is empty" in line(data.facts, config)
    config.maps_folder.maps = str(tmp_path / "nowhere")
    assert "which is not there" in line(data.facts, config)
    assert "maps_folder.train is 'training'" in line(data.facts, settings(root, train="training"))
    assert "has 1 names" in line(data.facts, settings(root, class_names=("a",)))
    (root / "images/empty").mkdir()
    (root / "maps/empty").mkdir()
    assert "there are no images in" in line(data.facts, settings(root, train="empty"))
    assert not data.is_at_hand(settings(root, train="empty"))


@pytest.mark.slow
def test_a_study_of_ones_own_maps_runs_with_the_small_drn(run_main, tmp_path):
    for number in range(30):
        draw(tmp_path, f"train/{number}", number)
    for number in range(4):
        draw(tmp_path, f"test/{number}", 100 + number)
    flags = (
        "--config.dataset=maps_folder", f"--config.maps_folder.images={tmp_path / 'images'}",
        f"--config.maps_folder.maps={tmp_path / 'maps'}", f"--config.maps_folder.ignore={VOID}",
        f"--config.data_dir={tmp_path / 'data'}", "--config.methods=random",
        "--config.trials=1", "--config.cycles=2", "--config.epochs=2", "--config.initial=8",
        "--config.budget=4", "--config.subset=0", "--config.parallel=devices",
        "--config.task.widths=(4, 4, 4, 8, 8, 8, 8, 8)",
    )  # fmt: skip
    # T alone is enough: test_cityscapes.py has an adversary read pictures, and a cache of them.
    found = []
    for place, more in (("lazy", ()), ("cached", ("--config.maps_folder.cache=True",))):
        done = run_main("scenes", tmp_path / place, *flags, *more)
        assert done.returncode == 0, done.stderr
        files = ("results.csv", "picks.csv")
        found.append([(tmp_path / place / "random/trial_0" / f).read_bytes() for f in files])
    assert found[0] == found[1]
    rows = read_csv(tmp_path / "lazy" / "results.csv")
    assert {(row["method"], row["labelled"]) for row in rows} == {("random", "8"), ("random", "12")}
    assert (tmp_path / "lazy" / "maps.png").exists()
