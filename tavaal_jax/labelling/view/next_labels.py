"""What the next labels would bring, from the accuracies that people's loop has measured."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from tavaal_jax.report import hint


class Point(TypedDict):
    """A point of the learning curve."""

    labelled: int
    n: int
    """Size of the test set."""
    accuracy: float


def next_labels(curve: Sequence[Point]) -> str | None:
    """A line for people; None with fewer than three points that differ in labels.

    A share among n test images has a standard deviation of its own. Two cycles share most of their
    test images, which is not counted on: the interval is rather too wide.
    """
    points = {point["labelled"]: point for point in curve if point["n"]}  # The newest of as many.
    if not points:
        return None
    variances = [p["accuracy"] * (1 - p["accuracy"]) / p["n"] for p in points.values()]
    noise = max(hint.NOISE, float(np.sqrt(np.mean(variances))))
    found = hint.forecast({n: {0: p["accuracy"]} for n, p in points.items()}, noise)
    if found is None:
        return None
    return (
        f"the next {found.more} labels would bring {100 * found.gain:+.1f} points of accuracy"
        f" (95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f}); the last"
        f" {found.more} brought {100 * found.last:+.1f}"
    )
