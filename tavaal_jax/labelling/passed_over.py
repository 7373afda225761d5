"""Files that reading passes over, counted by kind, and the one line that tells of each kind."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict

SHOWN = 3
"""Names in a line."""
_LONGEST = 80  # characters of a name in a line


class PassedOver(NamedTuple):
    """One kind of thing that was not read."""

    what: str
    """The kind in words, which begin with a plural: "files that are hidden"."""
    names: tuple[str, ...]
    """All of that kind, sorted."""

    @property
    def line(self) -> str:
        """`12 files that are hidden: .a, .b, .c, ...`, or `1 file that ...`."""
        noun = self.what.partition(" ")[0]
        return summary(self.names, self.what, self.what.replace(noun, _singular(noun), 1))


def _singular(noun: str) -> str:
    return noun.removesuffix("ies") + "y" if noun.endswith("ies") else noun.removesuffix("s")


class PassedOverRecord(TypedDict):
    """An entry of status.json's `passed_over`."""

    what: str
    count: int
    first: list[str]


def collected(pairs: Iterable[tuple[str, str]]) -> tuple[PassedOver, ...]:
    """Kinds, sorted, of pairs of a kind and a name."""
    found: dict[str, set[str]] = {}
    for what, name in pairs:
        found.setdefault(what, set()).add(name)
    return tuple(
        PassedOver(what, tuple(sorted(found[what], key=lambda name: (natural(name), name))))
        for what in sorted(found)
    )


@functools.lru_cache(2**16)
def natural(text: str) -> tuple[str | int, ...]:
    """Sort key by which `a (2)` comes before `a (10)`."""
    parts = re.split(r"([0-9]+)", text)
    return tuple(int(part) if at % 2 else part for at, part in enumerate(parts))


def records(kinds: Iterable[PassedOver]) -> list[PassedOverRecord]:
    """What status.json says of the kinds."""
    return [
        {
            "what": kind.what,
            "count": len(kind.names),
            "first": [shown(name) for name in kind.names[:SHOWN]],
        }
        for kind in kinds
    ]


def changed(kinds: Iterable[PassedOver], before: object) -> Iterator[PassedOver]:
    """Kinds that the records `before`, of the status.json so far, lack or count otherwise."""
    known: set[tuple[object, object]] = set()
    if isinstance(before, list):
        known = {
            (str(one.get("what")), one.get("count")) for one in before if isinstance(one, Mapping)
        }
    return (kind for kind in kinds if (kind.what, len(kind.names)) not in known)


def summary(names: Sequence[str], many: str, one: str | None = None) -> str:
    """`3 images gone: a.jpg, b.jpg, c.jpg`; `one` stands in the place of `many` before one name."""
    words = one if one is not None and len(names) == 1 else many
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names):,} {words}: {', '.join(map(shown, names[:SHOWN]))}{more}"


def shown(text: str, most: int = _LONGEST) -> str:
    """A text from outside for a message: one line, printable, cut at `most` characters."""
    return printable(text[:most]) + "..." * (len(text) > most)


def printable(name: str) -> str:
    """A name with control characters escaped, safe to print on a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
