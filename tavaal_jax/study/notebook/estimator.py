"""A learner in scikit-learn's shape, with scikit-activeml's `query`: arrays in, indices out.

Labels that nobody has given are `missing_label` in `y`. Nothing is written but by `export`, and,
with a backbone, to the cache of features.
"""

import pathlib
from typing import Self

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from tavaal_jax import config as configs
from tavaal_jax.algorithm import picks as picking
from tavaal_jax.algorithm.feature_picks import mixing
from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import Dataset, plans
from tavaal_jax.data.dataset import normaliser
from tavaal_jax.engine import devices
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.study import export, features, first_images
from tavaal_jax.study.checks import config as checks
from tavaal_jax.study.model import DatasetInfo, Model, from_state
from tavaal_jax.study.notebook import inputs as estimator_inputs
from tavaal_jax.study.notebook import query as queries


class NotFitted(UserError, NotFittedError):
    """A Learner is asked for what only `fit` or `query` gives it; scikit-learn's error, too."""


class Learner(ClassifierMixin, BaseEstimator):
    """Task learner, method and all that it needs, behind `fit`, `query` and `predict_proba`.

    A classifier that passes scikit-learn's `check_estimator`. `X` are images uint8 `[N, H, W, C]`
    or `[N, H, W]`, or features `[N, F]`; `y [N]` are whole numbers or texts, `missing_label` where
    unknown. Raises UserError, a ValueError, for what does not fit. It can be pickled, with its
    model; the next `query` then trains anew. Fitted, it has `classes_ [K]` and, on features,
    `n_features_in_` and, where they have names, `feature_names_in_`.
    """

    def __init__(
        self,
        method: str | None = None,
        config: ConfigDict | None = None,
        random_state: int = 0,
        missing_label: object = np.nan,
        cycle: int = 0,
        backbone: str = "",
    ):
        """`method` is a name in METHODS, None: uncertainty herding on features, core-set on images.

        `config`, None: small networks, see `settings`.

        `random_state` is the seed; with the same one, and `cycle` the number of requests that were
        answered before, picks are those of the command line. With a `backbone`, such as
        "efficientnet_lite0", all is trained on its features of the images (`config.backbone.name`),
        which are cached in `config.data_dir`.
        """
        self.backbone = backbone
        self.method, self.config, self.random_state = method, config, random_state
        self.missing_label, self.cycle = missing_label, cycle

    def fit(self, X: ArrayLike, y: ArrayLike | None) -> Self:
        """Trains T, and what the method has beside it, on what is labelled."""
        images = estimator_inputs.examples(X, self, is_training=True)
        labels = estimator_inputs.labels(y, len(images), self.missing_label)
        estimator_inputs.require_two_classes(labels)
        self._fit(X, _dataset(images, labels), labels.classes)
        return self

    def query(
        self,
        X: ArrayLike,
        y: ArrayLike | None,
        candidates: ArrayLike | None = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Indices in `X` of the `batch_size` images to be labelled next, best first.

        `candidates`, indices or a mask, are those that may be picked; None: all that are not
        labelled. With `return_utilities` also `[batch_size, N]`: row k is what the k-th pick was
        chosen by, the larger the better. It is nan where an image could not be picked and, of a
        method that chooses its picks together, such as uncertainty herding, for all other images.
        It trains on `y` first, unless `fit` has been given the same. Without any label it draws at
        random, or, on features, as `config.first_by` says.
        """
        images = estimator_inputs.examples(X, self, is_training=True)
        labels = estimator_inputs.labels(y, len(images), self.missing_label)
        free = estimator_inputs.candidates(candidates, labels.known)
        assert y is not None
        estimator_inputs.check_free(free, candidates, y, self.missing_label)
        if not (estimator_inputs.is_whole(batch_size) and 1 <= batch_size <= int(free.sum())):
            raise UserError(
                f"batch_size is {batch_size!r}: give 1 to {int(free.sum())}, the images that can be"
                " picked"
            )
        dataset = _dataset(images, labels).only(labels.known | free)
        if not labels.known.any():
            # A wrong config fails now, not after the first labels.
            settings = self._settings(dataset)
            configs.check(settings)
            checks.check_first_by(settings)
            if settings.first_by != BASELINE:
                return self._covering(settings, dataset, free, batch_size, return_utilities)
            return self._drawn(free, batch_size, return_utilities)
        estimator_inputs.require_two_classes(labels)
        self._fit(X, dataset, labels.classes)
        found = queries.pick(self._trained, batch_size, 0 if candidates is not None else None)
        if not return_utilities:
            return found.indices
        return found.indices, self._utilities(found, len(free))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probability of each of `classes_`: `[n, ...] -> [n, K]`."""
        model = self._model()
        images = estimator_inputs.examples(X, self)
        if model.backbone is not None and images.ndim > 2:
            config = configs.default() if self.config is None else self.config
            images = features.of_images(
                config.data_dir, model.embedder, estimator_inputs.images(images)
            )[:]
        return model.predict_proba(images)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The likeliest of `classes_`: `[n, ...] -> [n]`."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]

    def export(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Writes the model that `predict_proba` uses; returns its folder, for `load_model`."""
        path = user_path(folder, "folder")
        self._model().save(path)
        export.add_export(path)
        return path

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, object]:
        """The state of a pickle: with the model, without programs and the pool."""
        state = dict(super().__getstate__())
        for name in ("_trained", "_place"):
            state.pop(name, None)
        return state

    def _fit(self, X: ArrayLike, dataset: Dataset, classes: np.ndarray) -> None:
        """Trains, unless that is what was trained last; where it cannot, what was there stays."""
        config = self._settings(dataset)
        available = None if dataset.available is None else dataset.available.tobytes()
        fingerprint, names = dataset.fingerprint(), classes.tolist()
        place = (configs.plain(config), self.cycle, fingerprint, names, available)
        if getattr(self, "_place", None) != place:
            trained = queries.train(config, dataset, config.methods, self.cycle)
            seen = trained.setup.train.images  # With a backbone, features.
            about = DatasetInfo(
                dataset.train_ids, dataset.class_names, seen.shape[1:], str(seen.dtype)
            )
            self._trained, self.classes_ = trained, classes
            self._fitted = from_state(trained.setup, trained.state, about)
            self._place = place
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        if len(dataset.shape) == 1:
            validate_data(self, X, y="no_validation", skip_check_array=True)

    def _settings(self, dataset: Dataset) -> ConfigDict:
        config = settings(dataset) if self.config is None else self.config
        if not isinstance(config, ConfigDict):
            raise UserError(
                f"config is a {type(config).__name__}: give one of tavaal_jax.default_config() or"
                " load_config(), or None"
            )
        if not (estimator_inputs.is_whole(self.cycle) and self.cycle >= 0):
            raise UserError(f"cycle is {self.cycle!r}: give 0, or how many requests there were")
        config = configs.changed(config, seed=self._seed())
        if self.backbone:
            config.backbone.name = self.backbone
        config.methods = queries.method_of(self.method, config, dataset, "coreset")
        return config

    def _seed(self) -> int:
        if not estimator_inputs.is_whole(self.random_state):
            raise UserError(
                f"random_state is {self.random_state!r}: give a whole number, the seed of all"
            )
        return int(self.random_state)

    def _model(self) -> Model:
        if not hasattr(self, "_fitted"):
            raise NotFitted("this Learner has not been fitted: call fit, or query, first")
        return self._fitted

    def _drawn(
        self, free: np.ndarray, count: int, return_utilities: bool
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The cold start: random images, in the order of the command line's first request."""
        key = derive(derive(jax.random.key(self._seed()), 0), Stream.INITIAL)
        order = plans.initial(key, len(free), len(free))
        indices = order[free[order]][:count]
        if not return_utilities:
            return indices
        value = np.empty(len(free))
        value[order] = -np.arange(len(free)) / len(free)
        return indices, _rows(np.tile(value, (count, 1)), free, indices)

    def _covering(
        self, config: ConfigDict, dataset: Dataset, free: np.ndarray, count: int,
        return_utilities: bool,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """The cold start by `config.first_by`, on features."""
        if len(dataset.shape) != 1 and not features.is_on(config):
            raise UserError(
                f"first_by is {config.first_by!r}, which needs features: give a backbone, or"
                f" first_by = {BASELINE!r}"
            )
        config = features.adapted(config, dataset)
        key = derive(derive(jax.random.key(self._seed()), 0), Stream.INITIAL)
        candidates = np.flatnonzero(free)
        pool = features.of_dataset(config, dataset, features.source(config)).train_images
        found = first_images.comparable(config, pool[candidates], normaliser(config, pool))
        indices = candidates[first_images.by_method(config, found, count, key)]
        if not return_utilities:
            return indices
        every = np.full((count, len(free)), np.nan)
        every[np.arange(count), indices] = -np.arange(count)
        return indices, every

    def _utilities(self, found: queries.Query, size: int) -> np.ndarray:
        """What each pick was chosen by, larger is better: `[count, size]`."""
        values = queries.values(self._trained)
        method = self._trained.setup.method
        subset, pick, count = values.candidates, method.pick, len(found.indices)
        every = np.full((count, size), np.nan)
        if pick in (picking.smallest, picking.largest):
            value = np.asarray(values.value)
            every[:, subset] = -value if pick is picking.smallest else value
        elif pick is picking.core_set:
            value = np.asarray(values.value)
            nearest = cdist(value, np.asarray(values.labelled)).min(1)
            place = {int(index): position for position, index in enumerate(subset)}
            for number, index in enumerate(found.indices):
                every[number, subset] = nearest
                nearest = np.minimum(nearest, cdist(value, value[[place[int(index)]]])[:, 0])
        else:  # A choice of all together: what is known is each pick's own score.
            is_distance = pick in (mixing.drop_query, mixing.alfa_mix)
            every[np.arange(count), found.indices] = found.scores * (-1 if is_distance else 1)
            return every
        free = np.zeros(size, bool)
        free[subset] = True
        return _rows(every, free, found.indices)


def _dataset(images: np.ndarray, labels: estimator_inputs.Labels) -> Dataset:
    names = [str(label) for label in labels.classes]
    names += [""] * (2 - len(names))
    return Dataset.from_arrays(images, labels.codes, class_names=names)


def _rows(every: np.ndarray, free: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Utilities with nan for what could not be picked any more, `[count, N]`."""
    every[:, ~free] = np.nan
    for number, index in enumerate(indices):
        every[number + 1 :, index] = np.nan
    return every


def settings(dataset: Dataset) -> ConfigDict:
    """Config for a few hundred labels on a CPU: an MLP for features, else a small ResNet."""
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
