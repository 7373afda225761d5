"""The train step of T and R: equation (2), freezing, detaching, learners without a Ranker."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tavaal_jax.methods import METHODS
from tavaal_jax.state import derive

from configs import moons
from tavaal_jax import losses, parallel, programs, task
from tavaal_jax.data import load

KEY = derive(jax.random.key(0), 0)


@functools.cache
def prepared(method, after="freeze"):
    config = moons.get_config()
    config.ranker.after = after
    config.ranker.eta = 0.5
    dataset = load(config)
    return programs.prepare(config, METHODS[method], dataset, dataset.on_device())


def one_step(run, state, active=True):
    """A step without pmap, on one device's axis."""
    images = run.train.plain(jnp.arange(10))
    shared = {"learning_rate": jnp.float32(0.1), "ranker_active": jnp.array(active)}
    step = lambda s: task.train_step(run, s, images, run.train.labels[:10], shared)
    # A vmapped axis of size one stands in for the devices.
    state, metrics = jax.vmap(step, axis_name=parallel.AXIS, in_axes=None, out_axes=0, axis_size=1)(
        state
    )
    return jax.tree.map(lambda x: x[0], (state, metrics))


def start(run):
    return run.programs["init"](run.train, KEY, 0)["task"]


def differs(a, b):
    return any(jnp.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_total_loss_is_equation_2():
    run = prepared("tavaal")
    state = start(run)
    _, metrics = one_step(run, state)
    images, labels = run.train.plain(jnp.arange(10)), run.train.labels[:10]
    output = task.predict(run, state, images)
    image_losses = losses.cross_entropy(output.logits, labels)
    predicted = run.networks.ranker.apply({"params": state.ranker_params}, output.taps)
    np.testing.assert_allclose(metrics["task_loss"], image_losses.mean(), rtol=1e-5)
    expected = losses.ranking(predicted, image_losses)
    np.testing.assert_allclose(metrics["ranking_loss"], expected, rtol=1e-5)

    def total(params):
        logits, taps, _ = run.networks.learner.apply({"params": params["t"]}, images, train=True)
        each = losses.cross_entropy(logits, labels)
        r = run.networks.ranker.apply({"params": params["r"]}, taps)
        return each.mean() + 0.5 * losses.ranking(r, each)

    gradient = jax.grad(total)({"t": state.learner_params, "r": state.ranker_params})
    new, _ = one_step(run, state)
    # Adam's first step has the size of the learning rate and the gradient's sign.
    for old, after, slope in zip(
        jax.tree.leaves((state.learner_params, state.ranker_params)),
        jax.tree.leaves((new.learner_params, new.ranker_params)),
        jax.tree.leaves((gradient["t"], gradient["r"])),
        strict=True,
    ):
        clear = np.abs(slope) > 1e-4
        np.testing.assert_allclose(
            (after - old)[clear], (-0.1 * np.sign(slope))[clear], rtol=2e-3, atol=1e-5
        )


def test_a_frozen_ranker_stays_and_still_teaches_the_learner():
    run = prepared("tavaal")
    state = start(run)
    frozen, _ = one_step(run, state, active=False)
    active, _ = one_step(run, state, active=True)
    assert not differs(frozen.ranker_params, state.ranker_params)
    assert not differs(frozen.ranker_optimiser, state.ranker_optimiser)
    assert differs(active.ranker_params, state.ranker_params)
    # Algorithm 1: T is updated with the total loss before and after.
    assert not differs(frozen.learner_params, active.learner_params)


def test_a_detached_ranker_learns_and_leaves_the_learner_alone():
    run, plain = prepared("tavaal", "detach"), prepared("random")
    state = start(run)
    detached, _ = one_step(run, state, active=False)
    attached, _ = one_step(run, state, active=True)
    without, _ = one_step(plain, start(plain))
    assert differs(detached.ranker_params, state.ranker_params)
    assert differs(attached.learner_params, detached.learner_params)
    for a, b in zip(
        jax.tree.leaves(detached.learner_params),
        jax.tree.leaves(without.learner_params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_method_without_ranking_loss_has_no_ranker_and_the_same_learner():
    plain, ranked = start(prepared("random")), start(prepared("tavaal"))
    assert plain.ranker_params is None
    assert plain.ranker_optimiser is None
    assert not differs(plain.learner_params, ranked.learner_params)


@pytest.mark.parametrize("connected", [True, False])
def test_connected_if(connected):
    value, gradient = jax.value_and_grad(
        lambda x: task._connected_if(jnp.array(connected), x) ** 2
    )(3.0)
    assert value == 9
    assert gradient == (6 if connected else 0)
