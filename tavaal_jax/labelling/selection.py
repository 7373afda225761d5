"""Which images a request asks for: the method's picks, and random ones for the test set."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tavaal_jax.labelling.frozen import RequestRow
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.consensus import Verdict, verdict_digest


def hash_uniform(name: str, seed: int) -> float:
    """A uniform number in [0, 1) from a hash of an image's id: it depends on nothing else."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def reserved(
    names: Sequence[str], seed: int, fraction: float, folds: Mapping[str, str] | None = None
) -> set[str]:
    """Images reserved for the test set, about `fraction` of all.

    They are a uniform sample of the pool, whatever a method picks: none of them is ever a
    candidate, and those that were asked for and answered are the test set. A fold of
    near-duplicates, named in `folds` by its first image, is reserved as a whole or not at all.
    """
    first = folds or {}
    return {name for name in names if hash_uniform(first.get(name, name), seed) < fraction}


def next_tests(left: Collection[str], count: int, seed: int) -> list[RequestRow]:
    """The next `count` of the reserved images `left`, as rows of a request."""
    ordered = sorted(left, key=lambda name: hash_uniform(name, seed))
    return [RequestRow(name, "test", float("nan")) for name in ordered[:count]]


def interleaved(
    picks: Sequence[RequestRow], tests: Sequence[RequestRow], seed: int, number: int
) -> list[RequestRow]:
    """Picks in their order with tests at random places, so that annotators treat them alike."""
    random = np.random.default_rng([seed, number])
    total = len(picks) + len(tests)
    places = set(random.choice(total, len(tests), replace=False).tolist())
    next_pick, next_test = iter(picks), iter(tests)
    return [next(next_test) if place in places else next(next_pick) for place in range(total)]


def test_share(count: int, fraction: float, left: int) -> int:
    """How many of a request's `count` images are for the test set; `left` are still reserved."""
    return min(round(count * fraction), left)


def conflicts(
    verdicts: Mapping[str, Verdict], requested: Iterable[RequestRow], reserved: Collection[str]
) -> list[RequestRow]:
    """Images whose annotators disagree, to be asked for first; none more than three times.

    `requested` are the rows of all requests so far.
    """
    return _again("conflict", 3, verdicts, requested, reserved)


def unsure(
    verdicts: Mapping[str, Verdict], requested: Iterable[RequestRow], reserved: Collection[str]
) -> list[RequestRow]:
    """Images whose annotators are unsure, if they were asked for once only."""
    return _again("unsure", 2, verdicts, requested, reserved)


def _again(
    kind: str,
    most: int,
    verdicts: Mapping[str, Verdict],
    requested: Iterable[RequestRow],
    reserved: Collection[str],
) -> list[RequestRow]:
    """Images with verdicts of a kind, asked for less than `most` times; reserved ones as tests."""
    times = Counter(row.id for row in requested)
    return [
        RequestRow(
            name, "test" if name in reserved else "pick", float("nan"), verdict_digest(verdict)
        )
        for name, verdict in verdicts.items()
        if verdict.kind == kind and times[name] < most
    ]


def candidates(
    images: Sequence[Image], answered: Collection[str], reserved: Collection[str]
) -> np.ndarray:
    """Which images may be asked for as picks: bool `[N]`."""
    free = [
        image.status == "ok" and image.id not in answered and image.id not in reserved
        for image in images
    ]
    return np.array(free, bool)


def answered(request: Collection[RequestRow], verdicts: Mapping[str, Verdict]) -> list[str]:
    """Images of a request with an answer; a verdict that was there before it is none."""
    return [
        row.id
        for row in request
        if row.id in verdicts and verdict_digest(verdicts[row.id]) != row.verdict_digest
    ]


class RequestProgress(NamedTuple):
    """Number of images of a request, and of their answers by kind."""

    asked: int = 0
    answered: int = 0
    unsure: int = 0
    bad: int = 0


def request_progress(
    request: Collection[RequestRow], verdicts: Mapping[str, Verdict]
) -> RequestProgress:
    """Counts the answers to a request; a verdict that was there before it is none."""
    new = answered(request, verdicts)
    kinds = [verdicts[name].kind for name in new]
    return RequestProgress(len(request), len(kinds), kinds.count("unsure"), kinds.count("bad"))


def missing_labels(counts: Mapping[str, int], batch_size: int) -> str | None:
    """Labels that training still lacks, in words; None where there are enough of each class."""
    total = sum(counts.values())
    enough = [name for name, count in counts.items() if count >= 2]
    have = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
    if total < batch_size:
        return (
            f"{batch_size} labels for training, and there are {total} (label more, or lower"
            " batch_size)"
        )
    if len(enough) < 2:
        return f"two classes with two images for training or more, and there are: {have}"
    return None
