"""scikit-learn's own checks of estimators: a Learner passes them all, so none is declared to fail.

`check_estimator(tavaal_jax.Learner(...))` runs the same.
"""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

import tavaal_jax
from tavaal_jax import config as configs
from tavaal_jax.engine import programs


@pytest.fixture(scope="module", autouse=True)
def _programs_are_shared():
    """Fits of as many examples of the same shape, of which there are dozens, share programs."""
    built, build = {}, programs.build

    def build_once(config, method, shape, problem):
        plain = {name: value for name, value in configs.plain(config).items() if name != "seed"}
        key = str(plain), shape, problem
        if key not in built:
            built[key] = build(config, method, shape, problem)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "build", build_once)
        yield


# They fit often, or many shapes.
SLOW = {
    "check_classifiers_classes",
    "check_estimators_dtypes",
    "check_n_features_in_after_fitting",
    "check_positive_only_tag_during_fit",
}


def name_of(check):
    return getattr(check, "func", check).__name__


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=name_of(check), marks=[pytest.mark.slow] * (name_of(check) in SLOW))
        for _, check in estimator_checks_generator(tavaal_jax.Learner("margin"))
    ],
)
def test_a_learner_passes(check):
    check(tavaal_jax.Learner("margin"))
