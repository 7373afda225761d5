"""The drawn street scenes: always the same pixels, shares of modes and classes, files."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tavaal_jax.data.pool import IGNORED
from tavaal_jax.data.sets import cityscapes
from tavaal_jax.data.sets.scenes import scenes
from tavaal_jax.errors import UserError

GOLDEN = "656e139d60256f7e845b8d3faa79c82e7421c9238d2d0513c49171d93749c960"
FIRST = {mode: next(n for n in range(600) if scenes.mode(0, n, "train") == mode)
         for mode in scenes.MODES}  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    return scenes.arrays()


@pytest.fixture
def few(monkeypatch):
    for split, size in {"train": 6, "val": 4, "test": 2}.items():
        monkeypatch.setitem(scenes.SIZES, split, size)


# Scenes


def test_pixels_are_the_same_for_ever():
    """Results on this set are compared over years and machines: change the set, change its name."""
    digest = hashlib.sha256()
    numbers = [("train", number) for number in (*FIRST.values(), 599)]
    for split, number in [*numbers, *(("val", n) for n in range(4)), ("test", 0)]:
        for pixels in scenes.scene(0, number, split):
            assert pixels.dtype == np.uint8
            digest.update(pixels.tobytes())
    assert digest.hexdigest() == GOLDEN


def test_a_scene_depends_on_its_seed_number_and_split_alone(drawn):
    image, label = scenes.scene(0, 5, "train")
    np.testing.assert_array_equal(image, drawn["train_images"][5])
    train_ids = cityscapes.table(list(scenes.CLASSES))
    np.testing.assert_array_equal(train_ids[label], drawn["train_labels"][5])
    for other in ((1, 5, "train"), (0, 6, "train"), (0, 5, "val")):
        assert (scenes.scene(*other)[0] != image).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_modes_have_their_shares(seed):
    modes = [scenes.mode(seed, number, "train") for number in range(600)]
    counts = {mode: modes.count(mode) for mode in scenes.MODES}
    assert counts == {"avenue": 408, "market": 60, "night": 60, "crossing": 60, "broken": 12}
    assert modes[:50] != modes[50:100]
    tested = [scenes.mode(seed, number, "val") for number in range(200)]
    assert {mode: tested.count(mode) for mode in scenes.MODES[:4]} == dict.fromkeys(
        scenes.MODES[:4], 50
    )


def test_broken_frames_have_no_label():
    image, label = scenes.scene(0, FIRST["broken"], "train")
    assert image.std() > 30
    assert (label == 0).all()


# The set


def test_arrays_are_those_of_a_data_set(drawn):
    for split, size in (("train", 600), ("test", 200)):
        assert drawn[f"{split}_images"].shape == (size, 48, 96, 3)
        assert drawn[f"{split}_labels"].shape == (size, 48, 96)
        assert drawn[f"{split}_images"].dtype == drawn[f"{split}_labels"].dtype == np.uint8
        shown = np.unique(drawn[f"{split}_labels"])
        np.testing.assert_array_equal(shown, [*range(11), IGNORED])
    assert drawn["train_ids"][12] == "scenes_000000_000012"
    assert len(set(drawn["train_ids"])) == 600


def test_classes_are_cityscapes():
    upstream = dict(zip(cityscapes.RAW_IDS, cityscapes.CLASS_NAMES, strict=True))
    assert list(scenes.CLASSES) == sorted(scenes.CLASSES)
    assert {raw: upstream[raw] for raw in scenes.CLASSES} == scenes.CLASSES


def test_rare_classes_are_in_rare_modes(drawn):
    common = [scenes.mode(0, number, "train") == "avenue" for number in range(600)]
    labels, names = drawn["train_labels"], list(drawn["class_names"])
    for name in ("person", "traffic sign", "bus", "bicycle"):
        found = (labels == names.index(name)).sum((1, 2))
        assert found[common].sum() < 0.05 * found.sum(), name
        assert 0.001 < found.sum() / labels.size < 0.012, name
        assert 0.05 < (found > 0).mean() < 0.3, name


def test_avenues_are_nearly_the_same(drawn):
    common, other = ([number for number in range(600) if scenes.mode(0, number, "train") == mode]
                     for mode in ("avenue", "market"))  # fmt: skip

    def agreement(numbers):
        labels = drawn["train_labels"][numbers]
        return (labels == labels[0]).mean()

    assert agreement(common) > 0.85
    assert agreement(other) < 0.7


# Files


def read(folder, split, number):
    name = scenes.name(number, split)
    found = []
    for part, ending, mode in (("leftImg8bit",) * 2 + ("RGB",), ("gtFine", "gtFine_labelIds", "L")):
        with Image.open(folder / part / split / "scenes" / f"{name}_{ending}.png") as picture:
            assert picture.mode == mode
            assert picture.size == (96, 48)
            found.append(np.asarray(picture))
    return found


def test_files_are_the_arrays(few, tmp_path):
    assert scenes.write(tmp_path / "new" / "set") == tmp_path / "new" / "set"
    folder, arrays = tmp_path / "new" / "set", scenes.arrays()
    train_ids = np.full(256, 255)
    train_ids[list(scenes.CLASSES)] = range(11)
    for ours, split in (("train", "train"), ("test", "val")):
        for number in range(scenes.SIZES[split]):
            image, label = read(folder, split, number)
            np.testing.assert_array_equal(image, arrays[f"{ours}_images"][number])
            np.testing.assert_array_equal(train_ids[label], arrays[f"{ours}_labels"][number])
    assert not np.isin(read(folder, "test", 1)[1], list(scenes.CLASSES)).any()
    assert sorted(path.name for path in folder.iterdir()) == ["gtFine", "leftImg8bit"]
    files = sorted((folder / "leftImg8bit" / "train").rglob("*.png"))
    assert [path.name.removesuffix("_leftImg8bit.png") for path in files] == list(
        arrays["train_ids"]
    )
    assert len([*folder.rglob("*.png")]) == 2 * (6 + 4 + 2)


def test_another_seed_is_another_set(few, tmp_path):
    for seed in (0, 1):
        scenes.write(tmp_path / str(seed), seed)
    images = [read(tmp_path / str(seed), "train", 0)[0] for seed in (0, 1)]
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize("there", ["leftImg8bit", "gtFine"])
def test_a_folder_that_has_a_set_is_left_as_it_is(there, tmp_path):
    (tmp_path / there).mkdir()
    with pytest.raises(UserError, match=f"has a {there} already: remove it, or name another"):
        scenes.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_what_was_begun_is_taken_away(few, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write to .* \(No space left on device\)"):
        scenes.write(tmp_path)
    assert not [*tmp_path.iterdir()]


# The command


def test_the_command_writes(few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scenes", str(tmp_path), "--seed=1"])
    assert scenes.main() == 0
    assert capsys.readouterr().out.startswith("6 training and 4 validation scenes are in ")
    np.testing.assert_array_equal(read(tmp_path, "train", 3)[0], scenes.scene(1, 3, "train")[0])


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "tavaal_jax.data.sets.scenes.scenes", str(tmp_path / "file")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip() == (
        f"error: cannot write to {tmp_path / 'file'} (File exists): name another folder"
    )


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_cannot_be(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scenes", str(tmp_path / "set"), f"--seed={seed}"])
    assert scenes.main() == 2
    assert capsys.readouterr().err == f"error: seed is {seed}: it must be from 0 to 2**32 - 1\n"
    assert not (tmp_path / "set").exists()
