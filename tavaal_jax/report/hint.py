"""Stop hint: what the next labels will bring, from the learning curve so far, with an interval.

The error on the test set is taken to fall as a power of the number of labels towards a floor,
`e(n) = c + a (n / n_1)^-alpha` ("Learning curves: asymptotic values and rate of convergence",
Cortes et al., NIPS 1993). Five or six points do not determine three numbers, so all that fit are
kept, each with its weight: exponents uniform on a grid, low floors likelier than high ones, `a`
and the noise integrated out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tavaal_jax.report import statistics
from tavaal_jax.report.records import Result
from tavaal_jax.report.statistics import Curve

LEAST = 3  # points that a curve needs
DRAWS = 4000
_FLOORS = np.linspace(0, 1, 41)  # shares of the least error seen
_EXPONENTS = np.linspace(0.02, 2, 45)
NOISE = 0.01
"""Standard deviation of one value where there is a single trial."""


class Forecast(NamedTuple):
    """Expected gain of the next labels, in units of the metric."""

    labelled: int
    """Labels so far."""
    more: int
    """Number of the next labels: as many as the last time."""
    last: float
    """Gain of the last as many labels."""
    gain: float
    """Gain of the next labels, median."""
    low: float
    """Lower end of the 95 % interval of the gain that will be measured."""
    high: float
    """Upper end."""


def forecast(curve: Curve, noise: float = NOISE) -> Forecast | None:
    """Forecast from one method's curve.

    `noise` is the standard deviation of a value where there is a single trial. None
    with fewer than three points that all trials have, or with values that are not finite.
    """
    labelled = sorted(curve)
    trials = set.intersection(*(set(curve[n]) for n in labelled)) if labelled else set()
    if len(labelled) < LEAST or not trials:
        return None
    values = np.array([[curve[n][t] for t in sorted(trials)] for n in labelled])
    if not np.isfinite(values).all():
        return None
    more = labelled[-1] - labelled[-2]
    gains = predict(np.array(labelled, float), values, labelled[-1] + more, noise)
    low, gain, high = np.quantile(gains, [0.025, 0.5, 0.975])
    last = float(values[-1].mean() - values[-2].mean())
    return Forecast(labelled[-1], more, last, float(gain), float(low), float(high))


def predict(
    labelled: np.ndarray, values: np.ndarray, at: float, noise: float = NOISE
) -> np.ndarray:
    """Draws `[DRAWS]` of the metric measured with `at` labels, minus that with the last ones.

    `labelled [k]`, `values [k, trials]` of a metric between 0 and 1 that grows with labels. The
    gain is that of the fitted curve, which cannot fall, and the noise of both measurements.
    """
    errors = np.maximum(1.0 - values.mean(axis=1), 1e-3)
    weights = errors.mean() / errors  # The variance of a share of mistakes grows with the share.
    variance, freedom = _noise(values, weights, noise)
    falls = (labelled / labelled[0]) ** -_EXPONENTS[:, None]  # [exponents, k]
    above = errors - (_FLOORS * errors.min())[:, None, None]  # [floors, 1, k]
    squares = np.sum(weights * falls**2, axis=-1)  # [exponents]
    scale = np.maximum(np.sum(weights * above * falls, axis=-1) / squares, 0.0)
    misfit = np.sum(weights * (above - scale[..., None] * falls) ** 2, axis=-1)
    degrees = freedom + len(labelled) - 1
    residuals = misfit + freedom * variance + 1e-12
    chances = np.exp(-0.5 * degrees * np.log(residuals / residuals.min())) / np.sqrt(squares)
    chances *= (1 - _FLOORS[:, None]) ** 3 + 1e-9
    random = np.random.default_rng(0)
    chosen = random.choice(chances.size, DRAWS, p=(chances / chances.sum()).ravel())
    i, j = np.unravel_index(chosen, chances.shape)
    std = np.sqrt(residuals[i, j] / random.chisquare(degrees, DRAWS))
    amplitude = scale[i, j] + std / np.sqrt(squares[j]) * random.standard_normal(DRAWS)
    before, fall = ((n / labelled[0]) ** -_EXPONENTS[j] for n in (labelled[-1], at))
    noise_of_both = np.sqrt(2 / weights[-1]) * std * random.standard_normal(DRAWS)
    return np.maximum(amplitude, 0) * (before - fall) + noise_of_both


def _noise(values: np.ndarray, weights: np.ndarray, single: float) -> tuple[float, int]:
    """Variance of a weighted mean over trials, and its degrees of freedom."""
    count, trials = values.shape
    if trials == 1:
        return single**2, 1
    # Trials have levels of their own; what is left is the noise of a point.
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    freedom = (trials - 1) * (count - 1)
    return float((weights[:, None] * rest**2).sum()) / freedom / trials, freedom


def lines(rows: Sequence[Result]) -> list[str]:
    """Sentences, one per method and metric, from the rows of results.csv; none for short curves."""
    found = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        for method, curve in statistics.curves(rows, metric).items():
            next_ = forecast(curve)
            if next_ is not None:
                found.append(
                    f"{method}: {next_.more} more than {next_.labelled} labels would bring"
                    f" {next_.gain:+.3f} [{next_.low:+.3f}, {next_.high:+.3f}] {metric},"
                    f" the last {next_.more} brought {next_.last:+.3f}"
                )
    return found
