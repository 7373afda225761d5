"""The images that are labelled first: at random, or by a method that needs no label, `first_by`."""

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import BASELINE, METHODS
from tavaal_jax.data import plans, pool
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.study import features as backbones
from tavaal_jax.study.setup import Setup

_FEW = 16  # features below which a direction says too little


def choose(setup: Setup, key: jax.Array) -> np.ndarray:
    """Indices of a trial's first `initial` images; the same for all methods.

    Runs on one device: only the first of several processes calls it.
    """
    config = setup.config
    candidates = setup.candidates(np.zeros(setup.size, bool))
    if config.first_by == BASELINE:
        order = plans.initial(key, setup.size, setup.size)
        return order[candidates[order]][: config.initial]
    free = np.flatnonzero(candidates)
    images = setup.train.images
    stored = np.asarray(images) if isinstance(images, jax.Array) else images
    features = comparable(config, pool.take_rows(stored, free), setup.train.normalise)
    return free[by_method(config, features, config.initial, key)]


def comparable(config: ConfigDict, features: np.ndarray, normalise: Normaliser) -> np.ndarray:
    """Features `[n, F]` of one scale: those of a backbone as they are, others normalised."""
    features = features.astype(np.float32)
    if backbones.is_on(config):
        return features
    mean, std = (np.asarray(x)[None] for x in (normalise.mean, normalise.std))
    scaled: np.ndarray = (features - mean) / std
    return scaled


def by_method(
    config: ConfigDict,
    features: np.ndarray,
    count: int,
    key: jax.Array,
    labelled: np.ndarray | None = None,
) -> np.ndarray:
    """Positions of `count` of `features [n, F]`, best first, as the method `first_by` picks them.

    `labelled [L, F]` are the features of images that have a label already. 16 features or more are
    put on unit length.
    """
    known = None if labelled is None or not len(labelled) else _scaled(labelled)
    positions, _ = METHODS[config.first_by].pick(_scaled(features), count, key, known)
    return np.asarray(positions)


def _scaled(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    if features.shape[1] < _FEW:
        return features
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)
