"""From images to what is picked by, and from that to picks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from tavaal_jax.methods import METHODS

from configs import digits, moons
from tavaal_jax import acquisition, models, programs, task
from tavaal_jax.data import load

KEY = jax.random.key(0)


def test_smallest_first_and_largest_first():
    values, indices = np.array([0.3, -1.0, 2.0, 0.0]), np.array([5, 6, 7, 8])
    positions, scores = acquisition.smallest(values, None, indices, 2)
    assert (list(positions), list(scores)) == ([1, 3], [-1.0, 0.0])
    positions, scores = acquisition.largest(values, None, indices, 2)
    assert (list(positions), list(scores)) == ([2, 0], [2.0, 0.3])


def test_ties_go_to_the_smaller_pool_index():
    values, indices = np.array([1.0, 0.0, 0.0, 0.0]), np.array([1, 9, 3, 5])
    assert list(acquisition.smallest(values, None, indices, 3)[0]) == [2, 3, 1]
    assert list(acquisition.largest(-values, None, indices, 3)[0]) == [2, 3, 1]


@pytest.mark.parametrize("choose", ["smallest", "largest", "core_set"])
def test_a_value_that_is_no_number_is_an_error(choose):
    values = np.array([[0.0], [np.nan]]) if choose == "core_set" else np.array([0.0, np.nan])
    with pytest.raises(FloatingPointError):
        getattr(acquisition, choose)(values, np.zeros((1, 1)), np.arange(2), 1)


@functools.cache
def prepared(method, **mc_dropout):
    config = moons.get_config()
    config.mc_dropout.update(mc_dropout)
    dataset = load(config)
    run = programs.prepare(config, METHODS[method], dataset, dataset.on_device())
    return run, run.programs["init"](run.train, KEY, 0)["task"]


def value_of(method, image, predicted=None, **mc_dropout):
    run, state = prepared(method, **mc_dropout)
    candidate = acquisition.Candidate(run.train.normalise(image), predicted)
    return run, state, run.method.value(run, (state, None), candidate, KEY)


def test_the_embedding_is_the_learners():
    image = jnp.array([0.3, -0.2])
    run, state, value = value_of("coreset", image)
    expected = task.predict(run, state, run.train.normalise(image)[None]).embedding[0]
    assert value.shape == (32,)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["learning_loss", "learning_loss_v2"])
def test_predicted_loss_methods_pick_the_highest(method):
    _, _, value = value_of(method, jnp.zeros(2), predicted=jnp.float32(1.25))
    assert value == 1.25
    assert METHODS[method].choose is acquisition.largest


@pytest.mark.parametrize("measure", ["max_entropy", "bald", "variation_ratios"])
@pytest.mark.parametrize("place", ["head", "stages"])
def test_mc_dropout_is_the_uncertainty_over_passes(measure, place):
    settings = {"measure": measure, "place": place, "passes": 7, "rate": 0.4}
    image = jnp.array([0.5, 0.1])
    run, state, value = value_of("mc_dropout", image, **settings)
    logits = []
    for number in range(7):
        keys = jax.random.fold_in(KEY, number)[None]
        logits.append(task.predict(run, state, run.train.normalise(image)[None], keys).logits[0])
    logits = np.array(logits, np.float64)
    assert len(np.unique(logits[:, 0])) > 3  # The passes drop different units.
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = lambda p: -np.sum(p * np.log(p), -1)
    mean = probability.mean(0)
    expected = {
        "max_entropy": entropy(mean),
        "bald": entropy(mean) - entropy(probability).mean(),
        "variation_ratios": 1 - np.bincount(logits.argmax(1), minlength=2).max() / 7,
    }[measure]
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_memory_of_mc_dropout_does_not_grow_with_the_passes():
    def temporary(passes):
        run, state = prepared("mc_dropout", passes=passes)
        value = lambda image: run.method.value(
            run, (state, None), acquisition.Candidate(image, None), KEY
        )
        images = jnp.zeros((64, 2))
        return jax.jit(jax.vmap(value)).lower(images).compile().memory_analysis().temp_size_in_bytes

    # The numbers of the passes take 4 bytes each; their logits would take 100,000.
    assert temporary(200) - temporary(2) < 8 * 200


def brute_force_k_center(subset, labelled, count):
    """The definition, in float64."""
    subset, chosen = subset.astype(np.float64), [x.astype(np.float64) for x in labelled]
    picks = []
    for _ in range(count):
        nearest = [
            -1.0 if i in picks else min(np.sum((x - c) ** 2) for c in chosen)
            for i, x in enumerate(subset)
        ]
        picks.append(int(np.argmax(nearest)))
        chosen.append(subset[picks[-1]])
    return picks


@pytest.mark.parametrize("seed", range(20))
def test_k_center_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    offset = 100 * random.normal(size=7)  # far from the origin, where |x|^2 - 2xy + |y|^2 cancels
    subset, labelled = (
        (offset + random.normal(size=(n, 7))).astype(np.float32) for n in (40, 1 + seed % 5)
    )
    picks, _ = acquisition.k_center(subset, labelled, 15)
    np.testing.assert_array_equal(picks, brute_force_k_center(subset, labelled, 15))


def test_k_center_picks_duplicates_last_and_once_each():
    subset = np.float32([[0, 0], [3, 0], [3, 0], [0, 1]])
    picks, squared = acquisition.k_center(subset, np.float32([[0, 0]]), 4)
    np.testing.assert_array_equal(picks, [1, 3, 0, 2])
    np.testing.assert_array_equal(squared, [9, 1, 0, 0])


def test_core_set_equals_the_usual_loop_on_real_embeddings():
    config = digits.get_config()
    dataset = load(config)
    run = programs.prepare(config, METHODS["coreset"], dataset, dataset.on_device())
    state = run.programs["init"](run.train, KEY, 0)["task"]
    images = run.train.plain(jnp.arange(400))
    embeddings = np.asarray(task.predict(run, state, images).embedding)
    subset, labelled = embeddings[:331], embeddings[331:]  # 69 centers, padded to 128
    positions, distances = acquisition.core_set(subset, labelled, np.arange(331), 40)
    nearest = pairwise_distances(subset.astype(np.float64), labelled.astype(np.float64)).min(1)
    for position, distance in zip(positions, distances, strict=True):
        assert nearest[position] == nearest.max()
        np.testing.assert_allclose(distance, nearest[position], rtol=1e-5)
        to_pick = pairwise_distances(subset.astype(np.float64), subset[[position]].astype(float))
        nearest = np.minimum(nearest, to_pick[:, 0])


def test_dropout_is_each_examples_own(rng):
    x = jnp.asarray(rng.normal(size=(6, 4, 4, 5)).astype(np.float32))
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(6))
    whole = models.layers.dropout(x, keys, 0.3, layer=1)
    parts = [models.layers.dropout(x[i : i + 2], keys[i : i + 2], 0.3, 1) for i in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    kept = np.asarray(whole != 0)
    assert abs(kept.mean() - 0.7) < 0.06
    np.testing.assert_allclose(np.asarray(whole)[kept], np.asarray(x)[kept] / 0.7, rtol=1e-6)
    assert (whole != models.layers.dropout(x, keys, 0.3, layer=2)).any()
    assert models.layers.dropout(x, None, 0.3, layer=1) is x


def test_uniform_values_are_what_random_picks_by():
    run, state = prepared("random")
    values = acquisition.uniform_values(KEY, 10)
    for i in range(10):
        key = jax.random.fold_in(KEY, i)
        assert values[i] == run.method.value(run, (state, None), None, key)
