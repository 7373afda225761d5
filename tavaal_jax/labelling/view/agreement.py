"""How well several people agree on the same images."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """Krippendorff's alpha and what it is measured on."""

    alpha: float | None
    """1: no disagreement; 0: that of chance. None where it is not defined."""
    n: int
    """Images that two people or more have answered."""


def agreement(answers: Mapping[str, Mapping[str, str]]) -> Agreement:
    """Krippendorff's alpha of nominal data (Krippendorff 2004, chapter 11), from answers by person.

    `answers[person][image]` is a class; what somebody has not answered is missing. Leave out
    answers that are no class. Alpha is None where nobody could disagree: where no image has two
    answers, or all answers to such images are the same class.
    """
    by_image: dict[str, list[str]] = {}
    for mine in answers.values():
        for image, label in mine.items():
            by_image.setdefault(image, []).append(label)
    units = [Counter(labels) for labels in by_image.values() if len(labels) > 1]
    totals: Counter[str] = sum(units, Counter())
    size = totals.total()
    disagreed = sum((_pairs(unit) / (unit.total() - 1) for unit in units), 0.0)
    by_chance = _pairs(totals)
    if not by_chance:
        return Agreement(None, len(units))
    return Agreement(float(1 - (size - 1) * disagreed / by_chance), len(units))


def _pairs(counts: Counter[str]) -> int:
    """Ordered pairs of answers that differ."""
    found = np.array(list(counts.values()), np.int64)
    return int(found.sum() ** 2 - (found**2).sum())
