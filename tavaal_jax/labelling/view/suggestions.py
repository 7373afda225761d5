"""Answers that the model suggests, such that they tell nobody which images are test images."""

from typing import NamedTuple

import numpy as np


class Group(NamedTuple):
    """Images that the model takes for one class."""

    label: int
    """Number of the class."""
    images: np.ndarray
    """Their indices `[n]`, most certain first."""
    confidence: np.ndarray
    """Probability of the class `[n]`."""


def suggestions(probabilities: np.ndarray, is_test: np.ndarray, draws: np.ndarray) -> list[Group]:
    """Groups of images by predicted class, the largest first, from probabilities `[N, K]`.

    No test image (bool `[N]`; all that are reserved for the test set, not those asked for only) is
    in one, and as many others are in none: those with the smallest `draws [N]`. A draw is a number
    of the image alone, such as `selection.hash_uniform(id, seed)`: were it another in each cycle,
    the images that never have a suggestion would be the test images.
    """
    others = np.flatnonzero(~is_test)
    hidden = others[np.argsort(draws[others], kind="stable")][: int(is_test.sum())]
    shown = np.setdiff1d(others, hidden)
    labels, confidence = probabilities.argmax(1), probabilities.max(1)
    groups = []
    for label in np.unique(labels[shown]):
        mine = shown[labels[shown] == label]
        mine = mine[np.argsort(-confidence[mine], kind="stable")]
        groups.append(Group(int(label), mine, confidence[mine]))
    return sorted(groups, key=lambda group: -len(group.images))
