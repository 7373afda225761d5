"""Picks of TypiClust, MaxHerding and DropQuery as scikit-activeml makes them, where rules agree.

Opt-in: `pip install scikit-activeml` (1.0.1).
"""

import jax
import numpy as np
import pytest
from sklearn.preprocessing import normalize

from tavaal_jax.algorithm.feature_picks import herding, mixing
from tavaal_jax.algorithm.feature_picks.typicality import typiclust

pool = pytest.importorskip("skactiveml.pool")

KEY = jax.random.key(0)
SEEDS = range(5)


def blobs(seed, centers=9, features=5):
    """Points in far clusters of different sizes, so that every k-means finds them."""
    random = np.random.default_rng(seed)
    sizes = random.permutation(np.arange(30, 30 + 7 * centers, 7))
    middle = 50 * random.normal(size=(centers, features))
    labels = np.repeat(np.arange(centers), sizes)
    points = middle[labels] + random.normal(size=(len(labels), features))
    return points.astype(np.float32), labels


def partly_labelled(size, labelled):
    y = np.full(size, np.nan)
    y[labelled] = 0
    return y


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("known", [0, 3])
def test_typiclust(seed, known):
    """As many clusters as there are; theirs leaves clusters with a label out, and is not capped."""
    points, labels = blobs(seed)
    labelled = [int(np.flatnonzero(labels == cluster)[0]) for cluster in range(known)]
    rest = np.setdiff1d(np.arange(len(points)), labelled)
    count = 9 - known
    strategy = pool.TypiClust(random_state=seed, k=20, cluster_algo_dict={"n_init": 20})
    theirs = strategy.query(points, partly_labelled(len(points), labelled), batch_size=count)
    ours, _ = typiclust(points[rest], count, KEY, points[labelled] if known else None)
    np.testing.assert_array_equal(rest[ours], theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("known", [0, 3])
def test_max_herding(seed, known):
    """Theirs is given the kernel's gamma, 1 / h^2, and without labels weighs the first likewise."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(200, 8)).astype(np.float32)
    labelled = list(range(known))
    rest = np.arange(known, 200)
    strategy = pool.MaxHerding(random_state=0, metric="rbf", metric_dict={"gamma": 1 / 0.8**2})
    theirs = strategy.query(points, partly_labelled(200, labelled), batch_size=20)
    z = normalize(points)
    ours, _ = herding.max_herding(z[rest], 20, KEY, z[labelled] if known else None, radius=0.8)
    np.testing.assert_array_equal(rest[ours], theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_drop_query(seed):
    """Masks of dropout differ: here no pass disagrees, or all do, and all or some are clustered."""
    from skactiveml.base import SkactivemlClassifier

    points, labels = blobs(seed)
    disagrees = labels >= 4

    class Fixed(SkactivemlClassifier):
        """Predicts 0; for features with dropped ones, 1 where it is to disagree."""

        def __init__(self):
            super().__init__(classes=[0, 1])

        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            raise NotImplementedError

        def predict(self, X):
            is_dropped = (X == 0).any()
            return np.where(is_dropped & disagrees, 1, 0)

    strategy = pool.DropQuery(
        random_state=seed, cluster_algo_dict={"n_init": 20, "random_state": 0}
    )
    y = np.full(len(points), np.nan)
    theirs = strategy.query(points, y, Fixed(), fit_clf=False, batch_size=5)
    values = {"embedding": points, "disagreement": disagrees.astype(np.float32)}
    ours, _ = mixing.drop_query(values, 5, KEY)
    assert set(ours.tolist()) == set(theirs.tolist())
