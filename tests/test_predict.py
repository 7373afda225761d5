"""Predictions for a folder of photos: the file, what is left out, and every wrong input."""

import os
import subprocess
import sys

import numpy as np
import photo_models
import pytest
from conftest import ROOT, read_csv
from PIL import Image
from trials import KEY, dataset, prepared

from tavaal_jax import load_model, predict
from tavaal_jax.data.pictures import decode
from tavaal_jax.study import cycle
from tavaal_jax.study import model as fitted


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = photo_models.config_of(**{"folder.resize": "pad", "folder.max_pixels": 900})
    return photo_models.save(tmp_path_factory.mktemp("model") / "model", config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """21 photos, copies of some, and what cannot be read."""
    path = tmp_path_factory.mktemp("photos")
    (path / "sub").mkdir()
    for number, pixels in enumerate(photo_models.images(21, (22, 24, 3))):
        Image.fromarray(pixels[number % 3 :]).save(path / "sub" / f"{number:02d}.png")
    (path / "=copy.png").write_bytes((path / "sub" / "00.png").read_bytes())
    whole = (path / "sub" / "01.png").read_bytes()
    (path / "torn.png").write_bytes(whole[: len(whole) // 2])
    (path / "no\tpicture.jpg").write_bytes(b"text")
    (path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    large = np.zeros((40, 40), np.uint8)
    for name in ("large.png", "large_copy.png"):
        Image.fromarray(large).save(path / name)
    return path


def run(capsys, *flags, **named):
    """Exit code and lines of stderr."""
    code = predict.main([*flags, *(f"--{name}={value}" for name, value in named.items())])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()


def test_a_row_for_each_photo(model, folder, tmp_path, capsys):
    out = tmp_path / "p.csv"
    out.write_text("before")
    code, lines = run(capsys, model=model, images=folder, out=out)
    assert code == 0
    rows = read_csv(out)
    assert list(rows[0]) == ["id", "file", "predicted", "confidence", "p_cat", "p_=dog", "p_owl"]
    assert len({row["predicted"] for row in rows}) > 1
    assert len({row["confidence"] for row in rows}) > 10
    names = ["=copy.png", *(f"sub/{number:02d}.png" for number in range(21))]
    assert [row["file"] for row in rows] == ["'=copy.png", *names[1:]]
    assert len({row["id"] for row in rows}) == 21
    assert rows[0]["id"] == rows[1]["id"]

    loaded = load_model(model)
    for row, name in zip(rows, names, strict=True):
        pixels = decode.decode(folder / name, 16, 3, "pad")
        expected = loaded.predict_proba(pixels[None])[0]
        found = [np.float32(row[f"p_{name}"]) for name in photo_models.CLASSES]
        np.testing.assert_array_equal(found, expected)  # To the last bit, whatever the batch.
        assert np.float32(row["confidence"]) == expected.max()
        predicted = photo_models.CLASSES[int(expected.argmax())]
        assert row["predicted"] == ("'=dog" if predicted == "=dog" else predicted)

    assert lines[-1] == f"22 predictions in {out}, 5 left out"
    assert lines[:-1] == [
        "cannot read large.png: 40x40 pixels, more than max_pixels (900)",
        "cannot read large_copy.png: 40x40 pixels, more than max_pixels (900)",
        "cannot read no\\tpicture.jpg: no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM",
        "cannot read phone.heic: HEIC: convert to JPEG",
        "cannot read torn.png: cut short: copy it again",
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]


def test_a_model_of_a_study_takes_photos_too(folder, tmp_path, capsys):
    """Squeezed to its images' size: nobody has said otherwise."""
    model = photo_models.save(tmp_path / "model", photo_models.config_of(dataset="mine"), (8, 8, 1))
    assert load_model(model).photos is None
    code, _ = run(capsys, model=tmp_path, images=folder / "sub", out=tmp_path / "p.csv")
    assert code == 0
    (first, *_) = read_csv(tmp_path / "p.csv")
    pixels = decode.decode(folder / "sub" / "00.png", 8, 1)
    assert np.float32(first["confidence"]) == load_model(model).predict_proba(pixels[None]).max()


def test_a_photo_that_changes_meanwhile_is_left_out(model, folder, tmp_path, capsys, monkeypatch):
    for name, source in (("a", "00"), ("b", "01"), ("c", "02")):
        (tmp_path / f"{name}.png").write_bytes((folder / "sub" / f"{source}.png").read_bytes())
    scan = predict.scan

    def and_then(*arguments, **named):
        found = scan(*arguments, **named)
        (tmp_path / "b.png").unlink()
        (tmp_path / "c.png").write_bytes((folder / "sub" / "05.png").read_bytes())
        return found

    monkeypatch.setattr(predict, "scan", and_then)
    code, lines = run(capsys, model=model, images=tmp_path, out=tmp_path / "p.csv")
    assert code == 0
    assert lines == [
        f"cannot read b.png: {decode.GONE}",
        f"cannot read c.png: {decode.CHANGED}",
        f"1 prediction in {tmp_path / 'p.csv'}, 2 left out",
    ]


def test_links_out_of_the_folder_are_said(model, folder, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes((folder / "sub" / "00.png").read_bytes())
    (tmp_path / "b.png").symlink_to(folder / "sub" / "01.png")
    (tmp_path / "notes.txt").write_text("text")
    out = tmp_path / "p.csv"
    code, lines = run(capsys, model=model, images=tmp_path, out=out)
    assert code == 0
    assert lines == [
        "not read: 1 file with other endings (.txt 1): notes.txt",
        "not read: 1 link out of the folder, not followed (but with follow_links): b.png",
        f"1 prediction in {out}",
    ]
    assert [row["file"] for row in read_csv(out)] == ["a.png"]
    assert run(capsys, "--follow_links", model=model, images=tmp_path, out=out)[0] == 0
    assert [row["file"] for row in read_csv(out)] == ["a.png", "b.png"]


def test_photos_that_come_out_white_are_said(model, tmp_path, capsys):
    Image.fromarray(np.arange(64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tif")
    code, lines = run(capsys, model=model, images=tmp_path, out=tmp_path / "p.csv")
    assert code == 0
    assert lines[0].endswith('--config.folder.low_high="(0, 63)" when the model is trained')


# Wrong inputs: one line, exit code 2, and --out as it was


@pytest.fixture
def wrong(model, folder, tmp_path, capsys):
    """The line that is said of inputs, of which all are right but those that are given."""

    def call(**named):
        out = tmp_path / "p.csv"
        out.write_text("before")
        code, lines = run(capsys, **{"model": model, "images": folder, "out": out, **named})
        assert code == 2
        assert out.read_text() == "before"
        assert [file for file in tmp_path.iterdir() if file.suffix == ".tmp"] == []
        assert lines[-1].startswith("error: ")
        assert sum(line.startswith("error: ") for line in lines) == 1
        return lines[-1].removeprefix("error: ")

    return call


def test_no_model(wrong, tmp_path):
    line = wrong(model=tmp_path / "nothing")
    assert line.startswith(f"there is no folder {tmp_path}/nothing: give the model folder")
    (tmp_path / "empty").mkdir()
    line = wrong(model=tmp_path / "empty")
    assert line.startswith(f"{tmp_path}/empty/model holds no model that can be read (")


def test_a_model_of_points(wrong, tmp_path):
    made, model = prepared("random"), tmp_path / "model"
    info = fitted.DatasetInfo.from_dataset(dataset())
    fitted.from_state(made, cycle.start(made, KEY), info).save(model)
    assert wrong(model=model) == (
        f"--model is {model}, a model of features (2): give one of square photos with a class each,"
        " or use tavaal_jax.load_model"
    )


def test_a_model_of_other_images(wrong, tmp_path):
    config = photo_models.config_of(dataset="mine")
    model = photo_models.save(tmp_path / "model", config, (8, 16, 3))
    assert "a model of images of 8 x 16 x 3: give one of square photos" in wrong(model=model)


def test_no_images(wrong, tmp_path):
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("text")
    assert wrong(images=missing) == (
        f"cannot read the images in {missing} (it does not exist): see to --images"
    )
    assert wrong(images=empty).startswith(f"{empty} holds no images (.jpg ")
    assert wrong(images=empty / "notes.txt").endswith("(it is no folder): see to --images")


def test_no_image_that_can_be_read(wrong, tmp_path, folder):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.png").write_bytes(b"text")
    assert wrong(images=bad).startswith(
        f"none of the 1 images in {bad} can be read (a.png: no JPEG"
    )
    (bad / "a.png").write_bytes((folder / "torn.png").read_bytes())
    assert wrong(images=bad) == f"no photo in {bad} could be decoded: see to --images"


def test_a_file_that_cannot_be_written(wrong, tmp_path):
    give = "give a file whose name ends in .csv"
    assert wrong(out=tmp_path) == f"--out is {tmp_path}: {give}"
    assert wrong(out=tmp_path / "a.jpg") == f"--out is {tmp_path}/a.jpg: {give}"
    nowhere = tmp_path / "no" / "p.csv"
    assert wrong(out=nowhere) == (
        f"--out is {nowhere}, and there is no folder {nowhere.parent}: make it first"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(wrong, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert f"{closed} may not be written to" in wrong(out=closed / "p.csv")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "the following arguments are required: --model, --images, --out"),
        (("--model=a", "--images=b", "--out="), "--out is empty: give --out=..."),
        (("--model=a", "--images=b", "--out=c", "--size=3"), "unrecognized arguments: --size=3"),
        (("--model=a", "--image=b", "--out=c"), "the following arguments are required: --images"),
    ],
)
def test_flags(flags, line, capsys):
    assert predict.main(flags) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {line}")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (None, 143)])
def test_who_is_stopped_leaves_the_file_as_it_was(
    error, code, model, folder, tmp_path, capsys, monkeypatch
):
    (tmp_path / "p.csv").write_text("before")

    def stop(*_):
        if error is not None:
            raise error
        predict._exit(15, None)

    monkeypatch.setattr(fitted.Model, "predict_proba", stop)
    flags = [f"--model={model}", f"--images={folder}", f"--out={tmp_path}/p.csv"]
    if error is None:
        with pytest.raises(SystemExit, match=str(code)):
            predict.main(flags)
    else:
        assert predict.main(flags) == code
        assert "stopped by SIGINT; nothing was written" in capsys.readouterr().err
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"p.csv": "before"}


# The command


@pytest.mark.slow
def test_the_command(model, folder, tmp_path, compiled):
    out = tmp_path / "p.csv"
    flags = [f"--model={model}", f"--images={folder}", f"--out={out}"]
    done = subprocess.run(
        [sys.executable, "-m", "tavaal_jax.predict", *flags], cwd=ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compiled)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == f"22 predictions in {out}, 5 left out"
    pixels = decode.decode(folder / "sub" / "00.png", 16, 3, "pad")
    expected = load_model(model).predict_proba(pixels[None])[0].max()
    assert np.float32(read_csv(out)[0]["confidence"]) == expected
