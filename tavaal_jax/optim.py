"""Optimisers and schedules from the config.

The learning rate is an argument of every update and not a part of the optimiser, so that one
compiled step serves all cycles, whose schedules have different lengths.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def optimiser(config) -> optax.GradientTransformation:
    """The update direction of a config group with `optimiser`, `momentum` and `weight_decay`.

    SGD is PyTorch's: `v = momentum v + (g + weight_decay p)`.
    """
    decay = (
        optax.add_decayed_weights(config.weight_decay) if config.weight_decay else optax.identity()
    )
    if config.optimiser == "sgd":
        return optax.chain(decay, optax.trace(decay=config.momentum))
    return optax.chain(decay, optax.scale_by_adam())


def update(config, learning_rate, gradients, optimiser_state, params):
    """One step of the optimiser of `config`: `-> params, optimiser_state`."""
    direction, optimiser_state = optimiser(config).update(gradients, optimiser_state, params)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)
    return params, optimiser_state


def keep_if(condition, new, old):
    """`new` where the scalar `condition` holds, else `old`: a parameter update switched off."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def decayed(config, progress: np.ndarray) -> np.ndarray:
    """Learning rate at `progress` (fraction of the epochs begun, `[n]`): one drop by
    `decay_factor`."""
    factor = np.where(progress >= config.decay_at, config.decay_factor, 1.0)
    return (config.learning_rate * factor).astype(np.float32)
