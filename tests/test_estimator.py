"""The learner in the shape of scikit-learn and scikit-activeml."""

import pickle

import jax
import numpy as np
import people
import pytest
import scipy.sparse
from conftest import read_csv
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError

import tavaal_jax
from tavaal_jax import Learner
from tavaal_jax import config as configs
from tavaal_jax.errors import UserError
from tavaal_jax.study.notebook import estimator, inputs


@pytest.fixture(scope="module")
def points():
    """80 points in two classes, of which 24 have a label."""
    rng = np.random.default_rng(0)
    truth = np.arange(80) % 2
    x = rng.normal(size=(80, 2)) + 3 * truth[:, None]
    y = np.where(np.arange(80) < 24, truth.astype(float), np.nan)
    return x, y, truth


def quick(**changes):
    config = configs.default()
    config.update(subset=0, epochs=2, batch_size=8)
    config.augmentation.update(pad=0, flip=False)
    config.task.update(network="mlp", widths=(4,), optimiser="adam", learning_rate=0.01)
    config.ranker.features = 0
    config.vae.update(network="mlp", latent=2, widths=(4,))
    config.discriminator.hidden = (4,)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("first_by", "mend"),
    [("typiclus", "did you mean typiclust"), ("margin", "choose one of random")],
)
def test_a_first_request_by_a_method_that_cannot_is_one_line(first_by, mend, points):
    learner = Learner("random", quick(first_by=first_by))
    with pytest.raises(UserError, match=f"first_by is '{first_by}'.*{mend}"):
        learner.query(points[0], np.full(80, np.nan), batch_size=4)


def test_a_first_request_by_coverage_counts_features_alike(points):
    """As a study does: in units of each one's deviation."""
    learner = Learner("random", quick(first_by="max_herding"), random_state=0)
    x = points[0]
    unknown = np.full(80, np.nan)
    found = learner.query(x, unknown, batch_size=6)
    assert len(set(found)) == 6
    np.testing.assert_array_equal(
        found, learner.query(x * [1000, 1] + [0, 5], unknown, batch_size=6)
    )


def test_parameters_are_scikit_learns():
    learner = Learner("badge", random_state=3)
    assert learner.get_params() == {
        "method": "badge", "config": None, "backbone": "", "random_state": 3, "cycle": 0,
        "missing_label": learner.missing_label,
    }  # fmt: skip
    assert clone(learner).random_state == 3
    assert learner.set_params(method="entropy").method == "entropy"


@pytest.mark.parametrize(
    "method",
    ["coreset", "entropy", *(pytest.param(m, marks=pytest.mark.slow) for m in ("tavaal", "badge"))],
)
def test_indices_and_utilities(method, points):
    x, y, _ = points
    learner = Learner(method, quick())
    indices, utilities = learner.query(x, y, batch_size=5, return_utilities=True)
    assert len(set(indices)) == 5
    assert np.isnan(y[indices]).all()
    assert utilities.shape == (5, 80)
    assert np.isnan(utilities[:, :24]).all()
    for number, index in enumerate(indices):
        assert np.isfinite(utilities[number, index])
        assert np.isnan(utilities[number + 1 :, index]).all()
        assert np.nanmax(utilities[number]) == pytest.approx(utilities[number, index], rel=1e-5)
    np.testing.assert_array_equal(indices, learner.query(x, y, batch_size=5))
    np.testing.assert_array_equal(indices[:3], learner.query(x, y, batch_size=3))


def test_candidates_are_indices_or_a_mask(points):
    x, y, _ = points
    learner, some = Learner("entropy", quick()).fit(x, y), np.arange(40, 60)
    by_index = learner.query(x, y, candidates=some, batch_size=4)
    assert set(by_index) <= set(some)
    mask = np.isin(np.arange(80), some)
    np.testing.assert_array_equal(by_index, learner.query(x, y, candidates=mask, batch_size=4))


@pytest.mark.parametrize(
    ("missing", "code"), [(np.nan, float), (-1, int), (None, lambda k: ("no", "yes")[k])]
)
def test_what_is_missing_and_what_classes_are(missing, code, points):
    x, y, truth = points
    labels = np.array(
        [missing if np.isnan(v) else code(k) for v, k in zip(y, truth, strict=True)], object
    )
    learner = Learner("entropy", quick(), missing_label=missing).fit(x, labels)
    assert list(learner.classes_) == sorted({code(0), code(1)})
    probabilities = learner.predict_proba(x[:7])
    assert probabilities.shape == (7, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert set(learner.predict(x)) <= set(learner.classes_)


def test_without_any_label_it_draws_at_random(points):
    x, _, _ = points
    none = np.full(80, np.nan)
    indices, utilities = Learner(random_state=1).query(x, none, None, 6, True)
    assert len(set(indices)) == 6
    assert [int(np.nanargmax(row)) for row in utilities] == list(indices)
    other = Learner(random_state=2).query(x, none, batch_size=6)
    assert list(other) != list(indices)


def test_a_model_is_exported(points, tmp_path):
    x, y, _ = points
    learner = Learner("entropy", quick()).fit(x, y)
    model = tavaal_jax.load_model(learner.export(tmp_path / "model"))
    np.testing.assert_array_equal(model.predict_proba(x), learner.predict_proba(x))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: Learner().predict_proba(x), "has not been fitted"),
        (lambda x, y: Learner("coreste").query(x, y), "did you mean coreset"),
        (lambda x, y: Learner("coreste").query(x, y * np.nan), "did you mean coreset"),
        (lambda x, y: Learner().query(x[:3], y * np.nan), "y has 80 labels and X 3 examples"),
        (lambda x, y: Learner(random_state=-1).query(x, y * np.nan), "seed is -1"),
        (lambda x, y: Learner().query(x, y, batch_size=57), "give 1 to 56"),
        (lambda x, y: Learner().query(x, y, candidates=[99]), "candidates are int"),
        (lambda x, y: Learner().query(x, np.where(y == 1, np.nan, y)), "two classes"),
        (lambda x, y: Learner().fit(x, np.stack([y, y], 1)), r"y has shape \(80, 2\)"),
        (lambda x, y: Learner().fit(x, None), "requires y to be passed.*give a label for each"),
        (lambda x, y: Learner().fit(x, y + 0.5), "y has the continuous value 0.5: give whole"),
        (lambda x, y: Learner().fit(x[:, 0], y), r"X has shape \(80,\): give features .N, F."),
        (lambda x, y: Learner().fit(x + 1j, y), "X is complex"),
        (lambda x, y: Learner().fit(x * 1e300, y), "X with NaN, infinity or what float32 cannot"),
        (lambda x, y: Learner().fit(x[:, :0], y), r"0 feature\(s\)"),
        (lambda x, y: Learner().fit(x[:9], y), "y has 80 labels and X 9 examples"),
        (lambda x, y: Learner().predict(x), "has not been fitted"),
        (lambda x, y: Learner().query(x, y, batch_size=2.0), "batch_size is 2.0: give 1 to 56"),
        (lambda x, y: Learner().query(x, y, batch_size=None), "batch_size is None: give 1 to 56"),
        (lambda x, y: Learner().query(x, y, candidates=x[30:40]), "candidates are float64 .10, 2."),
        (lambda x, y: Learner().query(x, y, candidates=[30.7]), "candidates are float64 .1,."),
        (lambda x, y: Learner(random_state=None).query(x, y), "random_state is None: give a whole"),
        (lambda x, y: Learner(cycle=-1).query(x, y), "cycle is -1: give 0, or"),
        (lambda x, y: Learner().fit(x, np.where(y == 1, np.inf, y)), "y has the label inf"),
        (lambda x, y: Learner().fit(x, [1, "a"] * 40), "y mixes texts with other labels"),
        (lambda x, y: Learner().fit(x, np.array(["a", "b", np.nan, "a"] * 20)), "or with nan"),
    ],
)
def test_what_does_not_fit_is_one_line(call, says, points):
    x, y, _ = points
    with pytest.raises(UserError, match=says) as error:
        call(x, y)
    assert "\n" not in str(error.value)


class NAType:
    """Stands for pandas' NA: no bool."""

    def __eq__(self, other):
        return self

    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def masked(values, rows):
    mask = np.zeros(np.shape(values), bool)
    mask[rows] = True
    return np.ma.array(values, mask=mask)


@pytest.mark.parametrize(
    ("y", "missing"),
    [
        (masked(np.arange(8) % 2, range(4, 8)), np.nan),
        (masked(np.arange(8) % 2, range(4, 8))[:, None], np.nan),
        (masked(["a", "b"] * 4, range(4, 8)), None),
        ([0, 1, 0, 1, *[NAType()] * 4], np.nan),
        ([0, 1, 0, 1, *[NAType()] * 4], NAType()),
        ([0, 1, 0, 1, *[np.nan] * 4], NAType()),
        ([0, 1, 0, 1, *[type("NaTType", (), {})()] * 4], np.nan),
        (np.array([0, 1, 0, 1, *[np.nan] * 4], np.float32), np.float32(np.nan)),
    ],
)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_what_is_masked_or_not_available_has_no_label(y, missing):
    found = inputs.labels(y, 8, missing)
    assert list(found.known) == [True] * 4 + [False] * 4
    assert list(found.codes) == [0, 1, 0, 1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: Learner().fit(masked(x, (0, 0)), y), "1 of 160 values of X are masked: fill"),
        (
            lambda x, y: Learner().fit([*x[:79], masked(x[79], 0)], y),
            r"1 of 2 .*X\[79\] are masked",
        ),
        (
            lambda x, y: Learner().query(x, y, candidates=masked(np.arange(80) > 40, range(60))),
            "candidates are masked: give indices",
        ),
        (lambda x, y: Learner().query(x, y, candidates=[]), "none of the 0 candidates is unlab"),
        (lambda x, y: Learner().query(x, y, candidates=[1, 2]), "none of the 2 candidates"),
        (
            lambda x, y: Learner().query(x, y, candidates=(np.arange(80) > 40).astype(int)),
            r"candidates are 80 whole numbers 0 and 1: give .astype\(bool\)",
        ),
        (
            lambda x, y: Learner().query(x, np.arange(80) % 2),
            "all 80 labels of y are known, so.*nan$",
        ),
        (
            lambda x, y: Learner().query(x, np.where(np.isnan(y), -1, y)),
            r"is nan \(y has 56 times -1: is missing_label=-1 meant\?\)",
        ),
        (lambda x, y: Learner().fit(x.astype("M8[s]"), y), r"X of type datetime64\[s\]: give num"),
        (lambda x, y: Learner().fit(x, y.astype("M8[s]")), "y holds dates or times: give texts"),
        (
            lambda x, y: Learner().fit(np.arange(160).reshape(80, 2) + 1.7e9, y),
            "column 0 of X has 80 different values, of which float32 tells 2 apart: subtract",
        ),
        (lambda x, y: Learner().fit(Gradient(), y), "no array can be made of X .Can't call numpy"),
        (
            lambda x, y: Learner().fit(np.zeros((80, 3, 16, 16), np.uint8), y),
            r"would be 16 channels of 3 x 16 pixels: give .N, H, W, C., images.transpose",
        ),
    ],
)
def test_what_numpy_would_change_in_silence_is_refused(call, says, points):
    x, y, _ = points
    with pytest.raises(UserError, match=says) as error:
        call(x, y)
    assert "\n" not in str(error.value)


class Gradient:
    """Stands for a tensor of torch that needs a gradient."""

    shape = (80, 2)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


def test_an_array_with_a_mask_that_hides_nothing_is_an_array(points):
    x, y, _ = points
    learner = Learner("random", quick()).fit(np.ma.array(x), np.ma.array(y, mask=np.isnan(y)))
    np.testing.assert_array_equal(learner.predict(x), learner.predict(np.ma.array(x)))


def test_the_number_of_features_is_kept_and_compared(points):
    x, y, _ = points
    learner = Learner("entropy", quick()).fit(x, y)
    assert learner.n_features_in_ == 2
    with pytest.raises(UserError, match="X has 3 features, but Learner is expecting 2") as error:
        learner.predict(np.ones((4, 3)))
    assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match="Sparse data"):
        learner.predict(scipy.sparse.csr_array(x))


@pytest.mark.slow
def test_images_have_no_number_of_features(points):
    _, y, truth = points
    images = (200 * truth[:, None, None] + np.zeros((80, 8, 8))).astype(np.uint8)
    learner = Learner("entropy", quick()).fit(images.reshape(80, 64), y)
    assert learner.n_features_in_ == 64
    config = quick(**{"task.network": "resnet", "task.blocks": (1,), "vae.network": "conv"})
    learner.set_params(config=config).fit(images, y)
    assert not hasattr(learner, "n_features_in_")
    assert learner.predict(images[:3]).shape == (3,)
    assert 0 <= learner.score(images[:24], truth[:24]) <= 1
    with pytest.raises(UserError, match="images have shape"):
        learner.predict(images[:, :4])


def test_a_column_of_labels_is_taken_with_a_warning(points):
    x, y, _ = points
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        columns = Learner("entropy", quick()).fit(x, y[:, None])
    plain = Learner("entropy", quick()).fit(x, y)
    np.testing.assert_array_equal(columns.predict_proba(x), plain.predict_proba(x))


def test_without_fit_the_error_is_scikit_learns_and_ours(points):
    for kind in (NotFittedError, UserError, ValueError):
        with pytest.raises(kind, match="call fit, or query, first"):
            Learner().score(*points[::2])


@pytest.mark.parametrize("count", [8, 10, 30, 33])
def test_its_own_settings_fit_any_number_of_labels_and_devices(points, count):
    x, _, truth = points
    labelled = np.where(np.arange(len(x)) < count, truth.astype(float), np.nan)
    numbers = np.where(np.isnan(labelled), -1, labelled).astype(int)
    size = estimator.settings(tavaal_jax.Dataset.from_arrays(x, numbers)).batch_size
    assert size <= max(count, 2 * jax.device_count())
    assert size % (2 * jax.device_count()) == 0
    assert Learner("random").fit(x, labelled).predict(x).shape == (80,)


def test_a_pickle_says_and_picks_the_same(points, tmp_path):
    x, y, _ = points
    learner = Learner("margin", quick()).fit(x, y)
    again = pickle.loads(pickle.dumps(learner))
    np.testing.assert_array_equal(again.predict_proba(x), learner.predict_proba(x))
    np.testing.assert_array_equal(again.predict(x), learner.predict(x))
    again.export(tmp_path / "model")
    model = tavaal_jax.load_model(tmp_path / "model")
    np.testing.assert_array_equal(model.predict_proba(x), learner.predict_proba(x))
    np.testing.assert_array_equal(
        again.query(x, y, batch_size=3), learner.query(x, y, batch_size=3)
    )
    assert pickle.loads(pickle.dumps(Learner("badge"))).method == "badge"


def test_a_fit_that_fails_leaves_what_was_there(points):
    x, y, _ = points
    learner = Learner(config=quick(), missing_label=np.nan).fit(x, y)
    classes, probabilities = learner.classes_, learner.predict_proba(x)
    others = np.where(y == 1, 7.0, np.where(y == 0, 5.0, y))
    learner.config = quick(**{"task.learning_rate": 1e30, "task.optimiser": "sgd"})
    with pytest.raises(UserError, match="lower the learning rates"):
        learner.fit(x, others)
    with pytest.raises(UserError, match="two classes"):
        learner.query(x, np.where(y == 1, np.nan, y))
    np.testing.assert_array_equal(learner.classes_, classes)
    np.testing.assert_array_equal(learner.predict_proba(x), probabilities)
    learner.config = quick()
    assert set(learner.fit(x, others).classes_) == {5, 7}  # Other names of the same numbers.


@pytest.mark.slow
def test_it_picks_what_the_command_line_picks(tmp_path):
    images, work = tmp_path / "photos", tmp_path / "work"
    truth = people.folder(images)
    config = people.config(images, tmp_path, methods="tavaal", **{"folder.test_fraction": 0.0})
    for number in range(2):
        people.run(config, work)
        people.answer(work, number, truth)
    people.run(config, work)
    x = np.stack([people.picture(i, i % 2) for i in range(60)])
    for number in range(2):
        known = {
            row["file"]: row["label"] for n in range(number + 1)
            for row in [{**r, "label": truth[r["file"]]} for r in people.requested(work, n)]
        }  # fmt: skip
        y = np.array([known.get(name) for name in truth], object)
        learner = Learner("tavaal", config, missing_label=None, cycle=number)
        picks = [
            int(row["index"]) for row in read_csv(work / "tavaal/trial_0/picks.csv")
            if row["cycle"] == str(number)
        ]  # fmt: skip
        assert list(learner.query(x, y, batch_size=8)) == picks
