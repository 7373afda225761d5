"""Optimisers and schedules against their definitions."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import optim


def test_sgd_is_pytorchs():
    config = ConfigDict({"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.1})
    params, state = jnp.array(2.0), optim.optimiser(config).init(jnp.array(2.0))
    expected, velocity = 2.0, 0.0
    for gradient, learning_rate in ((1.0, 0.5), (-3.0, 0.5), (0.5, 0.05)):
        params, state = optim.update(config, learning_rate, jnp.array(gradient), state, params)
        velocity = 0.9 * velocity + gradient + 0.1 * expected
        expected -= learning_rate * velocity
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_adam_moves_by_the_learning_rate_at_first():
    config = ConfigDict({"optimiser": "adam", "momentum": 0.0, "weight_decay": 0.0})
    params = jnp.array([1.0, -1.0])
    state = optim.optimiser(config).init(params)
    params, _ = optim.update(config, 0.01, jnp.array([5.0, -0.001]), state, params)
    np.testing.assert_allclose(params, [0.99, -0.99], rtol=1e-4)


def test_learning_rate_drops_once():
    config = ConfigDict({"learning_rate": 0.1, "decay_at": 0.8, "decay_factor": 0.1})
    rates = optim.decayed(config, np.array([0.0, 0.795, 0.8, 0.999]))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_keep_if():
    new, old = {"a": jnp.ones(2)}, {"a": jnp.zeros(2)}
    assert optim.keep_if(jnp.array(True), new, old)["a"].sum() == 2
    assert optim.keep_if(jnp.array(False), new, old)["a"].sum() == 0
