"""Which images people are asked for: picks, and random ones by which the model is measured."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from tavaal_jax.labelling.frozen import RequestRow
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.consensus import Verdict, digest


def draw(name: str, seed: int) -> float:
    """A number in [0, 1) that belongs to an image: the same whatever else there is."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def reserved(names: Sequence[str], seed: int, fraction: float) -> set[str]:
    """The images that are kept for the test set, about `fraction` of all.

    A uniform sample of what people have, whatever a method picks: none of them is ever a candidate,
    and only those that were asked for and answered are tested on.
    """
    return {name for name in names if draw(name, seed) < fraction}


def tests(left: Collection[str], count: int, seed: int) -> list[RequestRow]:
    """The next `count` of the images that are `left` for the test set."""
    left = sorted(left, key=lambda name: draw(name, seed))
    return [RequestRow(name, "test", float("nan")) for name in left[:count]]


def mixed(
    picks: Sequence[RequestRow], others: Sequence[RequestRow], seed: int, number: int
) -> list[RequestRow]:
    """Picks in their order, the others anywhere among them: nobody is to treat them apart."""
    random = np.random.default_rng([seed, number])
    places = set(random.choice(len(picks) + len(others), len(others), replace=False).tolist())
    first, second = iter(picks), iter(others)
    total = len(picks) + len(others)
    return [next(second) if place in places else next(first) for place in range(total)]


def share(count: int, fraction: float, left: int) -> int:
    """How many of a request of `count` are for the test set, where `left` are kept for it."""
    return min(round(count * fraction), left)


def ties(
    entries: Mapping[str, Verdict], asked: Iterable[RequestRow], kept: Collection[str]
) -> list[RequestRow]:
    """Images of which people said different things, to be asked for first of all.

    Of the images that were `asked` for three times before, none is any more.
    """
    return _again("conflict", 3, entries, asked, kept)


def unsure(
    entries: Mapping[str, Verdict], asked: Iterable[RequestRow], kept: Collection[str]
) -> list[RequestRow]:
    """Images of which nobody was sure, if they were asked for once only."""
    return _again("unsure", 2, entries, asked, kept)


def _again(kind, most, entries, asked, kept):
    """What is kept for the test set stays in it."""
    times = Counter(wish.id for wish in asked)
    return [
        RequestRow(name, "test" if name in kept else "pick", float("nan"), digest(entry))
        for name, entry in entries.items()
        if entry.kind == kind and times[name] < most
    ]


def candidates(
    images: Sequence[Image], answered: Collection[str], kept: Collection[str]
) -> np.ndarray:
    """Which images can be asked for as picks: bool `[N]`."""
    free = [
        image.status == "ok" and image.id not in answered and image.id not in kept
        for image in images
    ]
    return np.array(free, bool)


def progress(asked: Collection[RequestRow], entries: Mapping[str, Verdict]) -> dict[str, int]:
    """How far people have come with a request: what they had said before it is no answer."""
    new = [w.id for w in asked if w.id in entries and digest(entries[w.id]) != w.said]
    kinds = [entries[name].kind for name in new]
    return {
        "asked": len(asked),
        "answered": len(kinds),
        "unsure": kinds.count("unsure"),
        "bad": kinds.count("bad"),
    }


def missing(counts: Mapping[str, int], batch_size: int) -> str | None:
    """What L lacks before anything can be learned from it; None where it has enough."""
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
