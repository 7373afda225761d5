"""A learner in scikit-activeml's shape: arrays in, indices and probabilities out.

Labels that nobody has given are `missing_label` in `y`. Nothing is written but by `export`.
"""

import pathlib
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, ClassifierMixin

from tavaal_jax import config as configs
from tavaal_jax.algorithm import picks as picking
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import Dataset, plans
from tavaal_jax.engine import devices
from tavaal_jax.errors import UserError
from tavaal_jax.study import checks, export
from tavaal_jax.study import query as queries
from tavaal_jax.study.model import About, Model, from_state


class Learner(ClassifierMixin, BaseEstimator):
    """Task learner, method and all that it needs, behind `fit`, `query` and `predict_proba`.

    `X` are images uint8 `[N, H, W, C]` or `[N, H, W]`, or features `[N, F]`; `y [N]` are labels of
    any kind that sorts, `missing_label` where unknown. Raises UserError for what does not fit. It
    can be pickled, with its model; the next `query` then trains anew.
    """

    def __init__(
        self,
        method: str = "coreset",
        config: ConfigDict = None,
        random_state: int = 0,
        missing_label: Any = np.nan,
        cycle: int = 0,
    ):
        """`method` is a name in METHODS; `config`, None: small networks, see `settings`.

        `random_state` is the seed; with the same one, and `cycle` the number of requests that were
        answered before, picks are those of the command line.
        """
        self.method, self.config, self.random_state = method, config, random_state
        self.missing_label, self.cycle = missing_label, cycle

    def fit(self, X: Any, y: Any) -> Self:
        """Trains T, and what the method has beside it, on what is labelled."""
        known, codes, classes = self._coded(y)
        if len(classes) < 2:
            raise UserError(
                f"y has {int(known.sum())} labels of {len(classes)} classes: label images of two"
                " classes or more"
            )
        self._fit(_dataset(X, codes, classes), classes)
        return self

    def query(
        self,
        X: Any,
        y: Any,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Indices in `X` of the `batch_size` images to be labelled next, best first.

        `candidates`, indices or a mask, are those that may be picked; None: all that are not
        labelled. With `return_utilities` also `[batch_size, N]`: row k is what the k-th pick was
        chosen by, the larger the better, nan where an image could not be picked. It trains on `y`
        first, unless `fit` has been given the same. Without any label it draws at random.
        """
        known, codes, classes = self._coded(y)
        free = self._free(known, candidates)
        if not (_is_whole(batch_size) and 1 <= batch_size <= int(free.sum())):
            raise UserError(
                f"batch_size is {batch_size!r}: give 1 to {int(free.sum())}, the images that can be"
                " picked"
            )
        dataset = _dataset(X, codes, classes, known | free)
        if not known.any():
            # What is wrong is said now, not after the first labels.
            configs.check(self._settings(dataset))
            return self._drawn(free, batch_size, return_utilities)
        if len(classes) < 2:
            raise UserError(
                f"y has labels of {len(classes)} class: label images of two classes or more"
            )
        self._fit(dataset, classes)
        found = queries.pick(self._trained, batch_size, 0 if candidates is not None else None)
        if not return_utilities:
            return found.indices
        return found.indices, self._utilities(found, len(free))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each of `classes_`: `[n, ...] -> [n, K]`."""
        return self._model().predict_proba(X)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest of `classes_`: `[n, ...] -> [n]`."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def export(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Writes the model that `predict_proba` uses; returns its folder, for `load_model`."""
        path = pathlib.Path(folder).expanduser()
        self._model().save(path)
        export.add_export(path)
        return path

    # What is behind it

    def _coded(self, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which labels are known, bool `[N]`; their numbers, -1 for none; the classes."""
        labels = np.asarray(y, dtype=object)
        if labels.ndim != 1:
            raise UserError(f"y has shape {labels.shape}: give a label for each image, [N]")
        known = np.array([not self._is_missing(label) for label in labels], bool)
        texts = [isinstance(label, str) for label in labels[known]]
        if any(texts) and (
            not all(texts) or (self._is_missing(np.nan) and "nan" in labels.tolist())
        ):
            raise UserError(
                "y mixes texts with other labels, or with nan, which is a text among them: give"
                " one kind, and missing labels as None in an array of dtype=object"
            )
        try:
            classes, numbers = np.unique(np.array(labels[known].tolist()), return_inverse=True)
        except TypeError as error:
            raise UserError(f"y mixes labels that do not sort ({error}): give one kind") from error
        if classes.dtype.kind == "f" and not np.isfinite(classes).all():
            raise UserError(f"y has the label {classes[-1]}: give finite numbers, or texts")
        if classes.dtype.kind == "f" and (classes == np.round(classes)).all():
            classes = classes.astype(np.int64)  # Numbers, among which nan is a float.
        codes = np.full(len(labels), -1, np.int32)
        codes[known] = numbers
        return known, codes, classes

    def _is_missing(self, label: Any) -> bool:
        missing = self.missing_label
        if missing is None:
            return label is None
        is_nan = isinstance(missing, float) and np.isnan(missing)
        if is_nan:
            return label is None or (isinstance(label, float | np.floating) and np.isnan(label))
        return bool(label == missing)

    def _free(self, known: np.ndarray, candidates: Any) -> np.ndarray:
        """Which images may be picked, bool `[N]`."""
        if candidates is None:
            return ~known
        given = np.asarray(candidates)
        free = np.zeros(len(known), bool)
        try:
            if given.ndim != 1 or (given.size and given.dtype.kind not in "biu"):
                raise TypeError("these are none")
            free[given.astype(bool if given.dtype.kind == "b" else np.int64)] = True
        except (IndexError, ValueError, TypeError) as error:
            raise UserError(
                f"candidates are {given.dtype} {given.shape} ({error}): give indices of images, or"
                " a mask [N]"
            ) from error
        return free & ~known

    def _fit(self, dataset: Dataset, classes: np.ndarray) -> None:
        """Trains, unless that is what was trained last; where it cannot, what was there stays."""
        config = self._settings(dataset)
        available = None if dataset.available is None else dataset.available.tobytes()
        fingerprint, names = dataset.fingerprint(), classes.tolist()
        place = (configs.plain(config), self.method, self.cycle, fingerprint, names, available)
        if getattr(self, "_place", None) == place:
            return
        self._trained = queries.train(config, dataset, self.method, self.cycle)
        self.classes_ = classes
        about = About(
            dataset.train_ids, dataset.class_names, dataset.shape, str(dataset.train_images.dtype)
        )
        self._fitted = from_state(self._trained.setup, self._trained.state, about)
        self._place = place

    def _settings(self, dataset: Dataset) -> ConfigDict:
        checks.check_name("method", self.method, tuple(METHODS))
        config = settings(dataset) if self.config is None else self.config
        if not isinstance(config, ConfigDict):
            raise UserError(
                f"config is a {type(config).__name__}: give one of tavaal_jax.default_config() or"
                " load_config(), or None"
            )
        if not (_is_whole(self.cycle) and self.cycle >= 0):
            raise UserError(f"cycle is {self.cycle!r}: give 0, or how many requests there were")
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = self._seed()
        return config

    def _seed(self) -> int:
        if not _is_whole(self.random_state):
            raise UserError(
                f"random_state is {self.random_state!r}: give a whole number, the seed of all"
            )
        return int(self.random_state)

    def _model(self) -> Model:
        if not hasattr(self, "_fitted"):
            raise UserError("this Learner has not been fitted: call fit, or query, first")
        return self._fitted

    def __getstate__(self) -> dict[str, Any]:
        """A pickle keeps the model; programs and the pool it leaves out."""
        state = dict(super().__getstate__())
        for name in ("_trained", "_place"):
            state.pop(name, None)
        return state

    def _drawn(self, free, count, return_utilities):
        """The cold start: random images, in the order of the command line's first request."""
        key = derive(derive(jax.random.key(self._seed()), 0), Stream.INITIAL)
        order = plans.initial(key, len(free), len(free))
        indices = order[free[order]][:count]
        if not return_utilities:
            return indices
        value = np.empty(len(free))
        value[order] = -np.arange(len(free)) / len(free)
        return indices, _rows(np.tile(value, (count, 1)), free, indices)

    def _utilities(self, found: queries.Query, size: int) -> np.ndarray:
        subset, value, labelled = queries.values(self._trained)
        pick, count = METHODS[self.method].pick, len(found.indices)
        every = np.full((count, size), np.nan)
        if pick in (picking.smallest, picking.largest):
            every[:, subset] = -value if pick is picking.smallest else value
        elif pick is picking.core_set:
            nearest = cdist(value, labelled).min(1)
            place = {int(index): position for position, index in enumerate(subset)}
            for number, index in enumerate(found.indices):
                every[number, subset] = nearest
                nearest = np.minimum(nearest, cdist(value, value[[place[int(index)]]])[:, 0])
        else:  # A choice of all together: what is known is each pick's own score.
            every[np.arange(count), found.indices] = found.scores
            return every
        free = np.zeros(size, bool)
        free[subset] = True
        return _rows(every, free, found.indices)


def _dataset(
    X: Any, codes: np.ndarray, classes: np.ndarray, available: np.ndarray | None = None
) -> Dataset:
    names = [str(label) for label in classes]
    dataset = Dataset.from_arrays(X, codes, class_names=[*names, *[""] * (2 - len(names))])
    return dataset if available is None else dataset.only(available)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _rows(every: np.ndarray, free: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Utilities with nan for what could not be picked any more, `[count, N]`."""
    every[:, ~free] = np.nan
    for number, index in enumerate(indices):
        every[number + 1 :, index] = np.nan
    return every


def settings(dataset: Dataset) -> ConfigDict:
    """For a few hundred labels on a CPU: an MLP for features, a small ResNet for images."""
    config = configs.default()
    least = 2 * devices.device_count()
    most = min(32, int(dataset.known.sum()))
    config.update(subset=0, epochs=60, batch_size=max(least, most // least * least))
    if len(dataset.shape) == 1:
        config.augmentation.update(pad=0, flip=False)
        config.task.update(
            network="mlp", widths=(64, 64), optimiser="adam", learning_rate=0.01, weight_decay=0.0
        )
        config.ranker.features = 0
        config.vae.update(network="mlp", latent=8, widths=(64,), learning_rate=0.005)
        config.discriminator.update(hidden=(64,), learning_rate=0.005)
        return config
    config.augmentation.update(pad=min(4, max(1, min(dataset.shape[:2]) // 8)), flip=False)
    config.task.update(widths=(16, 32, 64, 128), blocks=(1, 1, 1, 1))
    config.ranker.features = 32
    config.vae.update(latent=32, widths=(32, 64, 128, 128), learning_rate=1e-3)
    config.discriminator.update(hidden=(128, 128), learning_rate=1e-3)
    return config


def modal_strategy(
    method: str = "coreset", config: ConfigDict = None, random_state: int = 0
) -> Callable[..., np.ndarray]:
    """A query strategy for modAL: `(classifier, X_pool, n_instances) -> indices` in the pool.

    `classifier` is modAL's ActiveLearner, whose `X_training` and `y_training` are what is labelled.
    """

    def strategy(classifier: Any, X_pool: Any, n_instances: int = 1) -> np.ndarray:
        known, labels = np.asarray(classifier.X_training), np.asarray(classifier.y_training)
        pool = np.asarray(X_pool)
        learner = Learner(method, config, random_state, missing_label=None)
        y = np.concatenate([labels.astype(object), np.full(len(pool), None)])
        indices = learner.query(np.concatenate([known, pool]), y, batch_size=n_instances)
        return np.asarray(indices) - len(known)

    return strategy
