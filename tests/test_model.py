"""A trial's last model, written and read back."""

import json
import shutil

import jax
import numpy as np
import pytest
from trials import KEY, config_of, dataset, prepared

from configs import smoke
from tavaal_jax import data, load_model
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.engine import components
from tavaal_jax.errors import UserError
from tavaal_jax.report import files
from tavaal_jax.study import cycle, export, setup
from tavaal_jax.study import model as fitted


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    """Set-up, state and folder of a trial of `tavaal` on points."""
    made, folder = prepared("tavaal"), tmp_path_factory.mktemp("moons")
    state = cycle.start(made, KEY)
    fitted.from_state(made, state, fitted.DatasetInfo.from_dataset(dataset())).save(
        folder / "model"
    )
    return made, state, folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The same of `random` on images, with BatchNorm statistics that are not the first ones."""
    config, folder = smoke.get_config(), tmp_path_factory.mktemp("digits")
    config.task.update(widths=(16,), blocks=(1,))
    images = data.load(config)
    placed = setup.place(config, images)
    made = setup.prepare(
        config, METHODS["random"], images, placed, SimulatedOracle(images.train_labels)
    )
    state = cycle.start(made, KEY)
    stats = jax.tree.map(lambda x: 0.1 * x + 0.01, state.learner.stats)
    state = state.replace(learner=state.learner.replace(stats=stats))
    fitted.from_state(made, state, fitted.DatasetInfo.from_dataset(images)).save(folder)
    return made, state, folder


def said(made, state, count):
    """What the state in memory says of the first test images."""
    shape = made.test.images.shape[1:]
    learner = components.build(made.config, made.method, shape, made.problem).learner
    return learner.infer(state.learner, made.test.plain(np.arange(count)))


@pytest.mark.parametrize("which", ["moons", "digits"])
def test_a_model_says_what_the_state_in_memory_said(which, request):
    made, state, folder = request.getfixturevalue(which)
    model, expected = load_model(folder), said(made, state, 50)
    images = np.asarray(made.test.images)[:50]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    close(model.predict_proba(images), jax.nn.softmax(expected.logits))
    close(model.predict_proba(images).sum(1), np.ones(50))
    close(model.embed(images), expected.embedding)
    np.testing.assert_array_equal(model.predict(images), np.argmax(expected.logits, -1))


def test_the_rankers_word_comes_back(moons):
    made, state, folder = moons
    images = np.asarray(made.test.images)[:50]
    expected = said(made, state, 50).predicted
    np.testing.assert_allclose(
        load_model(folder).predicted_loss(images), expected, rtol=1e-5, atol=1e-6
    )


def test_a_model_without_a_ranker_says_so(digits):
    _, _, folder = digits
    with pytest.raises(UserError, match="a model of random has no Ranker: take one that has"):
        load_model(folder).predicted_loss(np.zeros((2, 8, 8, 1), np.uint8))


@pytest.mark.parametrize("which", ["moons", "digits"])
def test_any_number_of_images_is_taken_and_none_depends_on_its_neighbours(which, request):
    made, _, folder = request.getfixturevalue(which)
    model, images = load_model(folder), np.asarray(made.test.images)
    many = model.predict_proba(images[:300])  # More than score_batch_size, not a multiple of it.
    assert many.shape == (300, len(model.class_names))
    for count in (1, 7, 128):
        np.testing.assert_array_equal(model.predict_proba(images[:count]), many[:count])
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(model.predict_proba(images[order]), many[order])


@pytest.mark.parametrize("shape", [(3, 3), (3,), (0, 2), (2, 2, 2)])
def test_images_of_another_shape_are_refused(moons, shape):
    with pytest.raises(UserError) as error:
        load_model(moons[2]).predict(np.zeros(shape, np.float32))
    assert str(error.value) == f"images have shape {shape}: give [n, 2], n > 0"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(moons, value):
    with pytest.raises(UserError, match=r"^images with NaN, infinity or what float32 cannot"):
        load_model(moons[2]).predict_proba([[0.5, 1.0], [value, 0.0]])


@pytest.mark.parametrize("wrong", [[[1.0, 2.0], [3.0]], [["a", "b"]], [[None, 1.0]]])
def test_what_is_no_array_of_numbers_is_one_line(moons, wrong):
    with pytest.raises(UserError, match="give ") as error:
        load_model(moons[2]).predict(wrong)
    assert "\n" not in str(error.value)


def test_masked_values_and_dates_are_refused(moons):
    model = load_model(moons[2])
    with pytest.raises(UserError, match="1 of 4 values of images are masked: fill them in"):
        model.predict(np.ma.masked_equal([[0.5, 1.0], [7.0, 0.0]], 7))
    with pytest.raises(UserError, match=r"images of type datetime64\[s\]: give numbers"):
        model.predict(np.zeros((2, 2), "M8[s]"))


def test_a_model_in_an_old_ones_place_leaves_nothing_of_it(moons, digits, tmp_path):
    shutil.copytree(moons[2] / "model", tmp_path, dirs_exist_ok=True)
    export.add_export(tmp_path)
    assert (tmp_path / export.NAME).exists()
    load_model(digits[2]).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "weights.npz"}
    assert load_model(tmp_path).shape == (8, 8, 1)


def test_a_save_that_was_cut_short_leaves_no_mixture(moons, digits, tmp_path, monkeypatch):
    shutil.copytree(moons[2] / "model", tmp_path, dirs_exist_ok=True)
    old, write = load_model(digits[2]), files.write

    def stop(path, content):
        if path.name == "model.json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(files, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        old.save(tmp_path)
    with pytest.raises(UserError, match="holds no model that can be read"):
        load_model(tmp_path)


def test_what_a_model_knows_of_itself(moons, digits):
    model = load_model(str(moons[2] / "model"))
    assert model.class_names == ("0", "1")
    assert (model.method, model.labelled, model.shape) == ("tavaal", 20, (2,))
    assert load_model(digits[2]).shape == (8, 8, 1)
    record = json.loads((moons[2] / "model" / "model.json").read_text())
    assert record["config"]["dataset"] == "moons"


def test_lists_and_other_numbers_are_taken(moons):
    model = load_model(moons[2])
    expected = model.predict_proba(np.array([[0.5, 1.0]], np.float32))
    np.testing.assert_array_equal(model.predict_proba([[0.5, 1.0]]), expected)


def test_arrays_of_ones_own_come_back_with_their_classes(tmp_path):
    points = np.random.default_rng(0).normal(size=(40, 2))
    mine = Dataset.from_arrays(
        points, np.arange(40) % 2, points[:4], [0, 1, 0, 1], class_names=["cat", "dog"]
    )
    config = config_of()
    placed = setup.place(config, mine)
    made = setup.prepare(
        config, METHODS["random"], mine, placed, SimulatedOracle(mine.train_labels)
    )
    info = fitted.DatasetInfo.from_dataset(mine)
    fitted.from_state(made, cycle.start(made, KEY), info).save(tmp_path)
    assert load_model(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", None),
        ("model.json", b"{"),
        ("model.json", b"{}"),
        ("model.json", b"\xff\xfe\x00"),
        ("weights.npz", None),
        ("weights.npz", b"no zip"),
        ("model.json", b"[]"),
        ("weights.npz", b""),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_read_is_named(moons, tmp_path, name, content):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (moons[2] / "model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_model(tmp_path)
    assert str(error.value).startswith(f"{folder} holds no model that can be read (")
    assert "give the folder of a finished trial" in str(error.value)
    assert "\n" not in str(error.value)
