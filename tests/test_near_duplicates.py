"""Near-duplicates: folds against a graph's components; one image of each, in train or in test."""

import dataclasses
import pathlib

import numpy as np
import people
import pytest
import trials
from scipy.sparse import csgraph

import tavaal_jax
from tavaal_jax import Dataset, UserError
from tavaal_jax.algorithm import near_duplicates
from tavaal_jax.labelling import selection
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.consensus import Consensus, Verdict
from tavaal_jax.labelling.snapshot import Snapshot
from tavaal_jax.labelling.workdir import LabellingWorkdir
from tavaal_jax.report import files, records
from tavaal_jax.study import near_duplicates as studies
from tavaal_jax.study.checks import config as checks


def twins(rng, groups=12, features=24, noise=0.02):
    """Groups of one to four near-duplicates, in random order."""
    sizes = np.arange(groups) % 4 + 1
    of = rng.permutation(np.repeat(np.arange(groups), sizes))
    points = rng.normal(size=(groups, features))[of] + noise * rng.normal(size=(len(of), features))
    return points.astype(np.float32), of


def by_definition(points, cosine):
    """The least index of each image's component."""
    unit = points.astype(np.float64) / np.linalg.norm(points, axis=1, keepdims=True)
    _, numbers = csgraph.connected_components(unit @ unit.T > cosine)
    return np.array([np.flatnonzero(numbers == number)[0] for number in numbers])


@pytest.mark.parametrize("block", [1, 4, 64])
def test_folds_are_components_whatever_the_block(rng, monkeypatch, block):
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    points, of = twins(rng)
    found = near_duplicates.folds(points, 0.9)
    np.testing.assert_array_equal(found, by_definition(points, 0.9))
    np.testing.assert_array_equal(found[:, None] == found, of[:, None] == of)
    # A long chain, through which blocks meet in any order.
    angles = rng.permutation(40) * 0.1
    chain = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert not near_duplicates.folds(chain, np.cos(0.11)).any()
    assert len(np.unique(near_duplicates.folds(chain, np.cos(0.09)))) == 40


def test_lengths_do_not_matter_and_images_without_features_are_alone(rng):
    points, _ = twins(rng)
    scaled = points * rng.uniform(0.01, 100, size=(len(points), 1))
    expected = near_duplicates.folds(points, 0.9)
    np.testing.assert_array_equal(near_duplicates.folds(scaled, 0.9), expected)
    points[:3] = 0
    assert near_duplicates.folds(points, 0.9)[:3].tolist() == [0, 1, 2]
    assert near_duplicates.folds(points[:0], 0.9).shape == (0,)


def test_one_of_each_fold_that_nobody_has_taken():
    folds = np.array([0, 0, 2, 2, 2, 5, 6])
    candidates = np.array([1, 1, 0, 1, 1, 1, 0], bool)
    free = near_duplicates.one_of_each(folds, candidates, np.zeros(7, bool))
    assert np.flatnonzero(free).tolist() == [0, 3, 5]
    taken = np.array([0, 0, 1, 0, 0, 0, 1], bool)
    free = near_duplicates.one_of_each(folds, candidates, taken)
    assert np.flatnonzero(free).tolist() == [0, 5]


# In studies


def config_of(cosine, **changes):
    config = tavaal_jax.default_config()
    config.update(initial=8, budget=6, cycles=3, trials=1, subset=0, epochs=1, batch_size=8)
    config.update(methods="margin", diagnostics=False)
    config.task.network, config.vae.network = "linear", "mlp"
    config.augmentation.update(pad=0, flip=False)
    config.folder.near_duplicates = cosine
    config.update(changes)
    return config


def dataset_of(rng, groups=48):
    """Features, of which some of the test set have near-duplicates in training."""
    points, of = twins(rng, groups)
    is_test = rng.random(len(points)) < 0.2
    labels = of % 2
    parts = [x[mask] for mask in (~is_test, is_test) for x in (points, labels)]
    return Dataset.from_features(*parts), of[~is_test], of[is_test]


def test_a_fold_with_a_test_image_is_not_trained_on(rng):
    dataset, train, test = dataset_of(rng)
    assert studies.left_out(config_of(0.0), dataset) is dataset
    found = studies.left_out(config_of(0.9), dataset)
    np.testing.assert_array_equal(found.available, ~np.isin(train, test))
    assert 0 < found.available.sum() < len(train)
    np.testing.assert_array_equal(found.folds[:, None] == found.folds, train[:, None] == train)
    some = dataset.only(train % 3 > 0)
    both = studies.left_out(config_of(0.9), some)
    np.testing.assert_array_equal(both.available, found.available & some.available)


def test_images_and_too_few_folds_are_refused(rng, tmp_path):
    config = trials.config_of()
    config.folder.near_duplicates = 0.9
    facts = checks.DatasetFacts("cats", 1000, 2, (8, 8, 3))
    with pytest.raises(UserError, match="compares features, and cats has images: give backbone"):
        checks._check_near_duplicates(config, facts)
    dataset, _, _ = dataset_of(rng)
    with pytest.raises(UserError, match=r"leaves \d+ of \d+ training images, and initial"):
        tavaal_jax.run_study(config_of(0.9, cycles=9), tmp_path, dataset)


@pytest.mark.slow
@pytest.mark.parametrize("first_by", ["random", "max_herding"])
def test_a_study_asks_for_one_of_each_fold(first_by, rng, tmp_path):
    dataset, train, test = dataset_of(rng)
    tavaal_jax.run_study(config_of(0.9, first_by=first_by), tmp_path, dataset)
    picks = records.read_picks(files.trial_folder(tmp_path, "margin", 0))["index"]
    assert len(set(train[picks])) == len(picks) == 12
    assert not set(train[picks]) & set(test)
    with pytest.raises(UserError, match=r"folder\.near_duplicates"):
        tavaal_jax.run_study(config_of(0.8, first_by=first_by, cycles=4), tmp_path, dataset)


# In people's loop


def snapshot(count=12, verdicts=(), reserved=(), fixed=()):
    """Images 0 to 11, of which 0 to 2, 3 to 5 and so on are near-duplicates."""
    names = [f"i{number:015x}" for number in range(count)]
    images = tuple(Image(name, f"{name}.png", "ok", 8, 8, "RGB") for name in names)
    said = {
        names[n]: Verdict(kind, "cat" if kind == "label" else "", "anna", "labels/a.csv", ())
        for n, kind in dict(verdicts).items()
    }
    now = Snapshot(
        images, Consensus(said, (), ("cat",)), {names[n]: "cat" for n in fixed},
        frozenset(names[n] for n in reserved), pathlib.Path(), None, {}, None, (),
        {name: names[n - n % 3] for n, name in enumerate(names)},
    )  # fmt: skip
    return now, names


def numbers(names, some):
    return sorted(names.index(name) for name in some)


def test_people_are_asked_for_one_of_each_fold_that_has_no_label():
    now, names = snapshot(verdicts={1: "label", 3: "unsure"}, reserved=(6, 7, 8), fixed=(10,))
    assert np.flatnonzero(now.candidates).tolist() == [4]
    assert numbers(names, now.reserved_left) == [6]
    assert numbers(names, now.near_duplicates(names[4])) == [3, 5]
    off = dataclasses.replace(now, folds={})
    assert np.flatnonzero(off.candidates).tolist() == [0, 2, 4, 5, 9, 11]
    assert numbers(names, off.reserved_left) == [6, 7, 8]
    assert off.near_duplicates(names[4]) == []


def test_a_fold_is_wholly_in_train_or_in_test():
    labelled = {0: "label", 1: "label", 6: "label", 7: "label", 10: "label"}
    now, names = snapshot(verdicts=labelled, reserved=(3, 4, 5, 6, 7, 8), fixed=(9,))
    splits = {r.id: r.split for r in now.freeze({names[6]}).rows}
    assert [splits.get(name, "unlabelled") for name in names] == [
        "train", "train", "unlabelled",
        "reserved", "near_duplicate", "near_duplicate",
        "test", "near_duplicate", "near_duplicate",
        "test", "near_duplicate", "near_duplicate",
    ]  # fmt: skip


def test_folds_are_reserved_as_a_whole_and_as_often_as_images():
    names = [f"{number:x}" for number in range(4000)]
    folds = {name: names[n - n % 4] for n, name in enumerate(names)}
    found = selection.reserved(names, 0, 0.25, folds)
    assert all((name in found) == (folds[name] in found) for name in names)
    assert abs(len(found) / len(names) - 0.25) < 0.03
    assert selection.reserved(names, 0, 0.25, {}) == selection.reserved(names, 0, 0.25)


@pytest.mark.slow
def test_people_label_one_of_each_fold_and_the_test_set_has_none_in_train(tmp_path, rng):
    truth = people.folder(tmp_path / "photos", 72)
    of = np.arange(72) // 3  # Neighbours in name, of both classes.
    rows = rng.normal(size=(24, 16))[of] + 0.01 * rng.normal(size=(72, 16))
    np.savez(tmp_path / "rows.npz", features=rows.astype(np.float32), ids=sorted(truth))
    fold = dict(zip(sorted(truth), of.tolist(), strict=True))
    config = people.config(
        tmp_path / "photos", tmp_path, batch_size=8, initial=12, budget=10, methods="margin",
        **{"folder.near_duplicates": 0.95, "backbone.features": str(tmp_path / "rows.npz")},
    )  # fmt: skip
    work, asked = tmp_path / "work", []
    for number in range(9):
        line, said = people.run(config, work)
        if line is None:
            break
        asked += [row["file"] for row in people.requested(work, number)]
        # One answer for all of a fold, as a page may give it.
        others = {f: truth[f] for a in asked for f in truth if fold[f] == fold[a]}
        lines = ["file,label", *(f"{file},{label}" for file, label in others.items())]
        if number == 1:
            (work / "labels" / "all.csv").write_text("\n".join(lines) + "\n")
        people.answer(work, number, truth)
    assert line is None
    assert "images are labelled" in said[-1]
    assert sorted(fold[name] for name in asked) == list(range(24))
    workdir = LabellingWorkdir(work)
    for number in range(workdir.last_cycle() + 1):
        splits = {"train": set(), "test": set()}
        for row in workdir.frozen(number).frozen.rows:
            splits.setdefault(row.split, set()).add(fold[workdir.usable_files()[row.id]])
        assert splits["train"]
        assert splits["test"]
        assert not splits["train"] & splits["test"]
