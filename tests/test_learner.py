"""The step of T and R: equation (2), freezing, detaching, dropout, learners without a Ranker."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import moons, smoke
from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm import losses
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import Batch, Schedule, derive, example_keys

KEY = derive(jax.random.key(0), 0)
IMAGES = jax.random.normal(jax.random.key(1), (10, 2))
BATCH = Batch(IMAGES, (IMAGES[:, 0] > 0.1).astype(jnp.int32))


@functools.cache
def built(ranked, after="freeze"):
    config = moons.get_config()
    config.ranker.update(when_inactive=after, loss_weight=0.5)
    return Learner(
        models.build_learner(config, 2, (2,)),
        models.build_ranker(config) if ranked else None,
        losses.ranking if ranked else None,
        Classification(2),
        learners.Settings.of(config),
    )


@functools.cache
def on_images():
    """With BatchNorm, and dropout in all places."""
    config = smoke.get_config()
    config.task.widths = (4, 4)
    config.mc_dropout.place = "stages"
    config.ranker.when_inactive = "freeze"
    return Learner(
        models.build_learner(config, 10, (8, 8, 1)), models.build_ranker(config), losses.margin,
        Classification(10), learners.Settings.of(config),
    )  # fmt: skip


@functools.cache
def begun():
    learner = on_images()
    images = jax.random.normal(jax.random.key(2), (6, 8, 8, 1))
    init = jax.jit(lambda key: learner.init(key, images[:1]))
    return learner, init(KEY), images


@functools.cache
def start(learner):
    return jax.jit(lambda key: learner.init(key, IMAGES[:1]))(KEY)


@functools.cache
def step_of(learner, **kwargs):
    return jax.jit(functools.partial(learner.step, **kwargs))


def one_step(learner, state, active=True, batch=BATCH, **kwargs):
    schedule = Schedule(jnp.int32(0), jnp.float32(0.1), jnp.array(active), jnp.array(False))
    return step_of(learner, **kwargs)(state, batch, schedule)


def differs(a, b):
    leaves = map(jax.tree.leaves, jax.device_get((a, b)))
    return any((x != y).any() for x, y in zip(*leaves, strict=True))


@functools.cache
def predict(learner):
    return jax.jit(learner.predict)


def test_total_loss_is_equation_2():
    learner = built(ranked=True)
    state = start(learner)
    new, metrics = one_step(learner, state)

    @functools.partial(jax.grad, has_aux=True)
    def total(params):
        variables = {"params": params["learner"]}
        logits, taps, *_ = learner.network.apply(variables, BATCH.images, train=True)
        each = losses.cross_entropy(logits, BATCH.labels)
        r = learner.ranker.apply({"params": params["ranker"]}, taps)
        task, ranking = each.mean(), losses.ranking(r, each)
        return task + 0.5 * ranking, {"task_loss": task, "ranking_loss": ranking}

    gradient, expected = jax.jit(total)(state.params)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    # Adam's first step has the size of the learning rate and the gradient's sign.
    for old, after, slope in zip(
        *map(jax.tree.leaves, (state.params, new.params, gradient)), strict=True
    ):
        clear = np.abs(slope) > 1e-4
        np.testing.assert_allclose(
            (after - old)[clear], (-0.1 * np.sign(slope))[clear], rtol=2e-3, atol=1e-5
        )


def test_a_frozen_ranker_stays_and_still_teaches_the_learner():
    learner = built(ranked=True)
    state = start(learner)
    frozen, metrics = one_step(learner, state, active=False)
    active, _ = one_step(learner, state, active=True)
    assert not differs(frozen.params["ranker"], state.params["ranker"])
    assert differs(active.params["ranker"], state.params["ranker"])
    # Algorithm 1: T is updated with the total loss before and after.
    assert not differs(frozen.params["learner"], active.params["learner"])
    plain, _ = one_step(built(ranked=False), start(built(ranked=False)))
    assert differs(frozen.params["learner"], plain.params["learner"])
    assert metrics["ranking_loss"] > 0


@pytest.mark.slow
def test_a_frozen_ranker_stays_with_weight_decay_and_momentum_too():
    learner, state, images = begun()
    batch = Batch(images, jnp.arange(6))
    state, _ = one_step(learner, state, batch=batch)
    frozen, _ = one_step(learner, state, active=False, batch=batch)
    assert not differs(frozen.params["ranker"], state.params["ranker"])
    assert differs(frozen.params["learner"], state.params["learner"])


def test_a_detached_ranker_learns_and_leaves_the_learner_alone():
    learner, plain = built(ranked=True, after="detach"), built(ranked=False)
    state = start(learner)
    detached, _ = one_step(learner, state, active=False)
    attached, _ = one_step(learner, state, active=True)
    without, _ = one_step(plain, start(plain))
    assert differs(detached.params["ranker"], state.params["ranker"])
    assert differs(attached.params["learner"], detached.params["learner"])
    for a, b in zip(
        jax.tree.leaves(detached.params["learner"]),
        jax.tree.leaves(without.params["learner"]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_learner_without_ranking_loss_has_no_ranker_and_the_same_weights():
    plain, ranked = start(built(ranked=False)), start(built(ranked=True))
    assert plain.params.keys() == {"learner"}
    assert ranked.params.keys() == {"learner", "ranker"}
    assert not differs(plain.params["learner"], ranked.params["learner"])
    _, metrics = one_step(built(ranked=False), plain)
    assert metrics.keys() == {"task_loss"}


def test_every_cycle_has_its_own_first_weights():
    learner = built(ranked=True)
    init = jax.jit(lambda cycle: learner.init(KEY, IMAGES[:1], cycle))
    states = start(learner), init(0), init(1)
    for name in ("learner", "ranker"):
        first, again, second = (state.params[name] for state in states)
        assert not differs(first, again)
        assert differs(first, second)


def test_what_devices_must_agree_on_passes_through_mean():
    learner = built(ranked=True)
    state, seen = start(learner), []

    def mean(tree):
        seen.append(jax.tree.structure(tree))
        return jax.tree.map(lambda x: x * 0, tree)

    new, metrics = one_step(learner, state, mean=mean)
    assert not differs(new.params, state.params)
    assert not any(metrics.values())
    assert seen == [jax.tree.structure((state.params, metrics))]


def test_batch_statistics_are_the_batchs_and_predictions_use_the_running_ones():
    learner, state, images = begun()
    new, _ = one_step(learner, state, batch=Batch(images, jnp.arange(6)))
    kernel = state.params["learner"]["Conv_0"]["kernel"]
    stem = np.asarray(
        jax.lax.conv_general_dilated(
            images, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    found = new.stats["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    expected = 0.9 + 0.1 * stem.var((0, 1, 2))
    np.testing.assert_allclose(found["var"], expected, rtol=1e-4, atol=1e-6)
    together = predict(learner)(new, images).logits
    alone = jax.jit(jax.vmap(lambda image: learner.predict(new, image[None]).logits[0]))(images)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


def test_units_are_dropped_by_the_examples_keys_and_only_with_keys():
    learner, state, images = begun()
    batch = Batch(images, jnp.arange(6))
    loss = lambda keys: one_step(learner, state, batch=batch._replace(keys=keys))[1]["task_loss"]
    keys, others = (example_keys(jax.random.key(n), jnp.arange(6)) for n in range(2))
    assert loss(keys) == loss(keys)
    assert len({float(loss(None)), float(loss(keys)), float(loss(others))}) == 3
    whole = predict(learner)(state, images, keys).logits
    assert (np.asarray(whole) != predict(learner)(state, images).logits).any()
    turned = predict(learner)(state, images[::-1], keys[::-1]).logits[::-1]
    np.testing.assert_allclose(whole, turned, rtol=1e-5, atol=1e-6)


def test_what_is_said_is_the_prediction_and_the_rankers():
    learner = built(ranked=True)
    state = start(learner)

    @jax.jit
    def both(images):
        output = learner.predict(state, images)
        ranks = learner.ranker.apply({"params": state.params["ranker"]}, output.taps)
        return learner.infer(state, images), output, ranks

    said, output, expected = both(IMAGES)
    np.testing.assert_array_equal(said.logits, output.logits)
    np.testing.assert_array_equal(said.embedding, output.embedding)
    np.testing.assert_array_equal(said.predicted, expected)
    plain = built(ranked=False)
    assert jax.eval_shape(plain.infer, start(plain), IMAGES).predicted is None


def test_a_batch_with_a_label_too_few_is_refused():
    learner = built(ranked=True)
    with pytest.raises(AssertionError):
        one_step(learner, start(learner), batch=BATCH._replace(labels=BATCH.labels[:9]))


@pytest.mark.parametrize("connected", [True, False])
def test_connected_if(connected):
    value, gradient = jax.value_and_grad(
        lambda x: learners._connected_if(jnp.array(connected), x) ** 2
    )(3.0)
    assert value == 9
    assert gradient == (6 if connected else 0)


def test_class_weights_weigh_the_task_loss_alone():
    learner = built(ranked=True)
    state, weights = start(learner), jnp.array([0.5, 3.0])
    schedule = Schedule(np.int32(0), np.float32(0.1), np.array(True), np.array(False))
    plain, weighted = (
        step_of(learner)(
            state, BATCH, jax.tree.map(jnp.asarray, schedule._replace(class_weights=w))
        )[1]
        for w in (None, weights)
    )
    each = losses.cross_entropy(predict(learner)(state, BATCH.images).logits, BATCH.labels)
    expected = np.average(each, weights=weights[BATCH.labels])
    np.testing.assert_allclose(weighted["task_loss"], expected, rtol=1e-5)
    assert plain["task_loss"] != weighted["task_loss"]
    assert plain["ranking_loss"] == weighted["ranking_loss"]
