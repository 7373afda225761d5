"""From values to picks."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from configs import smoke
from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm import picks
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.data import load
from tavaal_jax.data.pool import Normaliser

KEY = jax.random.key(0)


def test_smallest_first_and_largest_first():
    values = np.array([0.3, -1.0, 2.0, 0.0])
    positions, scores = picks.smallest(values, 2, KEY)
    assert (list(positions), list(scores)) == ([1, 3], [-1.0, 0.0])
    positions, scores = picks.largest(values, 2, KEY)
    assert (list(positions), list(scores)) == ([2, 0], [2.0, 0.3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, bool, np.int32, np.float32])
def test_the_largest_of_numbers_of_any_kind(dtype):
    positions, scores = picks.largest(np.array([0, 5, 3]).astype(dtype), 2, KEY)
    assert list(positions) == [1, 2]
    assert list(scores) == ([1, 1] if dtype is bool else [5, 3])


def test_ties_go_to_the_smaller_position():
    values = np.array([1.0, 0.0, 0.0, 0.0, -1.0])
    assert list(picks.smallest(values, 4, KEY)[0]) == [4, 1, 2, 3]
    assert list(picks.largest(-values, 4, KEY)[0]) == [4, 1, 2, 3]


@pytest.mark.parametrize("pick", [picks.smallest, picks.largest])
def test_sorting_takes_one_number_per_image(pick):
    with pytest.raises(AssertionError):
        pick(np.zeros((3, 2)), 1, KEY)


@pytest.mark.parametrize("pick", picks.INCREMENTAL)
@pytest.mark.parametrize("count", [0, 1, 40, 1000])
def test_the_best_of_parts_are_the_best_of_all(pick, count, rng, monkeypatch):
    monkeypatch.setattr(picks, "_BUFFER", 50)
    values = rng.integers(0, 60, 1000).astype(np.float32)  # Many ties.
    best = picks.Best(pick, count, KEY)
    for part in np.split(values, [1, 30, 31, 400, 640]):
        best.add(part)
        assert best._kept <= count + 50
    for mine, whole in zip(best.picks(), pick(values, count, KEY), strict=True):
        np.testing.assert_array_equal(mine, whole)


def test_of_nothing_nothing_is_best():
    positions, scores = picks.Best(picks.smallest, 3, KEY).picks()
    assert len(positions) == len(scores) == 0


def brute_force_k_center(subset, labelled, count):
    """The definition, in float64."""
    subset, chosen = subset.astype(np.float64), [x.astype(np.float64) for x in labelled]
    positions = []
    for _ in range(count):
        nearest = [
            -1.0 if i in positions else min(np.sum((x - c) ** 2) for c in chosen)
            for i, x in enumerate(subset)
        ]
        positions.append(int(np.argmax(nearest)))
        chosen.append(subset[positions[-1]])
    return positions


@pytest.mark.parametrize("seed", range(8))
def test_k_center_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    offset = 100 * random.normal(size=7)  # far from the origin, where |x|^2 - 2xy + |y|^2 cancels
    subset, labelled = (
        (offset + random.normal(size=(n, 7))).astype(np.float32) for n in (40, 1 + seed % 5)
    )
    positions, _ = picks.k_center(subset, labelled, 15)
    np.testing.assert_array_equal(positions, brute_force_k_center(subset, labelled, 15))


def test_k_center_picks_duplicates_last_and_once_each():
    subset = np.float32([[0, 0], [3, 0], [3, 0], [0, 1]])
    positions, squared = picks.k_center(subset, np.float32([[0, 0]]), 4)
    np.testing.assert_array_equal(positions, [1, 3, 0, 2])
    np.testing.assert_array_equal(squared, [9, 1, 0, 0])


def test_core_set_equals_the_usual_loop_on_real_embeddings():
    config = smoke.get_config()
    stored = load(config).train_images
    images = jax.jit(jax.vmap(Normaliser.of(stored)))(stored[:400])
    learner = Learner(
        models.build_learner(config, 10, stored.shape[1:]), None, None, Classification(10),
        learners.Settings.of(config),
    )  # fmt: skip
    state = jax.jit(lambda key: learner.init(key, images[:1]))(KEY)
    embeddings = np.asarray(jax.jit(learner.infer)(state, images).embedding)
    subset, labelled = embeddings[:331], embeddings[331:]  # 69 centers, padded to 128
    positions, distances = picks.core_set(subset, 40, KEY, labelled)
    nearest = pairwise_distances(subset.astype(np.float64), labelled.astype(np.float64)).min(1)
    for position, distance in zip(positions, distances, strict=True):
        assert nearest[position] == nearest.max()
        np.testing.assert_allclose(distance, nearest[position], rtol=1e-5)
        to_pick = pairwise_distances(subset.astype(np.float64), subset[[position]].astype(float))
        nearest = np.minimum(nearest, to_pick[:, 0])


def brute_force_badge(key, left, right, count):
    """k-means++ in float64 on the products themselves, `[M, K * E]`."""
    products = np.einsum("mk,me->mke", left.astype(np.float64), right.astype(np.float64))
    products = products.reshape(len(left), -1)

    def draw(number, weights):
        uniform = float(jax.random.uniform(jax.random.fold_in(key, number)))
        total = np.cumsum(weights)
        return int(np.searchsorted(total, uniform * total[-1], side="right"))

    positions = [draw(0, np.ones(len(left)))]
    distances = [np.linalg.norm(products[positions[0]])]
    nearest = np.full(len(left), np.inf)
    for number in range(1, count):
        to_pick = np.sum((products - products[positions[-1]]) ** 2, axis=1)
        nearest = np.minimum(nearest, to_pick)
        positions.append(draw(number, nearest))
        distances.append(nearest[positions[-1]] ** 0.5)
    return positions, distances


@pytest.mark.parametrize("seed", range(5))
def test_badge_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    size, classes, features = random.integers((20, 2, 1), (61, 11, 33))
    left, right = (random.normal(size=(size, n)).astype(np.float32) for n in (classes, features))
    key, values = jax.random.key(seed), {"error": left, "embedding": right}
    positions, scores = picks.badge(values, 15, key)
    expected, distances = brute_force_badge(key, left, right, 15)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_allclose(scores, distances, rtol=1e-4)


def test_badge_draws_in_proportion_to_the_squared_distance():
    """Where the first pick is at the origin, the second is drawn by squared lengths."""
    values = {"error": np.float32([[0], [1], [2], [3]]), "embedding": np.ones((4, 1), np.float32)}
    keys = jax.random.split(KEY, 4000)
    draw = jax.jit(jax.vmap(lambda key: picks.k_means_plus_plus(key, *values.values(), 2)[0]))
    first, second = np.asarray(draw(keys)).T
    np.testing.assert_allclose(np.bincount(first, minlength=4) / 4000, 0.25, atol=0.03)
    share = np.bincount(second[first == 0], minlength=4) / (first == 0).sum()
    np.testing.assert_allclose(share, np.array([0, 1, 4, 9]) / 14, atol=0.06)


def test_badge_never_picks_an_image_twice_and_duplicates_last():
    random = np.random.default_rng(1)
    left, right = (random.normal(size=(6, n)).astype(np.float32) for n in (3, 4))
    order = random.permutation(np.repeat(np.arange(6), 5))
    values = {"error": left[order], "embedding": right[order]}
    for seed in range(5):
        positions, scores = picks.badge(values, 30, jax.random.key(seed))
        assert sorted(positions) == list(range(30))
        assert sorted(order[positions[:6]]) == list(range(6))
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores[6:], 0, atol=1e-2)


def test_badge_picks_what_is_all_alike_once_each():
    values = {"error": np.ones((7, 2), np.float32), "embedding": np.ones((7, 3), np.float32)}
    positions, scores = picks.badge(values, 7, KEY)
    assert sorted(positions) == list(range(7))
    np.testing.assert_array_equal(scores[1:], 0)
    certain = {**values, "error": np.zeros((7, 2), np.float32)}
    positions, scores = picks.badge(certain, 7, KEY)
    assert sorted(positions) == list(range(7))
    np.testing.assert_array_equal(scores, 0)


def test_badge_picks_depend_on_the_key():
    random = np.random.default_rng(0)
    values = {"error": random.normal(size=(50, 3)), "embedding": random.normal(size=(50, 4))}
    values = {name: x.astype(np.float32) for name, x in values.items()}
    first, again, other = (picks.badge(values, 5, jax.random.key(n))[0] for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert list(first) != list(other)


def test_badge_draws_nothing_of_weight_zero_however_sums_are_rounded(monkeypatch):
    """A sum of floats in parallel may grow where nothing is added: an image would come twice."""
    random = np.random.default_rng(0)
    lengths = random.random(10_000).astype(np.float32)
    nothing = np.append(0, random.choice(10_000, 1000, replace=False))
    lengths[nothing] = 0
    total = np.asarray(jax.jit(jnp.cumsum)(lengths**2))
    # Uniform numbers around those that would pick an image at no distance from the first one.
    near = np.floor(total[nothing] / total[-1] * 2**23)[:, None] + np.arange(-2, 3)
    uniforms = jnp.asarray(np.clip(near.ravel(), 0, 2**23 - 1) / 2**23, jnp.float32)
    monkeypatch.setattr(jax.random, "fold_in", lambda key, number: number)

    @jax.jit
    def second(uniform):
        draw = lambda number, dtype: jnp.where(number == 0, 0, uniform).astype(dtype)
        monkeypatch.setattr(jax.random, "uniform", draw)
        search = functools.partial(picks.k_means_plus_plus.__wrapped__, KEY, count=2)
        return search(left=jnp.asarray(lengths)[:, None], right=jnp.ones((10_000, 1)))[0][1]

    positions = np.asarray(jax.lax.map(second, uniforms, batch_size=16))
    assert (lengths[positions] > 0).all()


def largest_intermediate(jaxpr):
    """Entries of the largest array that a program makes, loops included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [out.aval.size for out in equation.outvars]
        sizes += [
            largest_intermediate(inner)
            for inner in jax.extend.core.jaxprs_in_params(equation.params)
        ]
    return max(sizes)


@pytest.mark.parametrize("count", [2, 100])
def test_memory_of_badge_is_linear(count):
    """Neither the products, M K E, nor all distances, M M, are ever there."""
    size, classes, features = 300, 40, 60
    search = functools.partial(picks.k_means_plus_plus, count=count)
    shapes = [jax.ShapeDtypeStruct((size, n), jnp.float32) for n in (classes, features)]
    program = jax.make_jaxpr(search)(KEY, *shapes)
    largest = largest_intermediate(program.jaxpr)
    assert size <= largest <= 2 * size * (classes + features) < size * size
