"""Augmentation, metrics, votes and uncertainties against values computed by hand."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import Example


def votes_of(probabilities):
    votes = [Classification(3).vote(jnp.log(jnp.array(p))) for p in probabilities]
    return {name: np.mean([v[name] for v in votes], axis=0) for name in votes[0]}


@pytest.mark.parametrize(
    ("probabilities", "max_entropy", "bald", "variation_ratios"),
    [
        # Certain and agreed; undecided and agreed; certain and contradicting itself.
        ([[0.999999, 0.000001]] * 4, 0.0, 0.0, 0.0),
        ([[0.5, 0.5]] * 4, np.log(2), 0.0, 0.0),
        ([[0.999999, 0.000001]] * 2 + [[0.000001, 0.999999]] * 2, np.log(2), np.log(2), 0.5),
        # Mean (0.6, 0.4): H = 0.673012; mean of the entropies 0.500402 and 0.673012.
        ([[0.8, 0.2], [0.4, 0.6]], 0.673012, 0.673012 - (0.500402 + 0.673012) / 2, 0.5),
    ],
)
def test_disagreement(probabilities, max_entropy, bald, variation_ratios):
    votes, of = votes_of(probabilities), Classification(3).disagreement
    np.testing.assert_allclose(of("max_entropy", votes), max_entropy, atol=3e-5)
    np.testing.assert_allclose(of("bald", votes), bald, atol=3e-5)
    np.testing.assert_allclose(of("variation_ratios", votes), variation_ratios, atol=1e-6)


def test_measures_are_three_and_differ():
    votes = votes_of([[0.8, 0.2], [0.4, 0.6]])
    measures = "max_entropy", "bald", "variation_ratios"
    found = [float(Classification(3).disagreement(measure, votes)) for measure in measures]
    assert len(set(found)) == 3


def test_losses_are_each_images_own_cross_entropy():
    logits = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
    found = Classification(3).image_losses(logits, jnp.array([1, 0]))
    np.testing.assert_allclose(found, [-np.log(0.75), np.log(2)], rtol=1e-6)


def test_accuracy_is_the_share_of_correct_examples():
    problem = Classification(3)
    logits = jnp.array([[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [0.0, 0.0, 1.0], [5.0, 1.0, 1.0]])
    labels = jnp.array([1, 2, 2, 0])
    counts = jax.vmap(problem.counts)(logits, labels)
    np.testing.assert_array_equal(counts, [[1, 1], [0, 1], [1, 1], [1, 1]])
    assert problem.metrics == ("accuracy",)
    np.testing.assert_array_equal(problem.summarise(np.sum(counts, axis=0)), [0.75])


def test_counts_are_of_one_example():
    with pytest.raises(AssertionError):
        Classification(3).counts(jnp.zeros((2, 3)), jnp.zeros(2, int))


def test_augment_shifts_and_flips_within_the_padding():
    image = jnp.arange(1, 17, dtype=jnp.uint8).reshape(4, 4, 1)
    padded = np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)))
    allowed = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed += [x[:, ::-1] for x in allowed]
    problem, example = Classification(3, pad=1, flip=True), Example(image, jnp.int32(3))
    seeds = jnp.arange(300)
    out = jax.vmap(lambda seed: problem.augment(example, jax.random.key(seed)))(seeds)
    assert out.image.dtype == jnp.uint8
    assert (out.label == 3).all()
    seen = set()
    for one in np.asarray(out.image):
        matches = [i for i, x in enumerate(allowed) if np.array_equal(one, x)]
        assert matches
        seen.add(matches[0])
    assert len(seen) == 18


@pytest.mark.parametrize(("pad", "flip", "results"), [(1, False, 9), (0, True, 2)])
def test_shifts_and_flips_can_be_had_alone(pad, flip, results):
    image = jnp.arange(16.0).reshape(4, 4, 1)
    problem = Classification(3, pad, flip)
    augment = lambda seed: problem.augment(Example(image, jnp.int32(0)), jax.random.key(seed)).image
    found = np.unique(np.asarray(jax.vmap(augment)(jnp.arange(200))), axis=0)
    assert len(found) == results
    assert any(np.array_equal(one, image) for one in found)


@pytest.mark.parametrize("shape", [(4, 4, 1), (5,)])
def test_no_augmentation_changes_nothing(shape):
    image = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    out = Classification(3).augment(Example(image, jnp.int32(2)), jax.random.key(0))
    np.testing.assert_array_equal(out.image, image)
    assert out.label == 2


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        # The others are alike: the variance is the least, u = 1 - max p.
        ((0.5, 0.25, 0.25), 0.5),
        ((1 / 3, 1 / 3, 1 / 3), 2 / 3),
        # Var = (0.0278 + 0.0011 + 0.0178) / 3, MINVar = (0.0278 + 2 * 0.0069) / 3: ratio 0.892857.
        ((0.5, 0.3, 0.2), 1 - 0.25 / 0.28 * 0.5),
        # Two rivals: MINVar is a quarter of Var.
        ((0.5, 0.5, 0.0), 1 - 0.25 * 0.5),
    ],
)
def test_uncertainty_indicator_by_hand(probabilities, expected):
    logits = jnp.log(jnp.maximum(jnp.array(probabilities), 1e-30))
    for order in ([0, 1, 2], [2, 0, 1]):
        found = Classification(3).indicator(logits[jnp.array(order)])
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_uncertainty_indicator_of_the_certain_is_zero():
    found = Classification(10).indicator(jnp.zeros(10).at[3].set(90.0))
    np.testing.assert_allclose(found, 0, atol=1e-6)
    gradient = jax.grad(Classification(10).indicator)(jnp.zeros(10))
    assert np.isfinite(gradient).all()


def test_metrics_are_scikit_learns():
    """Class 3 is predicted and absent, class 4 neither."""
    names = ("balanced_accuracy", "macro_f1", "accuracy")
    problem, random = Classification(5, metrics=names), np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1, 2], [40, 10, 3]))
    logits = np.eye(5)[labels] + 0.8 * random.normal(size=(53, 5)) - [0, 0, 0, 0, 9]
    counts = jax.vmap(problem.counts)(
        jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32)
    )
    predicted = logits.argmax(1)
    assert set(predicted) == {0, 1, 2, 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "y_pred contains classes not in y_true"
        expected = [
            metrics.balanced_accuracy_score(labels, predicted),
            metrics.f1_score(labels, predicted, average="macro"),
            metrics.accuracy_score(labels, predicted),
        ]
    np.testing.assert_allclose(problem.summarise(np.sum(counts, axis=0)), expected, rtol=1e-6)
