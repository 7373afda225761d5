"""Logistic regression: scikit-learn's solution, the choice of C, few labels and absent classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from tavaal_jax.algorithm import logistic

CLASSES = 4


@functools.cache
def drawn(count, features=6, classes=CLASSES):
    """`count` examples of overlapping classes, at least two of each; one is larger than others."""
    random = np.random.default_rng(count)
    labels = np.minimum(random.integers(0, classes + 3, count), classes - 1)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    centres = np.random.default_rng(7).normal(size=(classes, features))
    points = centres[labels] + 1.5 * random.normal(size=(count, features))
    return points.astype(np.float32), labels.astype(np.int32)


def padded(points, labels, length, weights=None):
    missing = length - len(labels)
    weights = np.ones(len(labels)) if weights is None else weights
    return logistic.Examples(
        jnp.pad(jnp.asarray(points), ((0, missing), (0, 0)), constant_values=9),
        jnp.pad(jnp.asarray(labels), (0, missing)),
        jnp.pad(jnp.asarray(weights, jnp.float32), (0, missing)),
    )


fit = jax.jit(functools.partial(logistic.fit, classes=CLASSES))
fit_with = jax.jit(functools.partial(logistic.fit_with, classes=CLASSES, close=1e-6))


def expected(points, labels, strength, weights=None):
    """Kernel and bias of scikit-learn, with the bias as the weights of a feature that is 1."""
    rows = np.pad(points.astype(float), ((0, 0), (0, 1)), constant_values=1)
    model = LogisticRegression(C=strength, fit_intercept=False, tol=1e-8, max_iter=10_000)
    found = model.fit(rows, labels, sample_weight=weights).coef_.T
    return found[:-1], found[-1]


@pytest.mark.parametrize(
    ("count", "length", "features"), [(50, 64, 6), (20, 32, 100)], ids=["long", "wide"]
)
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_coefficients_are_scikit_learns(count, length, features, strength):
    points, labels = drawn(count, features)
    weights = np.linspace(0.5, 2, count)
    found = fit_with(padded(points, labels, length, weights), strength=strength)
    theirs = np.vstack(expected(points, labels, strength, weights))  # kernel and, last, bias
    # Of the largest coefficient: the bias is one among them, of a feature that is 1. float32
    # tells losses apart to 1e-6 of them, and so coefficients to the square root of twice that.
    np.testing.assert_allclose(np.vstack(found), theirs, atol=1.5e-3 * np.abs(theirs).max())


def test_it_ends_where_float32_tells_no_lower_loss(monkeypatch):
    losses, counted = optax.softmax_cross_entropy_with_integer_labels, []

    def count(logits, labels):
        jax.debug.callback(lambda: counted.append(1))
        return losses(logits, labels)

    monkeypatch.setattr(optax, "softmax_cross_entropy_with_integer_labels", count)
    points, labels = drawn(50)
    head = logistic.fit_with(padded(points, labels, 64), CLASSES, 1.0, close=0.0)
    jax.effects_barrier()
    assert len(counted) < 200
    theirs = np.vstack(expected(points, labels, 1.0))
    np.testing.assert_allclose(np.vstack(head), theirs, atol=1e-3 * np.abs(theirs).max())


def test_padding_changes_nothing():
    head, other = (fit_with(padded(*drawn(50), length), strength=0.1) for length in (64, 128))
    for x, y in zip(head, other, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "length", "features", "classes"),
    [(50, 64, 6, CLASSES), (90, 128, 40, 30)],
    ids=["few classes", "many classes"],
)
def test_c_is_the_least_within_half_an_error_of_the_best_log_loss(count, length, features, classes):
    points, labels = drawn(count, features, classes)
    _, choice = jax.jit(functools.partial(logistic.fit, classes=classes))(
        padded(points, labels, length)
    )
    order = np.argsort(labels, kind="stable")
    fold = np.empty(count, int)
    fold[order] = np.arange(count) % logistic.FOLDS

    def left_out(strength):
        probability = np.empty((count, classes))
        for number in range(logistic.FOLDS):
            there, out = fold != number, fold == number
            kernel, bias = expected(points[there], labels[there], strength)
            logits = points[out] @ kernel + bias
            probability[out] = np.asarray(jax.nn.softmax(logits))
        probability /= probability.sum(1, keepdims=True)
        losses = -np.log(probability[np.arange(count), labels])
        error = losses.std() / np.sqrt(count)
        return losses.mean(), error, np.mean(probability.argmax(1) == labels)

    found = {strength: left_out(strength) for strength in logistic.STRENGTHS}
    least, error, _ = min(found.values())
    best = next(c for c, (loss, *_) in found.items() if loss <= least + error / 2)
    assert best < min(found, key=found.__getitem__)
    np.testing.assert_allclose(choice.strength, best, rtol=1e-6)
    np.testing.assert_allclose([choice.loss, choice.accuracy], found[best][::2], rtol=1e-3)


def test_features_that_tell_nothing_get_the_strongest_regularisation():
    points = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    _, choice = fit(padded(points, drawn(50)[1], 64))
    assert float(choice.strength) < 0.1


def test_a_class_without_an_image_is_never_predicted():
    points, labels = drawn(50)
    there = labels != 2
    head, _ = fit(padded(points[there], labels[there], 64))
    rows = np.concatenate([points, 100 * np.random.default_rng(1).normal(size=(500, 6))])
    probability = np.asarray(jax.nn.softmax(rows @ np.asarray(head.kernel) + np.asarray(head.bias)))
    assert (probability.argmax(1) != 2).all()
    assert 0 < probability[:, 2].max() <= 1 / (there.sum() + 1)


@pytest.mark.parametrize("count", [1, 2, CLASSES])
def test_an_image_of_each_class_is_enough(count):
    """None can be left out then, and C is a default."""
    points = drawn(50)[0][:CLASSES][:count]
    head, choice = fit(padded(points, np.arange(count), 64))
    assert not np.isfinite(choice.loss)
    logits = points @ np.asarray(head.kernel) + np.asarray(head.bias)
    np.testing.assert_array_equal(logits.argmax(1), np.arange(count))


def test_a_single_class_is_predicted():
    points, _ = drawn(50)
    head, _ = fit(padded(points, np.full(50, 3), 64))
    assert ((points @ np.asarray(head.kernel) + np.asarray(head.bias)).argmax(1) == 3).all()


def test_the_same_examples_give_the_same_bits():
    examples = padded(*drawn(50), 64)
    for x, y in zip(jax.tree.leaves(fit(examples)), jax.tree.leaves(fit(examples)), strict=True):
        np.testing.assert_array_equal(x, y)
