"""A model that people take away: its program for JAX alone, and a README whose lines run."""

import contextlib
import datetime
import importlib.util
import json
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import photo_models
import pytest
from jax import export as jax_export
from trials import KEY, dataset, prepared

from configs import moons
from tavaal_jax import load_model, models
from tavaal_jax.algorithm.learner import Learner, Settings
from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.errors import UserError
from tavaal_jax.study import cycle, export
from tavaal_jax.study import model as fitted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a model of photos, complete."""
    path = photo_models.save(tmp_path_factory.mktemp("photos"), photo_models.config_of())
    export.add_export(path, {"n": 50, "accuracy": 0.9, "low": 0.79, "high": 0.96})
    return path


def copied(folder, target):
    """The files of a model, in a folder of their own."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def deserialised(folder):
    return jax_export.deserialize(bytearray((folder / export.NAME).read_bytes()))


def of_moons(folder):
    made = prepared("random")
    info = fitted.DatasetInfo.from_dataset(dataset())
    fitted.from_state(made, cycle.start(made, KEY), info).save(folder)
    return folder


def model_of_maps():
    """Of all that a DRN has: dilation, strides, levels of both kinds."""
    network = models.DRN(3, widths=(4, 4, 8, 8, 16, 16, 16, 16), blocks=(1,) * 8)
    settings = Settings.of(moons.get_config())
    learner = Learner(network, None, None, Segmentation(3), settings)
    state = learner.init(KEY, jnp.zeros((1, 16, 24, 3)))
    normalise = Normaliser(np.full((1, 1, 3), 100, np.float32), np.full((1, 1, 3), 50, np.float32))
    return fitted.Model(
        ("a", "b", "c"), (16, 24, 3), "random", 8, learner, state, normalise, 4, "uint8", {}
    )


# The program


def test_the_program_says_what_the_model_says_of_any_number_of_images(folder):
    program, model = deserialised(folder), load_model(folder)
    assert program.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 3, 40):
        images = photo_models.images(count)
        found = np.asarray(program.call(images))
        assert (found.shape, found.dtype) == ((count, 3), np.float32)
        np.testing.assert_allclose(found, model.predict_proba(images), rtol=1e-4, atol=1e-5)
    assert len(set(found.argmax(1))) > 1


def test_the_program_of_a_model_of_features(tmp_path):
    folder = of_moons(tmp_path)
    export.add_export(folder)
    points = np.asarray(dataset().test_images)
    found = deserialised(folder).call(points)
    expected = load_model(folder).predict_proba(points)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_program_of_a_model_of_maps(rng):
    model = model_of_maps()
    program = jax_export.deserialize(bytearray(export.program(model)))
    images = rng.integers(0, 256, (2, 16, 24, 3)).astype(np.uint8)
    found = program.call(images)
    assert found.shape == (2, 16, 24, 3)
    np.testing.assert_allclose(found, model.predict_proba(images), rtol=1e-4, atol=1e-5)


def test_a_program_in_bfloat16_gives_float32(tmp_path):
    images = photo_models.images(3)
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm mixes both types.
        folder = photo_models.save(tmp_path, photo_models.config_of(dtype="bfloat16"))
        export.add_export(folder)
        expected = load_model(folder).predict_proba(images)
    found = deserialised(folder).call(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05)
    np.testing.assert_allclose(onnx_says(folder, images), expected, atol=0.05)


def test_what_cannot_be_exported_spoils_nothing(folder, tmp_path, monkeypatch):
    mine = copied(folder, tmp_path / "model")
    # Convolutions of this platform, which are cut by the size of the batch.
    monkeypatch.setattr(models, "portable", lambda _: contextlib.nullcontext())
    export.add_export(mine)
    assert not (mine / export.NAME).exists()
    exported = json.loads((mine / "model.json").read_text())["exported"]
    assert exported["file"] is None
    assert exported["why"].startswith("this network cannot be written (")
    assert f"There is no predict.jaxexport: {exported['why']}." in readme(mine).replace("\n", " ")
    assert "deserialize" not in readme(mine)
    assert load_model(mine).class_names == photo_models.CLASSES


def uninstall(package, monkeypatch):
    """Makes a package one that is not found."""
    find = importlib.util.find_spec
    missing = lambda name: None if name == package else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", missing)


def test_without_flatbuffers_the_readme_says_how_to_get_it(folder, tmp_path, monkeypatch):
    mine = copied(folder, tmp_path / "model")
    uninstall("flatbuffers", monkeypatch)
    export.add_export(mine)
    assert not (mine / export.NAME).exists()
    assert "run pip install 'tavaal_jax[export]'" in readme(mine).replace("\n", " ")
    assert "predict.jaxexport  " not in readme(mine)


def onnx_says(folder, images):
    session = onnxruntime.InferenceSession(folder / export.ONNX)
    return session.run(["probabilities"], {"images": images})[0]


def test_the_onnx_file_says_what_the_model_says_of_any_number_of_images(folder):
    for count in (1, 3):
        images = photo_models.images(count)
        found = onnx_says(folder, images)
        assert (found.shape, found.dtype) == ((count, 3), np.float32)
        expected = load_model(folder).predict_proba(images)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_onnx_file_of_a_model_of_features(tmp_path):
    (tmp_path / export.ONNX).write_bytes(load_model(of_moons(tmp_path)).to_onnx())
    points = np.asarray(dataset().test_images)
    found = onnx_says(tmp_path, points)
    np.testing.assert_allclose(found, load_model(tmp_path).predict_proba(points), atol=1e-5)


def test_a_program_that_cannot_be_written_keeps_none_from_the_others(folder, tmp_path, monkeypatch):
    mine = copied(folder, tmp_path / "model")
    uninstall("onnx", monkeypatch)
    export.add_export(mine)
    assert (mine / export.NAME).exists()
    assert not (mine / export.ONNX).exists()
    exported = json.loads((mine / "model.json").read_text())["exported"]
    assert exported["file"] == export.NAME
    why = "onnx is not installed: run pip install 'tavaal_jax[onnx]'"
    assert exported["onnx"] == {"file": None, "why": why}
    text = readme(mine).replace("\n", " ")
    assert f"There is no model.onnx: {why}." in text
    assert text.count("onnx") == 3
    with pytest.raises(UserError, match="onnx is not installed"):
        load_model(mine).to_onnx()


# model.json


def test_what_model_json_says(folder):
    record = json.loads((folder / "model.json").read_text())
    today = datetime.datetime.now(datetime.UTC).date()
    assert (today - datetime.date.fromisoformat(record["written"])).days in (0, 1)
    assert {"tavaal_jax", "jax", "flax", "numpy"} <= record["versions"].keys()
    assert record["photos"] == {
        "size": 16, "channels": 3, "resize": "stretch", "low_high": [], "max_pixels": 10**8
    }  # fmt: skip
    assert record["test"] == {"n": 50, "accuracy": 0.9, "low": 0.79, "high": 0.96}
    model = load_model(folder)
    np.testing.assert_array_equal(
        np.float32(record["normalise"]["mean"]), model.normalise.mean.ravel()
    )
    assert np.shape(record["normalise"]["deviation"]) == (3,)
    exported = record["exported"]
    assert exported["images"] == "uint8 [b, 16, 16, 3]"
    assert exported["probabilities"] == "float32 [b, 3]"
    assert exported["onnx"] == {
        "file": "model.onnx", "images": "uint8 [b, 16, 16, 3]", "probabilities": "float32 [b, 3]"
    }  # fmt: skip
    assert "six months" in exported["compatibility"]
    assert "weights.npz is the form that lasts" in exported["compatibility"]
    assert model.photos == fitted.Decoding(16, 3, "stretch", (), 10**8)


def test_a_second_time_keeps_what_is_known(folder, tmp_path):
    mine = copied(folder, tmp_path / "model")
    before = json.loads((mine / "model.json").read_text())
    (mine / export.NAME).write_bytes(b"damaged")
    export.add_export(mine)
    after = json.loads((mine / "model.json").read_text())
    assert after == before | {"written": after["written"]}
    assert deserialised(mine).platforms == export.PLATFORMS


def test_a_model_of_points_has_nothing_of_photos(tmp_path):
    export.add_export(of_moons(tmp_path))
    assert "photos" not in json.loads((tmp_path / "model.json").read_text())
    assert load_model(tmp_path).photos is None
    assert "tavaal_jax.predict" not in readme(tmp_path)
    assert "Images are float32 [n, 2], as the training images were." in readme(tmp_path)


# README.txt


def readme(folder):
    return (folder / "README.txt").read_text()


def blocks(folder):
    """What is indented in the README: commands and programs."""
    paragraphs = readme(folder).split("\n\n")
    return [textwrap.dedent(p.rstrip("\n")) for p in paragraphs if p.startswith("    ")]


def run(program, folder, *flags):
    """What a program of the README prints."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", program], cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_is_short(folder):
    programs = [lines for lines in blocks(folder) if "import" in lines]
    assert sorted(len(lines.splitlines()) for lines in programs) == [3, 5, 6, 7]
    assert max(map(len, readme(folder).splitlines())) <= 110


@pytest.mark.slow
def test_the_readme_with_the_package(folder, tmp_path):
    (program,) = (lines for lines in blocks(folder) if "load_model" in lines)
    zeros = np.zeros((1, 16, 16, 3), np.uint8)
    found = run(program, folder)
    expected = load_model(folder).predict_proba(zeros)
    assert found == f"{photo_models.CLASSES} {expected}\n"
    mine = copied(folder, tmp_path / "model")
    (mine / export.NAME).unlink()
    (anew,) = (lines for lines in blocks(mine) if "add_export" in lines)
    assert run(anew, mine) == ""
    assert deserialised(mine).platforms == export.PLATFORMS


NEEDS = {
    "deserialize": ("jax", "jaxlib", "ml_dtypes", "opt_einsum", "scipy", "numpy", "flatbuffers"),
    "onnxruntime": ("onnxruntime", "numpy"),
}


@pytest.mark.parametrize("word", NEEDS)
def test_the_readme_with_a_runtime_alone(word, folder, tmp_path):
    """Nothing can be imported but JAX, what JAX itself needs, and flatbuffers; or ONNX Runtime."""
    (program,) = (lines for lines in blocks(folder) if word in lines)
    alone = tmp_path / "site"
    alone.mkdir()
    for name in NEEDS[word]:
        place = pathlib.Path(importlib.util.find_spec(name).origin).parent
        (alone / name).symlink_to(place)
        if (place.parent / f"{name}.libs").exists():
            (alone / f"{name}.libs").symlink_to(place.parent / f"{name}.libs")
    begin = f"""\
import importlib.util, sys
sys.path.append({str(alone)!r})
assert not any(map(importlib.util.find_spec, ("tavaal_jax", "flax", "PIL", "ml_collections")))
assert not importlib.util.find_spec("onnx")
"""
    found = run(begin + program, folder, "-I", "-S")
    names, probabilities = found.split("]", 1)
    assert names.replace('"', "'") == str(list(photo_models.CLASSES)).removesuffix("]")
    zeros = np.zeros((1, 16, 16, 3), np.uint8)
    expected = load_model(folder).predict_proba(zeros)[0]
    read = [float(number) for number in probabilities.strip("[]\n ").split()]
    np.testing.assert_allclose(read, expected, rtol=1e-4)
