"""What is computed of an image to pick by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import moons, smoke
from tavaal_jax import models
from tavaal_jax.algorithm import adversary as adversaries
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm import losses, values
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import LearnerState
from tavaal_jax.algorithm.values import View

KEY = jax.random.key(0)
IMAGE = jnp.array([0.5, 0.1])


class Echo(nn.Module):
    """A network whose logits are its input."""

    @nn.compact
    def __call__(self, features, train, dropout_keys=None):
        return models.TaskOutput(features, (features,), features)


def says(*logits):
    """A view of an image of which T says these logits."""
    settings = learners.Settings.of(moons.get_config())
    learner = Learner(Echo(), None, None, Classification(len(logits)), settings)
    return View(jnp.array(logits), learner, LearnerState({"learner": {}}, {}, None))


@functools.cache
def built(make=moons, classes=3, shape=(2,), **mc_dropout):
    config = make.get_config()
    config.mc_dropout.update(mc_dropout)
    learner = Learner(
        models.build_learner(config, classes, shape), None, None, Classification(classes),
        learners.Settings.of(config),
    )  # fmt: skip
    init = jax.jit(lambda key: learner.init(key, jnp.zeros((1, *shape))))
    return learner, init(KEY)


def view_of(image=IMAGE, **kwargs):
    return View(image, *built(), **kwargs)


@pytest.mark.parametrize(
    ("logits", "least_confidence", "margin", "entropy"),
    [
        # p = (0.665241, 0.244728, 0.090031); H = ln(11.107338) - (2 * 0.665241 + 0.244728).
        ((2.0, 1.0, 0.0), 0.3347591, 0.4205125, 0.8323956),
        # p = (0.5, 0.3, 0.2), from their logarithms, in another order.
        ((-1.6094379, -0.6931472, -1.2039728), 0.5, 0.2, 1.0296530),
        ((1.0, 1.0, 1.0, 1.0), 0.75, 0.0, 1.3862944),
        # Two alike, the third hopeless.
        ((50.0, -50.0, 50.0), 0.5, 0.0, 0.6931472),
        ((200.0, -200.0), 0.0, 1.0, 0.0),
    ],
)
def test_uncertainties_of_a_prediction(logits, least_confidence, margin, entropy):
    measures = values.least_confidence, values.margin, values.entropy
    found = jax.jit(lambda logits: [value(says(*logits), KEY) for value in measures])(logits)
    np.testing.assert_allclose(found, [least_confidence, margin, entropy], rtol=2e-6, atol=1e-6)


def test_the_error_of_a_prediction():
    found = values.gradient_embedding(says(2.0, 1.0, 0.0), KEY)
    np.testing.assert_allclose(found["error"], [-0.3347591, 0.2447285, 0.0900306], rtol=2e-6)
    np.testing.assert_array_equal(found["embedding"], [2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("make", "shape", "last"), [(moons, (2,), "Dense_2"), (smoke, (8, 8, 1), "Dense_0")]
)
def test_gradient_embedding_is_the_last_layers_gradient_were_the_prediction_right(
    make, shape, last
):
    learner, state = built(make, 3, shape)
    images = jax.random.normal(KEY, (4, *shape))

    def loss(kernel, image):
        params = state.params["learner"]
        params = {**params, last: {**params[last], "kernel": kernel}}
        changed = state.replace(params={**state.params, "learner": params})
        logits = learner.predict(changed, image[None]).logits
        return losses.cross_entropy(logits, jnp.argmax(logits, -1))[0]

    def product(image):
        factors = values.gradient_embedding(View(image, learner, state), KEY)
        return jnp.outer(factors["embedding"], factors["error"])

    kernel = state.params["learner"][last]["kernel"]
    expected = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(kernel, images)
    assert expected.shape == (4, *kernel.shape)
    assert (np.asarray(expected) != 0).any((1, 2)).all()
    found = jax.jit(jax.vmap(product))(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_embedding_is_the_learners():
    learner, state = built()
    value = jax.jit(lambda image: values.embedding(view_of(image), KEY))(IMAGE)
    expected = jax.jit(learner.predict)(state, IMAGE[None]).embedding[0]
    assert value.shape == (32,)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_the_predicted_loss_is_the_rankers():
    assert values.predicted_loss(view_of(predicted=jnp.float32(1.25)), KEY) == 1.25
    with pytest.raises(AttributeError, match="ranking_loss"):
        values.predicted_loss(view_of(), KEY)


@pytest.mark.parametrize("make", [adversaries.vaal, adversaries.tavaal])
def test_the_discriminators_value_is_the_adversarys_score(make):
    adversary = make(moons.get_config(), Classification(2), (2,))
    state = jax.jit(lambda key: adversary.init(key, IMAGE[None]))(KEY)
    condition = None
    if adversary.condition_of is not None:
        rank = jnp.float32([0.3])
        condition = adversaries.Rank(rank, rank)

    def value_of(image, condition):
        view = view_of(image, adversary=adversary, adversary_state=state, condition=condition)
        return values.discriminator(view, KEY)

    value = jax.jit(value_of)(IMAGE, condition)
    one = jax.tree.map(lambda x: x[None], (IMAGE, condition))
    expected = jax.jit(adversary.score)(state, *one)
    assert value.shape == ()
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)


def test_the_discriminators_value_needs_an_adversary():
    with pytest.raises(AttributeError, match="no adversary"):
        values.discriminator(view_of(), KEY)


def test_a_view_asks_the_learner_once():
    learner, state = built()
    asked = []

    class Counting(Learner):
        def infer(self, state, images):
            asked.append(images.shape)
            return super().infer(state, images)

    fields = learner.network, None, None, learner.problem, learner.settings

    def look(image):
        view = View(image, Counting(*fields), state)
        assert asked == []
        assert view.logits.shape == (3,)
        assert view.embedding.shape == (32,)
        assert asked == [(1, 2)]

    jax.eval_shape(look, IMAGE)


@pytest.mark.parametrize("place", ["head", "stages"])
def test_mc_dropout_is_the_uncertainty_over_passes(place):
    learner, state = built(place=place, rate=0.4)

    @jax.jit
    def both(image):
        keys = jax.vmap(lambda number: jax.random.fold_in(KEY, number))(jnp.arange(7))
        of_pass = lambda key: learner.predict(state, image[None], key[None]).logits[0]
        view = functools.partial(View, image, learner, state, passes=7)
        measures = "max_entropy", "bald", "variation_ratios"
        found = {name: values.mc_dropout(view(measure=name), KEY) for name in measures}
        return found, jnp.stack([of_pass(key) for key in keys])

    found, logits = both(IMAGE)
    logits = np.array(logits, np.float64)
    assert len(np.unique(logits[:, 0])) > 3  # The passes drop different units.
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = lambda p: -np.sum(p * np.log(p), -1)
    mean = probability.mean(0)
    expected = {
        "max_entropy": entropy(mean),
        "bald": entropy(mean) - entropy(probability).mean(),
        "variation_ratios": 1 - np.bincount(logits.argmax(1), minlength=3).max() / 7,
    }
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)


def test_memory_of_mc_dropout_does_not_grow_with_the_passes():
    def temporary(passes):
        value = lambda image: values.mc_dropout(view_of(image, passes=passes), KEY)
        images = jnp.zeros((64, 2))
        return jax.jit(jax.vmap(value)).lower(images).compile().memory_analysis().temp_size_in_bytes

    # The numbers of the passes take 4 bytes each; their logits would take 150,000.
    assert temporary(200) - temporary(2) < 8 * 200


def test_a_direction_has_length_one_or_none():
    np.testing.assert_allclose(values.direction(says(3.0, 4.0), KEY), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(values.direction(says(0.0, 0.0), KEY), [0, 0])


def test_power_acquisition_draws_in_proportion_to_the_score():
    views = [says(*logits) for logits in ((0.0, 0.0), (0.0, 1.0), (0.0, 3.0), (0.0, 50.0))]
    scores = np.array([1 - values.margin(view, KEY) for view in views])
    keys = jax.random.split(KEY, 4000)
    draw = jax.jit(jax.vmap(lambda key: [values.power_margin(view, key) for view in views]))
    # One key for all would give all the same Gumbel: each image has its own.
    drawn = np.stack([np.roll(x, 1000 * number) for number, x in enumerate(draw(keys))])
    share = np.bincount(drawn.argmax(0), minlength=4) / 4000
    np.testing.assert_allclose(share, scores / scores.sum(), atol=0.03)
    assert np.isfinite(drawn).all()


def test_bald_is_the_measure_bald():
    @jax.jit
    def found(image):
        view, usual = view_of(image, passes=7, measure="bald"), view_of(image, passes=7)
        return (
            values.bald(usual, KEY), values.mc_dropout(view, KEY), values.power_bald(view, KEY),
            values.mc_dropout(usual, KEY),
        )  # fmt: skip

    bald, expected, power, other = found(IMAGE)
    assert bald == expected != other
    assert np.isfinite(power)


def last_layer_of(learner, state):
    """Kernel and bias of two moons' last layer."""
    layer = state.params["learner"]["Dense_2"]
    return np.asarray(layer["kernel"]), np.asarray(layer["bias"])


def test_disagreement_is_that_of_three_passes_without_most_features():
    learner, state = built()
    kernel, bias = last_layer_of(learner, state)

    @jax.jit
    def of(key):
        view = View(3 * IMAGE, learner, state)
        draw = lambda number: jax.random.bernoulli(
            jax.random.fold_in(key, number), 0.25, view.embedding.shape
        )
        drawn = [draw(number) for number in range(3)]
        return values.disagreement(view, key), view.embedding, view.logits, drawn

    for seed in range(4):
        found, features, whole, drawn = jax.device_get(of(jax.random.key(seed)))
        share = 0
        for keep in drawn:
            logits = np.where(keep, features / 0.25, 0) @ kernel + bias
            share += int(logits.argmax() != whole.argmax()) / 3
        np.testing.assert_allclose(found["disagreement"], share, rtol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found["embedding"]), 1, rtol=1e-6)


def test_mixing_says_how_logits_change_along_the_losses_gradient():
    learner, state = built()
    kernel, bias = last_layer_of(learner, state)

    @jax.jit
    def both(image):
        view = View(image, learner, state)
        return values.mixing(view, KEY), view.embedding

    found, features = jax.device_get(both(IMAGE))
    logits = features @ kernel + bias
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-5)
    # Of the cross-entropy with the predicted class.
    error = np.exp(logits) / np.exp(logits).sum()
    error[logits.argmax()] -= 1
    gradient = kernel @ error
    step = gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(found["slope"], step @ kernel, rtol=1e-4, atol=1e-6)


def test_what_needs_the_last_layer_says_so():
    with pytest.raises(AttributeError, match="Echo, has no method head"):
        values.mixing(says(1.0, 2.0), KEY)


def test_uniform_values_are_what_random_picks_by():
    found = values.uniform_pool(KEY, 10)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(10))
    np.testing.assert_array_equal(found, [values.uniform(None, key) for key in keys])
    assert len(np.unique(found)) == 10
