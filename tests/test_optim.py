"""Optimisers and schedules against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import moons
from tavaal_jax.algorithm import optim
from tavaal_jax.algorithm.optim import Optimiser


def descend(settings, learning_rate, gradient, params, state, mean=optim.alone):
    """A step down a loss with this gradient."""
    loss = lambda p: (jnp.vdot(gradient, p), ("kept", {"slope": jnp.sum(gradient)}))
    return optim.step(settings, learning_rate, loss, params, state, mean)


def test_sgd_is_pytorchs():
    settings = Optimiser("sgd", 0.5, momentum=0.9, weight_decay=0.1)
    params, state = jnp.array(2.0), optim.transformation(settings).init(jnp.array(2.0))
    expected, velocity = 2.0, 0.0
    for gradient, learning_rate in ((1.0, 0.5), (-3.0, 0.5), (0.5, 0.05)):
        params, state, _, _ = descend(settings, learning_rate, jnp.array(gradient), params, state)
        velocity = 0.9 * velocity + gradient + 0.1 * expected
        expected -= learning_rate * velocity
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_adam_moves_by_the_learning_rate_at_first():
    settings = Optimiser("adam", 0.01, momentum=0.0)
    params = jnp.array([1.0, -1.0])
    state = optim.transformation(settings).init(params)
    params, *_ = descend(settings, 0.01, jnp.array([5.0, -0.001]), params, state)
    np.testing.assert_allclose(params, [0.99, -0.99], rtol=1e-4)


def test_adam_is_its_definition_over_steps_with_weight_decay():
    settings = Optimiser("adam", 0.01, weight_decay=0.1)
    params, state = jnp.array(2.0), optim.transformation(settings).init(jnp.array(2.0))
    expected, first, second = 2.0, 0.0, 0.0
    for number, gradient in enumerate((1.0, -3.0, 0.5), start=1):
        params, state, _, _ = descend(settings, 0.01, jnp.array(gradient), params, state)
        total = gradient + 0.1 * expected
        first, second = 0.9 * first + 0.1 * total, 0.999 * second + 0.001 * total**2
        change = first / (1 - 0.9**number) / ((second / (1 - 0.999**number)) ** 0.5 + 1e-8)
        expected -= 0.01 * change
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_gradients_and_metrics_are_averaged_over_devices_and_what_is_kept_is_not():
    settings = Optimiser("sgd", 1.0, momentum=0.0)
    params = jnp.array([1.0, -1.0])
    state, gradient = optim.transformation(settings).init(params), jnp.array([3.0, 4.0])
    met = []

    def mean(tree):
        met.append(len(jax.tree.leaves(tree)))
        return jax.tree.map(lambda x: x / 2, tree)

    params, _, kept, metrics = descend(settings, 0.5, gradient, params, state, mean)
    np.testing.assert_allclose(params, [1.0 - 0.75, -1.0 - 1.0])
    assert (kept, metrics["slope"], met) == ("kept", 3.5, [2])


def test_an_optimiser_is_read_from_a_config():
    config = moons.get_config()
    assert Optimiser.of(config.task) == ("adam", 0.1, 0.9, 0.0)
    assert Optimiser.of(config.vae) == ("adam", 0.01, 0.9, 0.0)


def scheduled(first, count, steps_per_epoch, **changes):
    config = moons.get_config()
    config.epochs = 200
    config.update_from_flattened_dict({"task.decay_at": 0.8, "task.decay_factor": 0.1, **changes})
    return optim.schedule(config, first, count, steps_per_epoch)


def test_learning_rate_drops_once():
    rates = scheduled(0, 200, 1).learning_rate
    np.testing.assert_allclose(rates[[0, 159, 160, 199]], [0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    assert len(np.unique(rates)) == 2
    assert rates.dtype == np.float32


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_a_schedule_changes_at_the_first_step_of_an_epoch(steps_per_epoch):
    changes = {"ranker.active_fraction": 0.6}
    rows = scheduled(0, 200 * steps_per_epoch, steps_per_epoch, **changes)
    epochs = np.arange(200).repeat(steps_per_epoch)
    np.testing.assert_array_equal(rows.learning_rate < 0.05, epochs >= 160)
    np.testing.assert_array_equal(rows.ranker_active, epochs < 120)
    np.testing.assert_array_equal(rows.first_epoch, epochs < 1)


def test_rows_of_a_schedule_do_not_depend_on_where_it_begins():
    whole, part = scheduled(0, 600, 3), scheduled(470, 20, 3)
    assert whole.class_weights is part.class_weights is None
    for a, b in zip(whole[:-1], part[:-1], strict=True):
        np.testing.assert_array_equal(a[470:490], b)
