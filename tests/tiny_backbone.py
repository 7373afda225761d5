"""A frozen backbone that is computed in no time: a row of NETWORKS and a file of its weights."""

import jax
import numpy as np
from flax import linen as nn

import tavaal_jax
from tavaal_jax.models.layers import TaskOutput
from tavaal_jax.models.networks import Published

NAME, SIZE, FEATURES = "tiny_backbone", 8, 6


class Tiny(nn.Module):
    """One layer of features, and logits."""

    classes: int

    @nn.compact
    def __call__(self, images, train, dropout_keys=None):
        del train, dropout_keys
        found = nn.tanh(nn.Dense(FEATURES)(images.reshape(images.shape[0], -1)))
        return TaskOutput(nn.Dense(self.classes)(found), (found,), found, found)


def load(tensors, network, params, stats):
    """The file's one matrix, in the layer of features."""
    del network
    if "w" not in tensors:
        raise ValueError("w is missing: the network needs one")
    layer = {**params["Dense_0"], "kernel": np.asarray(tensors["w"], np.float32)}
    return {**params, "Dense_0": layer}, stats


def row():
    """A row of NETWORKS."""
    published = Published(
        load,
        size=SIZE,
        mean=(0.5,) * 3,
        deviation=(0.25,) * 3,
        frozen=lambda tensors, shape: Tiny(1),
    )
    return tavaal_jax.Network(
        lambda config, classes, shape, axis_name: Tiny(classes), published=published
    )


def add():
    """Adds the row, in a process of its own."""
    tavaal_jax.NETWORKS[NAME] = row()


def write(path, seed=0):
    """Writes a file of weights, and returns its name."""
    values = np.random.default_rng(seed).normal(size=(SIZE * SIZE * 3, FEATURES)) / 14
    np.savez(path, w=values.astype(np.float32))
    return str(path)


def expected(images, weights):
    """Features of images uint8 `[n, 8, 8, 3]`, by NumPy."""
    with np.load(weights) as file:
        flat = ((images / 255 - 0.5) / 0.25).reshape(len(images), -1)
        return np.tanh(flat @ file["w"].astype(np.float64)).astype(np.float32)


def settings(config, weights):
    """A config with it, in place."""
    config.backbone.update(name=NAME, weights=weights)
    return config


def slow_down(seconds):
    """Makes each image take that long."""
    plain = Tiny.__call__

    def slow(self, images, train, dropout_keys=None):
        def wait(x):
            import time

            time.sleep(seconds)
            return x

        shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
        return plain(self, jax.pure_callback(wait, shape, images), train, dropout_keys)

    Tiny.__call__ = slow
