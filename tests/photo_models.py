"""Models of photographs, untrained, as a cycle of people's labels leaves them."""

import jax
import numpy as np
from trials import KEY

from configs import folder_from_scratch as folder_config
from tavaal_jax import Dataset
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.study import cycle, setup
from tavaal_jax.study import model as fitted

CLASSES = ("cat", "=dog", "owl")


def config_of(**changes):
    """A tiny network for photos of 16 pixels, of the widths that Winograd is used for."""
    config = folder_config.get_config()
    config.batch_size = 8
    config.task.update(widths=(4, 16), blocks=(1, 1))
    config.folder.image_size = 16
    config.update_from_flattened_dict(changes)
    return config


def save(folder, config, shape=None, classes=CLASSES):
    """Writes weights.npz and model.json of a network with statistics that are not the first."""
    shape = shape or (config.folder.image_size, config.folder.image_size, config.folder.channels)
    images = np.random.default_rng(0).integers(0, 256, (12, *shape)).astype(np.uint8)
    labels = np.arange(12) % len(classes)
    data = Dataset.from_arrays(images, labels, images, labels, class_names=classes)
    method = METHODS["random"]
    made = setup.prepare(
        config, method, data, setup.place(config, data), SimulatedOracle(data.train_labels)
    )
    state = cycle.start(made, KEY)
    # So that photos differ in what is said of them.
    stats = jax.tree.map(lambda x: 0.1 * x + 0.01, state.learner.stats)
    params = state.learner.params
    last = jax.tree.map(lambda x: 3 * x, params["learner"]["Dense_0"])
    params = {**params, "learner": {**params["learner"], "Dense_0": last}}
    state = state.replace(learner=state.learner.replace(params=params, stats=stats))
    fitted.from_state(made, state, fitted.DatasetInfo.from_dataset(data)).save(folder)
    return folder


def images(count, shape=(16, 16, 3)):
    """Of every brightness, some noise on it."""
    random = np.random.default_rng(1)
    bright = np.linspace(0, 200, count).reshape(-1, *(1,) * len(shape))
    return (bright + random.uniform(0, 55, (count, *shape))).astype(np.uint8)
