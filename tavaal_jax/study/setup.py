"""Set-up shared by all trials of a method: its programs, and the data on the devices."""

from typing import NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm import near_duplicates, problems
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.data import dataset as datasets
from tavaal_jax.data import pool
from tavaal_jax.data.dataset import Dataset, MadeBy
from tavaal_jax.data.oracle import Oracle
from tavaal_jax.data.pictures.lazy import LazyPictures
from tavaal_jax.data.pool import Resident, Streamed
from tavaal_jax.engine import devices, memory, programs
from tavaal_jax.engine.programs import Programs
from tavaal_jax.models import vae
from tavaal_jax.report import diagnostics

Tree = TypeVar("Tree")


class Setup(NamedTuple):
    """Programs, data and oracle that all trials of a method share."""

    config: ConfigDict
    method: Method
    problem: Problem
    programs: Programs
    train: Resident | Streamed
    """Training images without labels, which are in the state."""
    test: Resident | Streamed
    oracle: Oracle
    plane: diagnostics.Plane | None = None
    """A grid around the training points, where they are points of the plane."""
    available: np.ndarray | None = None
    """Which images may be picked or learned from, bool `[N]`; None: all."""
    made_by: MadeBy | None = None
    """The backbone that has made the features, where it is known."""
    folds: np.ndarray | None = None
    """Fold of near-duplicates of each image, int32 `[N]`; None: each is alone."""

    @property
    def size(self) -> int:
        """Number N of training images."""
        return len(self.train.images)

    @property
    def available_size(self) -> int:
        """Number of images that may be picked or learned from."""
        return self.size if self.available is None else int(self.available.sum())

    def unlabelled(self, labelled: np.ndarray) -> np.ndarray:
        """Mask of U, bool `[N]`, from that of L."""
        return ~labelled if self.available is None else ~labelled & self.available

    def candidates(self, labelled: np.ndarray) -> np.ndarray:
        """Which of U may be picked, bool `[N]`: of near-duplicates one, if none has a label."""
        return near_duplicates.one_of_each(self.folds, self.unlabelled(labelled), labelled)

    def place_beside_images(self, tree: Tree) -> Tree:
        """Puts arrays `[N, ...]` where the training images are: on the devices or on the host."""
        if not isinstance(self.train, Streamed):
            return devices.place(tree)
        on_host: Tree = jax.tree.map(np.asarray, tree)
        return on_host

    def with_labels(self, labels: np.ndarray) -> Resident | Streamed:
        """The training set with labels int32 `[N]`, -1 where an image has none."""
        return pool.with_labels(self.train, self.place_beside_images(labels))


Placed = tuple[Resident | Streamed, Resident | Streamed]
"""Training and test set."""


def thumbnail_size(config: ConfigDict, shape: tuple[int, ...]) -> int:
    """Side of the thumbnails that a VAE sees of images of `shape`; 0: it sees the images."""
    if len(shape) == 1:
        return 0
    size: int = config.vae.image_size or vae.image_size(*shape[:2])
    return size if size < max(shape[:2]) else 0


def place(config: ConfigDict, dataset: Dataset) -> Placed:
    """Puts training and test set on the devices, or leaves them on the host, as the config says.

    With `data_placement="auto"` they go to the devices if they take less than half of a device's
    memory and need no decoding. The training set is without labels.
    """
    normalise = datasets.normaliser(config, dataset.train_images, dataset.image_statistics)
    sets = dataset.resident(normalise, thumbnail_size(config, dataset.shape))
    arrays = jax.tree.leaves(sets)
    decoded = not any(isinstance(x, LazyPictures) for x in arrays)
    fits = decoded and sum(x.nbytes for x in arrays) < memory.device_bytes() / 2
    if config.data_placement == "resident" or (config.data_placement == "auto" and fits):
        with memory.explain_full(
            f"{len(dataset.train_images):,} images", f"give {memory.STREAMED}"
        ):
            placed: Placed = devices.place(jax.tree.map(np.asarray, sets))
        return placed
    normalise = devices.place(normalise)
    train, test = (Streamed(one.images, one.labels, normalise, one.thumbnails) for one in sets)
    return train, test


def prepare(
    config: ConfigDict,
    method: Method,
    dataset: Dataset,
    placed: Placed,
    oracle: Oracle,
) -> Setup:
    """Builds a method's programs for a data set that :func:`place` has placed."""
    plane = None
    if dataset.is_plane:
        plane = diagnostics.Plane.around(np.asarray(dataset.train_images).astype(np.float32))
    problem = problems.of(config, dataset.classes, dataset.has_maps)
    return Setup(
        config,
        method,
        problem,
        programs.build(config, method, dataset.shape, problem),
        *placed,
        oracle,
        plane,
        dataset.available,
        dataset.made_by,
        dataset.folds,
    )
