"""What only config, methods, data and devices together can say is wrong."""

import re

import numpy as np
import pytest

from configs import moons, scenes, smoke
from tavaal_jax.algorithm import picks, values
from tavaal_jax.algorithm.adversary import tavaal
from tavaal_jax.algorithm.methods import METHODS, Method
from tavaal_jax.data import Dataset
from tavaal_jax.errors import UserError
from tavaal_jax.study.checks import config as checks

IMAGES = Dataset.from_arrays(np.zeros((80, 6, 6, 3), np.uint8), np.arange(80) % 4, name="mine")
POINTS = Dataset.from_arrays(np.zeros((80, 3)), np.arange(80) % 2, name="mine")
MAPS = Dataset.from_arrays(
    np.zeros((40, 8, 12, 3), np.uint8), np.full((40, 8, 12), 2, np.uint8), name="mine"
)


def maps(**changes):
    config = scenes.get_config()
    config.update(cycles=2, initial=16, budget=8, subset=0)
    config.update_from_flattened_dict(changes)
    return config


def images(**changes):
    config = smoke.get_config()
    config.update(cycles=2, initial=16, budget=8, subset=0)
    config.update_from_flattened_dict(changes)
    return config


def points(**changes):
    config = moons.get_config()
    config.update(cycles=2, initial=20, budget=8, subset=0)
    config.update_from_flattened_dict(changes)
    return config


ROWS = {
    "predicted_loss": (Method("mine", values.predicted_loss, picks.largest), "R(x) needs a Ranker"),
    "score": (Method("mine", values.discriminator, picks.smallest), "this method has no adversary"),
    "rank": (
        Method("mine", values.entropy, picks.smallest, adversary=tavaal), "a rank needs a Ranker"
    ),
}  # fmt: skip


@pytest.mark.parametrize("dataset", [IMAGES, POINTS], ids=["images", "points"])
@pytest.mark.parametrize("row", ROWS)
def test_a_value_that_asks_for_what_its_row_does_not_have(row, dataset, monkeypatch):
    config = (images if dataset is IMAGES else points)(methods="random,mine")
    method, lacks = ROWS[row]
    monkeypatch.setitem(METHODS, "mine", method)
    with pytest.raises(UserError, match=f"^METHODS has 'mine', and {re.escape(lacks)}: give "):
        checks.check(config, 1, dataset)
    whole = METHODS["tavaal"]._replace(name="mine", value=method.value)
    monkeypatch.setitem(METHODS, "mine", whole)
    checks.check(config, 1, dataset)


def test_a_fault_in_a_value_is_raised_as_it_is(monkeypatch):
    monkeypatch.setitem(
        METHODS, "mine", Method("mine", lambda view, key: view.label, picks.largest)
    )
    for config, dataset in ((images(methods="mine"), IMAGES), (maps(methods="mine"), MAPS)):
        with pytest.raises(AttributeError, match="'View' object has no attribute 'label'"):
            checks.check(config, 1, dataset)


def test_a_value_sees_the_image_and_what_the_vae_sees_of_it(monkeypatch):
    seen = []

    def value(view, key):
        seen.append((view.image.shape, None if view.thumbnail is None else view.thumbnail.shape))
        return view.score

    monkeypatch.setitem(METHODS, "mine", METHODS["vaal"]._replace(name="mine", value=value))
    checks.check(images(methods="mine", **{"vae.image_size": 4}), 1, IMAGES)
    checks.check(images(methods="mine", **{"vae.image_size": 8}), 1, IMAGES)
    assert seen == [((6, 6, 3), (4, 4, 3)), ((6, 6, 3), None)]


def test_names_of_methods():
    assert checks.method_names(images(methods=" random ,tavaal,")) == ["random", "tavaal"]
    assert checks.method_names(images(methods="all")) == list(METHODS)
    assert checks.method_names(images(methods=" , ")) == []


def test_a_data_set_of_ones_own_needs_no_name_that_is_known():
    checks.check(images(dataset="anything"), 4, IMAGES)
    checks.check(points(dataset="anything"), 1, POINTS)
    with pytest.raises(UserError, match="dataset is 'anything'"):
        checks.check(images(dataset="anything"), 4)


def test_facts_are_those_of_the_loaded_data_set():
    assert checks.DatasetFacts.of(IMAGES) == ("mine", 80, 4, (6, 6, 3), False)
    assert checks.DatasetFacts.of(MAPS) == ("mine", 40, 3, (8, 12, 3), True)


def test_a_method_is_registered_under_its_own_name(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", METHODS["random"])
    with pytest.raises(UserError, match=r"METHODS\['mine'\] has the name 'random': give both"):
        checks.check(images(methods="mine"), 1, IMAGES)
    monkeypatch.setitem(METHODS, "mine", METHODS["random"]._replace(name="mine"))
    checks.check(images(methods="mine"), 1, IMAGES)


WRONG = {
    "a class for a map": (
        maps(**{"task.network": "resnet"}), MAPS,
        "task.network is 'resnet', and mine has label maps: choose one of drn",
    ),
    "a map for a class": (
        images(**{"task.network": "drn"}), IMAGES,
        "task.network is 'drn', and mine has no label maps: choose one of",
    ),
    "levels": (
        maps(**{"task.blocks": (1, 1, 1, 1)}), MAPS,
        "task.widths has 8 levels and task.blocks 4: give drn eight of both",
    ),
    "strides": (
        maps(**{"task.strides": (1, 2, 4, 1)}), MAPS,
        "task.strides is (1, 2, 4, 1): give four strides, each of them 1 or 2",
    ),
    "a stem": (
        images(**{"task.stem": "resnet"}), IMAGES, "one of cifar, imagenet",
    ),
    "maps of points": (
        points(**{"task.network": "drn"}, batch_size=16), POINTS, "task.network is 'drn', and mine",
    ),
    "padded maps": (
        maps(**{"augmentation.pad": 2}), MAPS, "augmentation.pad is 2, and mine has label maps",
    ),
    "weights of maps": (
        maps(**{"task.class_weights": "balanced"}), MAPS, "task.class_weights is 'balanced'",
    ),
    "metrics of maps": (
        maps(metrics="macro_f1,accuracy"), MAPS, "metrics is 'macro_f1,accuracy', and",
    ),
    "windows of classes": (
        images(**{"augmentation.crop": 4}), IMAGES, "augmentation.crop is 4, and mine has no label",
    ),
    "thinned maps": (
        maps(dataset="scenes", **{"imbalance.ratio": 10}), None,
        "imbalance.ratio is 10, and scenes has label maps: give 1",
    ),
    "more than the images": (images(budget=70), IMAGES, "= 86 is more than the 80 training images"),
    "devices": (images(batch_size=4), IMAGES, "give a multiple of 8, twice the 4 devices"),
    "means": (
        images(**{"normalisation.mean": (0.5,)}), IMAGES,
        "normalisation.mean is (0.5,) and normalisation.deviation (): give as many",
    ),
    "deviations": (
        images(**{"normalisation.mean": (0.5,), "normalisation.deviation": (0.0,)}), IMAGES,
        "deviations above 0",
    ),
    "means of features": (
        points(**{"normalisation.mean": (0.5,), "normalisation.deviation": (0.5,)},
               batch_size=16), POINTS,
        "normalisation.mean is (0.5,), and mine has no images: give none",
    ),
    "network for images": (
        points(**{"task.network": "resnet"}, batch_size=16), POINTS,
        "mine has 3 features: choose one of mlp, linear",
    ),
    "vae for images": (
        points(**{"vae.network": "conv"}, batch_size=16), POINTS, "give vae.network = 'mlp'"
    ),
    "crops": (points(**{"augmentation.pad": 1}, batch_size=16), POINTS, "mine has no images"),
    "imbalance": (
        images(**{"imbalance.ratio": 2}), IMAGES, "imbalance.ratio is 2, and mine is given as",
    ),
    "a limit": (images(epochs=0), IMAGES, "epochs is 0: give at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_config_that_does_not_fit_the_data_is_one_line(fault):
    config, dataset, expected = WRONG[fault]
    with pytest.raises(UserError) as error:
        checks.check(config, 4, dataset)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_all_images_can_be_labelled_in_the_end():
    checks.check_size(images(initial=16, budget=32, cycles=3), "mine", 80)
    with pytest.raises(UserError, match="= 80 is more than the 79 training images of mine"):
        checks.check_size(images(initial=16, budget=32, cycles=3), "mine", 79)


def test_all_methods_are_those_that_can_be_used():
    assert checks.method_names(images(methods="all")) == list(METHODS)
    of_maps = checks.method_names(maps(methods="all"))
    assert set(METHODS) - set(of_maps) == {"alfa_mix"}
    checks.check(maps(methods="all"), 4, MAPS)
