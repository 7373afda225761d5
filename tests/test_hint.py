"""The stop hint: what it says of curves whose future is known."""

import numpy as np
import pytest

from tavaal_jax.report import hint

LABELLED = (100, 200, 300, 400, 500)


def falling(floor, scale, exponent, labelled=LABELLED):
    """Accuracies of an error that falls as a power."""
    return {n: 1 - floor - scale * (n / labelled[0]) ** -exponent for n in labelled}


def curve_of(accuracies, trials=1, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    return {
        n: {
            # As of a share of mistakes: the variance is in proportion to it.
            t: value + noise * np.sqrt((1 - value) / 0.2) * random.standard_normal()
            for t in range(trials)
        }
        for n, value in accuracies.items()
    }


@pytest.mark.parametrize(
    ("floor", "scale", "exponent"), [(0.0, 0.4, 0.5), (0.02, 0.3, 1.0), (0.0, 0.2, 0.2)]
)
def test_an_exact_power_is_continued(floor, scale, exponent):
    longer = falling(floor, scale, exponent, (*LABELLED, 600))
    said = hint.forecast(curve_of(falling(floor, scale, exponent), trials=3, noise=1e-4))
    brought = longer[600] - longer[500]
    assert (said.labelled, said.more) == (500, 100)
    assert abs(said.gain - brought) < 0.1 * brought
    assert said.low <= 1.05 * brought
    assert 0.95 * brought <= said.high
    np.testing.assert_allclose(said.last, longer[500] - longer[400], atol=3e-4)


def test_more_trials_and_less_noise_say_more():
    true = falling(0.05, 0.3, 0.6)

    def width(**kwargs):
        said = hint.forecast(curve_of(true, **kwargs))
        return said.high - said.low

    assert width(trials=20, noise=0.01) < width(trials=3, noise=0.01)
    assert width(trials=20, noise=0.001) < width(trials=20, noise=0.01)


def test_levels_of_trials_are_no_noise():
    """Methods are paired by trial: a trial that is better throughout says nothing of the noise."""
    curve = curve_of(falling(0.05, 0.3, 0.6), trials=6, noise=0.002)
    shifted = {n: {t: v + 0.02 * (t - 2.5) for t, v in at.items()} for n, at in curve.items()}
    assert hint.forecast(shifted) == pytest.approx(hint.forecast(curve), abs=1e-6)


def test_the_interval_holds_what_it_promises():
    """95 % of what is measured lies inside, over curves drawn from a power with noise."""
    inside, count, random = 0, 200, np.random.default_rng(1)
    for number in range(count):
        draw = random.uniform((0, 0.1, 0.3), (0.1, 0.4, 1.2))
        longer = curve_of(falling(*draw, (*LABELLED, 600)), 5, 0.01, seed=number)
        said = hint.forecast({n: longer[n] for n in LABELLED})
        now, then = (np.mean(list(longer[n].values())) for n in (500, 600))
        inside += said.low <= then - now <= said.high
    assert 0.9 < inside / count <= 1


@pytest.mark.parametrize(
    "accuracies",
    [
        dict.fromkeys(LABELLED, 1.0),  # nothing left to win
        dict.fromkeys(LABELLED, 0.1),  # nothing learnt
        dict(zip(LABELLED, (0.9, 0.8, 0.7, 0.6, 0.5), strict=True)),  # it gets worse
        dict.fromkeys(LABELLED, 0.0),
    ],
)
def test_curves_without_a_fall_are_no_trouble(accuracies):
    said = hint.forecast(curve_of(accuracies, trials=2))
    assert all(np.isfinite(value) for value in said)
    assert said.low <= said.gain <= said.high
    assert abs(said.gain) < 1e-2


@pytest.mark.parametrize(
    "accuracies",
    [
        (0.50, 0.52, 0.56, 0.62, 0.70),  # it has not begun to flatten
        (0.1, 0.1, 0.1, 0.5, 0.8),
        (0.7, 0.8, 0.85, 0.88, 0.80),  # a dip
    ],
)
def test_no_curve_makes_it_promise_a_loss_or_more_than_was_ever_won(accuracies):
    said = hint.forecast(
        curve_of(dict(zip(LABELLED, accuracies, strict=True)), trials=5, noise=0.002)
    )
    assert 0 <= said.gain <= max(np.diff(accuracies))
    assert said.high > said.gain + 0.005  # It fits badly, and the interval says so.


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_figures_that_are_none_say_nothing(value):
    curve = curve_of(falling(0.05, 0.3, 0.6), trials=2)
    curve[300][1] = value
    assert hint.forecast(curve) is None


def test_too_short_curves_and_trials_that_have_nothing_in_common_say_nothing():
    short = {100: {0: 0.5}, 200: {0: 0.6}}
    assert hint.forecast(short) is None
    assert hint.forecast({}) is None
    assert hint.forecast({100: {0: 0.5}, 200: {0: 0.6}, 300: {1: 0.7}}) is None


def test_trials_that_are_not_finished_are_left_out():
    whole = curve_of(falling(0.05, 0.3, 0.6), trials=2, noise=0.002)
    more = {n: {**at, **({7: 0.2} if n < 500 else {})} for n, at in whole.items()}
    assert hint.forecast(more) == hint.forecast(whole)


def test_a_line_for_each_method_and_metric():
    rows = [
        {"method": m, "metric": "accuracy", "trial": 0, "cycle": c, "labelled": n, "value": v}
        for m in ("random", "mine")
        for c, (n, v) in enumerate(falling(0.0, 0.4, 0.5).items())
    ]
    first, second = hint.lines(rows)
    assert first.startswith("random: 100 more than 500 labels would bring +0.0")
    assert first.endswith("accuracy, the last 100 brought +0.021")
    assert second.startswith("mine: ")
    assert hint.lines(rows[:2]) == []
