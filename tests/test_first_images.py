"""The first images of a trial, chosen by `first_by`."""

import os
import subprocess
import sys

import jax
import numpy as np
import people
import pytest
import trials
from conftest import ROOT

from configs import digits
from tavaal_jax import UserError
from tavaal_jax.data import plans
from tavaal_jax.study import cycle, first_images
from tavaal_jax.study.checks import config as checks

KEY = trials.KEY


def first(method, **changes):
    made = trials.prepared(method)
    made = made._replace(config=trials.config_of(**changes))
    return np.flatnonzero(cycle.blank(made, KEY).labelled)


@pytest.mark.parametrize("first_by", ["typiclust", "max_herding"])
def test_the_first_images_are_the_same_for_all_methods(first_by):
    found = first("random", first_by=first_by)
    assert len(found) == trials.config_of().initial
    np.testing.assert_array_equal(found, first("tavaal", first_by=first_by))
    assert set(found) != set(first("random"))


def test_by_default_they_are_random_and_what_they_were():
    key = jax.random.fold_in(KEY, 0)
    size = len(trials.dataset().train_images)
    expected = plans.initial(key, size, trials.config_of().initial)
    np.testing.assert_array_equal(first("random"), np.sort(expected))


def test_they_cover_the_pool_in_directions():
    """Of features as many as a backbone's, whatever their lengths."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 25)
    features = np.eye(4, 20)[labels] + 0.05 * random.normal(size=(100, 20))
    features *= random.uniform(1, 9, (100, 1))
    for first_by in ("typiclust", "max_herding"):
        config = trials.config_of(first_by=first_by)
        found = first_images.by_method(config, features, 4, KEY)
        assert set(labels[found]) == set(range(4))
        known = features[labels < 2][::25]  # One of each.
        found = first_images.by_method(config, features[labels > 1], 2, KEY, known)
        assert set(labels[labels > 1][found]) == {2, 3}


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (trials.config_of(first_by="typiclus"), "did you mean typiclust"),
        (trials.config_of(first_by="margin"), "choose one of random, typiclust, max_herding"),
        (
            digits.get_config(),
            "first_by is 'typiclust', which needs features, and digits has image",
        ),
    ],
)
def test_what_cannot_choose_them_is_refused(config, line):
    if config.first_by == "random":
        config.first_by = "typiclust"
    with pytest.raises(UserError, match=line):
        checks.check(config, 1)


@pytest.mark.slow
def test_people_are_asked_for_the_same_first_images_in_every_process(tmp_path):
    """Some images have a label before: the request covers the others, whatever hashes are."""
    truth = people.folder(tmp_path / "photos", 60)
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 20)) + 3 * np.repeat(random.normal(size=(6, 20)), 10, 0)
    np.savez(tmp_path / "rows.npz", features=rows.astype(np.float32), ids=sorted(truth))
    known = sorted(truth)[:10]  # One of six clusters.
    lines = ["file,label", *(f"{name},{truth[name]}" for name in known)]
    (tmp_path / "known.csv").write_text("\n".join(lines) + "\n")
    asked = []
    for number, first_by in enumerate(("typiclust", "typiclust", "random")):
        work = tmp_path / f"work_{number}"
        keys = {
            "folder.images": tmp_path / "photos", "folder.labels": tmp_path / "known.csv",
            "backbone.features": tmp_path / "rows.npz", "first_by": first_by, "initial": 20,
            "folder.test_fraction": 0.0, "data_dir": tmp_path / "cache",
        }  # fmt: skip
        command = [sys.executable, "-m", "tavaal_jax.main", "--config=folder_from_scratch"]
        command += [f"--config.{key}={value}" for key, value in keys.items()]
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, f"--workdir={work}"], env=environment, cwd=ROOT, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 75, done.stderr
        asked.append([row["file"] for row in people.requested(work, 0)])
    assert asked[0] == asked[1] != asked[2]
    assert not set(asked[0]) & set(known)
    assert {sorted(truth).index(name) // 10 for name in asked[0]} == {1, 2, 3, 4, 5}
