"""What the live page shows, against known values."""

import sys

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.view import maps
from tavaal_jax.labelling.view.agreement import agreement
from tavaal_jax.labelling.view.doubts import doubtful
from tavaal_jax.labelling.view.next_labels import next_labels
from tavaal_jax.labelling.view.order import similarity_order
from tavaal_jax.labelling.view.suggestions import suggestions


def blobs(rng, classes=5, each=12, features=16, noise=0.3):
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    centers = rng.normal(size=(classes, features))
    noise = noise * rng.normal(size=(len(labels), features))
    return (centers[labels] + noise).astype(np.float32), labels


# Maps and order


def test_pca_is_scikit_learns_up_to_signs(rng):
    features = rng.normal(size=(60, 9)) * np.arange(1, 10) + 5
    mine = maps.pca(features.astype(np.float16).astype(np.float32))
    other = PCA(2).fit_transform(features.astype(np.float16).astype(np.float64))
    np.testing.assert_allclose(np.abs(mine), np.abs(other), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(mine, maps.pca(features.astype(np.float16)))


def test_pca_of_fewer_images_than_pixels_is_that_of_any_number(rng):
    few = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 60)) + rng.normal(size=(40, 60)) / 100
    twice = np.concatenate([few, few])  # As many axes, of more rows than there are columns.
    found = maps.components(few, 3)
    np.testing.assert_allclose(found, maps.components(twice, 3)[:40], rtol=1e-4, atol=1e-4)
    pixels = np.repeat(few, 3000, axis=1)  # Their products would be 240 GiB.
    np.testing.assert_allclose(maps.components(pixels, 3), found * 3000**0.5, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (3, 1)])
def test_maps_of_few_images(rng, shape):
    features = rng.normal(size=shape).astype(np.float32)
    for found in (maps.pca(features), maps.tsne(features)):
        assert found.shape == (shape[0], 2)
        assert np.isfinite(found).all()


def test_tsne_keeps_groups_together(rng):
    features, labels = blobs(rng)
    found = maps.tsne(features)
    apart = np.linalg.norm(found[:, None] - found, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(1)] == labels).mean() > 0.95


def test_without_scikit_learn_tsne_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match="pip install scikit-learn, or take the map by PCA"):
        maps.tsne(np.ones((9, 3), np.float32))


def test_similar_images_lie_together(rng):
    features, labels = blobs(rng)
    order = similarity_order(features)
    assert sorted(order) == list(range(len(features)))
    assert (np.diff(labels[order]) != 0).sum() == 4  # Each class in one piece.
    line = rng.permutation(20)[:, None] * np.ones(3)
    along = line[similarity_order(line + np.array([[0, 0, 30]]))][:, 0]
    assert along.tolist() in (list(range(20)), list(range(20))[::-1])
    assert similarity_order(features[:0]).shape == (0,)
    assert sorted(similarity_order(np.ones((5, 3)))) == list(range(5))


# Suggestions


def test_suggestions_show_no_test_image_and_as_many_others_less(rng):
    probabilities = rng.dirichlet(np.ones(4), 200)
    is_test, draws = rng.random(200) < 0.25, rng.random(200)
    groups = suggestions(probabilities, is_test, draws)
    shown = np.concatenate([group.images for group in groups])
    assert not is_test[shown].any()
    assert len(shown) == len(set(shown)) == 200 - 2 * is_test.sum()
    for group in groups:
        assert (probabilities.argmax(1)[group.images] == group.label).all()
        assert (np.diff(group.confidence) <= 0).all()
    assert [len(g.images) for g in groups] == sorted((len(g.images) for g in groups), reverse=True)
    # What the model says does not change who has a suggestion, nor does what is asked for.
    again = suggestions(rng.dirichlet(np.ones(4), 200), is_test, draws)
    assert set(shown) == {image for group in again for image in group.images}


def test_suggestions_where_most_images_are_tests():
    is_test = np.array([True, True, False])
    assert suggestions(np.eye(3), is_test, np.arange(3.0)) == []
    assert suggestions(np.zeros((0, 3)), np.zeros(0, bool), np.zeros(0)) == []


# Doubtful answers


def test_wrong_answers_are_doubtful_and_right_ones_are_not(rng):
    features, labels = blobs(rng, classes=3, each=20)
    given = np.array(["ant", "bee", "cow"])[labels]
    wrong = [3, 17, 40]
    given[wrong] = np.array(["ant", "bee", "cow"])[(labels[wrong] + 1) % 3]
    doubts = doubtful(features, given, jax.random.key(0))
    assert sorted(doubts.worst) == wrong
    assert (doubts.instead[wrong] == np.array(["ant", "bee", "cow"])[labels[wrong]]).all()
    assert (np.diff(doubts.probability[doubts.worst]) >= 0).all()


def test_near_duplicates_confirm_nobody(rng):
    features, labels = blobs(rng, classes=3, each=5)
    features, labels = np.repeat(features, 4, 0), np.repeat(labels, 4)
    folds = np.repeat(np.arange(15), 4)
    labels[:4] = (labels[0] + 1) % 3
    mine = doubtful(features, labels, jax.random.key(0), folds)
    assert mine.worst.tolist() == [0, 1, 2, 3]
    alone = doubtful(features, labels, jax.random.key(0))
    assert alone.probability[:4].min() > 1 / 3


def test_the_only_answer_of_its_class_is_not_judged(rng):
    features, labels = blobs(rng, classes=2, each=20)
    labels[4] = 7
    doubts = doubtful(features, labels, jax.random.key(0))
    assert np.isnan(doubts.probability).nonzero()[0].tolist() == [4]
    assert doubts.worst.size == 0
    one = doubtful(features[:3], np.zeros(3, int), jax.random.key(0))
    assert np.isnan(one.probability).all()
    assert one.worst.size == 0


# Agreement


def test_agreement_of_krippendorffs_example():
    """Four observers, twelve units, missing data, from "Computing alpha-reliability" (2011)."""
    rows = {
        "A": "123321412   ",
        "B": "1233224125 3",
        "C": " 3332342251 ",
        "D": "12332441251 ",
    }
    answers = {who: {str(u): v for u, v in enumerate(row) if v != " "} for who, row in rows.items()}
    found = agreement(answers)
    assert found.n == 11
    assert found.alpha == pytest.approx(0.743421, abs=1e-6)


def test_agreement_at_its_ends():
    assert agreement({}) == (None, 0)
    assert agreement({"a": {"1": "x"}, "b": {"2": "y"}}) == (None, 0)
    assert agreement({"a": {"1": "x"}, "b": {"1": "x"}}) == (None, 1)
    same = {str(n): "xy"[n % 2] for n in range(10)}
    assert agreement({"a": same, "b": same}) == (1.0, 10)
    turned = {n: "xy"["yx".index(label)] for n, label in same.items()}
    assert agreement({"a": same, "b": turned}).alpha < 0


# What the next labels would bring


def test_next_labels_of_a_small_test_set_are_uncertain():
    curve = [
        {"labelled": n, "n": tests, "accuracy": 1 - 0.5 * (n / 40) ** -0.5}
        for tests in (100_000,) for n in (40, 80, 120, 160)
    ]  # fmt: skip
    line = next_labels(curve)
    assert line.startswith("the next 40 labels would bring +")
    few = next_labels([{**point, "n": 20} for point in curve])
    width = lambda text: np.ptp(
        [float(x) for x in text.split("interval ")[1].split(")")[0].split(" to ")]
    )
    assert width(few) > 3 * width(line)
    assert next_labels(curve[:2]) is None
    assert next_labels([]) is None
