"""Segmentation as a problem: windows, losses, metrics and uncertainties of maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.metrics import confusion_matrix

from tavaal_jax.algorithm import losses, optim, problems
from tavaal_jax.algorithm.learner import Learner, Settings
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Classification, Segmentation
from tavaal_jax.algorithm.state import Batch, Example, Schedule
from tavaal_jax.data.pool import LabelMaps, Normaliser
from tavaal_jax.engine import components, programs
from tavaal_jax.models import Ranker, TaskOutput

KEY = jax.random.key(0)
CLASSES = 5


def maps(rng, count, shape, ignored=0.2, classes=CLASSES):
    """Random label maps with pixels that count nowhere."""
    drawn = rng.integers(0, classes, (count, *shape)).astype(np.uint8)
    return np.where(rng.random(drawn.shape) < ignored, np.uint8(255), drawn)


# Windows


@pytest.mark.parametrize("shape", [(20, 30), (9, 30), (7, 8)])
def test_image_and_map_are_cut_and_flipped_together(rng, shape):
    problem = Segmentation(CLASSES, crop=12, flip=True)
    label = rng.integers(0, 200, shape).astype(np.uint8)
    image = np.repeat(label[..., None], 3, axis=-1)
    missing = [max(0, 12 - side) for side in shape]
    augment = jax.jit(jax.vmap(problem.augment, (None, 0)))
    found = jax.device_get(augment(Example(image, label), jax.random.split(KEY, 40)))
    assert found.image.shape == (40, 12, 12, 3)
    assert found.label.shape == (40, 12, 12)
    inside = found.label != 255
    assert (inside.sum((1, 2)) == (12 - missing[0]) * (12 - missing[1])).all()
    np.testing.assert_array_equal(found.image[..., 0][inside], found.label[inside])
    assert not found.image[~inside].any()
    assert len(np.unique(found.label, axis=0)) > 1


def test_all_windows_are_drawn_alike_and_mirrored_half_of_the_time():
    problem = Segmentation(CLASSES, crop=2, flip=True)
    label = jnp.arange(12, dtype=jnp.uint8).reshape(3, 4)
    keys = jax.random.split(KEY, 3000)
    of_one = lambda key: problem.augment(Example(label[..., None], label), key).label
    found = np.asarray(jax.jit(jax.vmap(of_one))(keys)).reshape(len(keys), -1)
    windows, counts = np.unique(found, axis=0, return_counts=True)
    assert len(windows) == 2 * 3 * 2
    np.testing.assert_allclose(counts / len(keys), 1 / 12, atol=0.02)


def test_a_window_that_was_cut_before_is_as_it_is(rng):
    """So that a host may cut what it reads: the devices then only flip."""
    problem = Segmentation(CLASSES, crop=6, flip=True)
    image = rng.integers(0, 256, (15, 11, 3), np.uint8)
    label = maps(rng, 1, (15, 11))[0]
    augment = jax.jit(problem.augment)
    crop_origin = jax.jit(lambda key: problem.crop_origin(image.shape, jax.random.split(key)[0]))
    for key in jax.random.split(KEY, 5):
        y, x = map(int, crop_origin(key))
        cut = Example(*(a[y : y + 6, x : x + 6] for a in (image, label)))
        whole = augment(Example(image, label), key)
        jax.tree.map(np.testing.assert_array_equal, augment(cut, key), whole)


def test_without_a_crop_an_image_is_whole(rng):
    image, label = rng.integers(0, 256, (5, 7, 3), np.uint8), maps(rng, 1, (5, 7))[0]
    found = Segmentation(CLASSES).augment(Example(jnp.asarray(image), jnp.asarray(label)), KEY)
    jax.tree.map(np.testing.assert_array_equal, found, Example(image, label))


# Losses


def test_the_loss_of_an_image_is_the_mean_over_its_labelled_pixels(rng):
    logits = rng.normal(size=(3, 4, 6, CLASSES)).astype(np.float32)
    labels = maps(rng, 3, (4, 6))
    labels[2] = 255
    found = jax.jit(Segmentation(CLASSES).image_losses)(logits, labels)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for i in range(2):
        known = labels[i] != 255
        each = -np.take_along_axis(log[i][known], labels[i][known][:, None].astype(int), 1)
        np.testing.assert_allclose(found[i], each.mean(), rtol=1e-5)
    assert found[2] == 0
    np.testing.assert_array_equal(Segmentation(CLASSES).weights(jnp.asarray(labels)), [1, 1, 0])


def test_what_is_ignored_reaches_neither_loss_nor_gradient(rng):
    labels = jnp.asarray(maps(rng, 2, (4, 6)))
    logits = jnp.asarray(rng.normal(size=(2, 4, 6, CLASSES)), jnp.float32)
    loss = lambda x: Segmentation(CLASSES).image_losses(x, labels).sum()
    gradient = np.asarray(jax.jit(jax.grad(loss))(logits))
    assert not gradient[np.asarray(labels) == 255].any()
    assert np.abs(gradient[np.asarray(labels) != 255]).sum(-1).all()


class PixelNetwork(nn.Module):
    """A class for each pixel from its colour alone."""

    @nn.compact
    def __call__(self, images, train, dropout_keys=None):
        hidden = nn.relu(nn.Dense(8)(images))
        pooled = hidden.mean((1, 2))
        return TaskOutput(nn.Dense(CLASSES)(hidden), (pooled,), pooled)


def learner(ranking_loss):
    settings = Settings(optim.Optimiser("sgd", 0.1), loss_weight=0.5, when_inactive="freeze")
    return Learner(PixelNetwork(), Ranker(4), ranking_loss, Segmentation(CLASSES), settings)


SCHEDULE = Schedule(np.int32(0), np.float32(0.1), np.True_, np.False_)


def begun(made, images):
    return jax.jit(made.init)(KEY, jnp.asarray(images[:1]))


@pytest.mark.parametrize(
    "ranking_loss",
    [pytest.param(x, marks=pytest.mark.slow) for x in (losses.ranking, losses.margin)],
)
def test_images_without_a_labelled_pixel_weigh_nothing(rng, ranking_loss):
    """The pairs of equation (1) are (0, 5), (1, 4), (2, 3): of image 1 nothing is known."""
    images = rng.normal(size=(6, 4, 4, 3)).astype(np.float32)
    labels = maps(rng, 6, (4, 4))
    labels[1] = 255
    made = learner(ranking_loss)
    state, step = begun(made, images), jax.jit(made.step)
    after, found = step(state, Batch(jnp.asarray(images), jnp.asarray(labels)), SCHEDULE)
    said = jax.jit(made.infer)(state, jnp.asarray(images))
    each = made.problem.image_losses(said.logits, jnp.asarray(labels))
    known = np.array([0, 2, 3, 4, 5])
    np.testing.assert_allclose(found["task_loss"], each[known].mean(), rtol=1e-5)
    pairs = np.array([0, 2, 3, 5])
    expected = ranking_loss(said.predicted[pairs], each[pairs])
    np.testing.assert_allclose(found["ranking_loss"], expected, rtol=1e-5)

    poisoned = images.copy()
    poisoned[1] = 1e3
    other, _ = step(state, Batch(jnp.asarray(poisoned), jnp.asarray(labels)), SCHEDULE)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, after.params, other.params)


def test_the_true_loss_of_a_map_without_a_labelled_pixel_is_not_known(rng):
    images = rng.integers(0, 256, (3, 4, 4, 3), np.uint8)
    labels = maps(rng, 3, (4, 4))
    labels[1] = 255
    made = components.Components(METHODS["random"], learner(None), None, 1, "bald")
    normalise = Normaliser.constant((0.5,) * 3, (0.2,) * 3)
    seen = jax.vmap(normalise)(jnp.asarray(images))
    state = begun(made.learner, seen)
    known = LabelMaps(labels, np.zeros((3, CLASSES), np.int32), np.ones(3, bool))
    examples = jax.tree.map(jnp.asarray, Example(images, known))
    of_one = functools.partial(programs._loss_of_one, made, (state, normalise))
    found = jax.jit(jax.vmap(of_one))(examples)
    logits = jax.jit(made.learner.predict)(state, seen).logits
    each = np.array(jax.jit(made.learner.problem.image_losses)(logits, labels))
    each[1] = np.nan
    np.testing.assert_allclose(found, each, rtol=1e-5)


@pytest.mark.slow
def test_a_batch_without_any_label_changes_nothing(rng):
    images = jnp.asarray(rng.normal(size=(4, 4, 4, 3)), jnp.float32)
    made = learner(losses.ranking)
    state = begun(made, images)
    labels = jnp.full((4, 4, 4), 255, jnp.uint8)
    after, metrics = jax.jit(made.step)(state, Batch(images, labels), SCHEDULE)
    assert metrics == {"task_loss": 0, "ranking_loss": 0}
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


@pytest.mark.slow
def test_weights_are_those_of_the_whole_batch_whatever_the_devices(rng):
    images = rng.normal(size=(8, 4, 4, 3)).astype(np.float32)
    labels = maps(rng, 8, (4, 4))
    labels[[1, 2, 5]] = 255
    made = learner(losses.ranking)
    state = begun(made, images)
    batch = Batch(jnp.asarray(images), jnp.asarray(labels))
    whole, expected = jax.jit(made.step)(state, batch, SCHEDULE)
    order = np.array([[0, 1, 6, 7], [2, 3, 4, 5]])  # As `devices.layout` cuts a batch for two.
    mean = functools.partial(jax.lax.pmean, axis_name="batch")
    step = jax.vmap(
        lambda images, labels: made.step(state, Batch(images, labels), SCHEDULE, mean),
        axis_name="batch",
    )
    parts, found = jax.jit(step)(jnp.asarray(images[order]), jnp.asarray(labels[order]))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    for name, value in expected.items():
        close(found[name], value)
    jax.tree.map(lambda part, one: close(part[0], one), parts.params, whole.params)


def test_the_classes_shares_of_a_map_are_told_from_a_latent(rng):
    counts = jnp.array([[30, 10, 0, 0, 0], [0, 0, 0, 0, 0]])
    logits = jnp.log(jnp.array([[0.6, 0.1, 0.1, 0.1, 0.1]] * 2))
    found = Segmentation(CLASSES).latent_losses(logits, counts)
    np.testing.assert_allclose(found, [-0.75 * np.log(0.6) - 0.25 * np.log(0.1), 0], rtol=1e-5)
    assert not np.asarray(Segmentation(CLASSES).unknown(counts)).any()


# Metrics


@pytest.mark.parametrize("block", [7, 2**16])
def test_mean_iou_is_that_of_the_whole_sets_confusion_matrix(rng, monkeypatch, block):
    monkeypatch.setattr(problems, "_BLOCK", block)
    problem, true = Segmentation(CLASSES), maps(rng, 6, (9, 13), classes=4)
    true[true == 2] = 1  # Class 2 is predicted and nowhere true, class 4 neither.
    logits = rng.normal(size=(6, 9, 13, CLASSES)).astype(np.float32)
    logits[..., 4] = -10
    counts = np.asarray(jax.jit(jax.vmap(problem.counts))(logits, true))
    assert counts.dtype == np.int32
    total = counts.sum(0, dtype=np.int64)
    known, predicted = true != 255, logits.argmax(-1)
    expected = confusion_matrix(true[known], predicted[known], labels=range(CLASSES))
    np.testing.assert_array_equal(total, expected)
    with np.errstate(invalid="ignore"):
        iou = np.diag(expected) / (expected.sum(0) + expected.sum(1) - np.diag(expected))
    assert np.isnan(iou[4])
    assert iou[2] == 0
    np.testing.assert_allclose(problem.by_class(total), iou)
    mean_iou, accuracy = problem.summarise(total)
    np.testing.assert_allclose(mean_iou, np.nanmean(iou), rtol=1e-6)
    np.testing.assert_allclose(accuracy, (true == predicted)[known].mean(), rtol=1e-6)


def test_metrics_are_finite_where_no_pixel_is_labelled():
    problem = Segmentation(CLASSES)
    np.testing.assert_array_equal(problem.summarise(np.zeros((CLASSES, CLASSES), np.int64)), 0)


def test_a_sum_over_many_large_maps_is_exact():
    """Beyond 2**31 pixels, where neither float32 nor int32 would do."""
    counts = np.diag([2**31 - 1] * CLASSES).astype(np.int32)
    total = np.sum([counts.astype(np.int64)] * 3, axis=0)
    np.testing.assert_array_equal(Segmentation(CLASSES).summarise(total), 1)


# Uncertainties

NAMES = ("confidence", "margin", "entropy", "indicator", "error")


@pytest.mark.parametrize("name", NAMES)
def test_an_uncertainty_is_the_mean_over_all_pixels(rng, name):
    logits = jnp.asarray(rng.normal(size=(4, 6, CLASSES)), jnp.float32)
    each = jax.jit(jax.vmap(getattr(Classification(CLASSES), name)))(logits.reshape(-1, CLASSES))
    found = jax.jit(getattr(Segmentation(CLASSES), name))(logits)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=2e-5)


@pytest.mark.parametrize("measure", ["bald"])
def test_the_disagreement_of_passes_is_the_mean_over_pixels(rng, measure):
    passes = jnp.asarray(rng.normal(size=(7, 3, 4, CLASSES)), jnp.float32)

    def of(problem, logits):
        votes = jax.tree.map(lambda x: x.mean(0), jax.vmap(problem.vote)(logits))
        return problem.disagreement(measure, votes)

    pixels = passes.reshape(7, -1, CLASSES)
    of_pixel = jax.vmap(functools.partial(of, Classification(CLASSES)), 1)
    expected = jax.jit(of_pixel)(pixels)
    found = jax.jit(functools.partial(of, Segmentation(CLASSES)))(passes)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-4, atol=1e-6)
