"""Names of classes: which are allowed, and which labels are probably typing errors."""

import collections
import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels.rows import shown

MOST_CLASSES = 1000
LONGEST_NAME = 100
"""Limit for the characters of a class name."""
MOST_ONCE = 20
"""More new names than these, each used once, together over 80 % of the labels: no classes."""

_MISSING = frozenset(("nan", "<na>", "nat", "null", "#n/a"))
_MAYBE_MISSING = frozenset(("none", "na", "n/a", "-"))
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec|mär|mrz|mai|okt|dez"
_DATE = re.compile(rf"[0-9]{{1,2}}(?:-|\. ?)(?:{_MONTHS})|(?:{_MONTHS})[- ][0-9]{{2,4}}")
_NUMBER = re.compile(r"([+-]?)0*(\d+)(?:[.]0+)?", re.ASCII)
_FORBIDDEN = '/\\<>"'


class Words(NamedTuple):
    """Words for answers that are no class."""

    unsure: tuple[str, ...]
    bad: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    """Words of the config that are classes here."""

    @property
    def kinds(self) -> dict[str, str]:
        """Kind, unsure or bad, by caseless word."""
        kinds = {caseless(word): "unsure" for word in self.unsure}
        return kinds | {caseless(word): "bad" for word in self.bad}


INSTEAD = {"unsure": ("unsure", "cannot say"), "bad": ("bad image", "not for training")}
"""Words in place of those of a config that are all classes."""


def words_in_force(classes: Collection[str], unsure: Sequence[str], bad: Sequence[str]) -> Words:
    """The config's words without those that are classes. Raises UserError for one of both kinds."""
    both = {caseless(word) for word in unsure} & {caseless(word) for word in bad}
    if both:
        raise UserError(
            f"folder.unsure and folder.exclude_answers both have {shown(min(both))}: it can be one"
        )
    taken = {caseless(name) for name in classes}
    dropped = tuple(word for word in (*unsure, *bad) if caseless(word) in taken)
    left = []
    for words, instead in zip((unsure, bad), INSTEAD.values(), strict=True):
        others = [word for word in words if caseless(word) not in taken]
        spare = [word for word in instead if caseless(word) not in taken]
        left.append(tuple(others or (spare[:1] if words else [])))
    return Words(left[0], left[1], dropped)


def check_names(classes: Sequence[str]) -> None:
    """Raises UserError where one of the known classes is no possible name."""
    for name in classes:
        if fault := _fault(name):
            raise UserError(f'the class "{shown(name)}" {fault}: rename it')
    twice = [name for name, count in collections.Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f'the class "{twice[0]}" is there twice: name it once')
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{len(classes):,} classes, at most {MOST_CLASSES:,}: name fewer")


def is_missing(label: str) -> bool:
    """Whether a label is what programs write for an empty cell."""
    return caseless(label) in _MISSING


def may_be_missing(label: str) -> bool:
    """Whether a label may stand for an empty cell, and may be a class."""
    return caseless(label) in _MAYBE_MISSING


def may_be_date(label: str) -> bool:
    """Whether a spreadsheet may have made a date of a name: of `1-2`, `MAR1` or `1.2`."""
    return bool(_DATE.fullmatch(caseless(label)))


def spelling(name: str) -> str:
    """What spellings of one name have in common: `1`, `01` and `1.0`, or `Hot  Dog` and `hot dog`.

    Case, blanks, Unicode's compatible forms, and the signs, zeros and dots of numbers are lost.
    """
    text = folded(name)
    number = _NUMBER.fullmatch(text)
    return f"{'-' * (number[1] == '-')}{number[2]}" if number else text


def folded(name: str) -> str:
    """A name without case, repeated blanks and compatible forms; of people, too."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def caseless(text: str) -> str:
    """A word in Unicode's form NFC without case, by which reserved words are recognised."""
    return unicodedata.normalize("NFC", text).casefold()


def _fault(name: str) -> str | None:
    """Why a name cannot be a class; None if it can."""
    if not 1 <= len(name) <= LONGEST_NAME:
        return f"has {len(name)} characters, and 1 to {LONGEST_NAME} are allowed"
    if not name.isprintable():
        return "has a character that cannot be printed"
    if name in (".", ".."):
        return "is the name of a folder everywhere"
    found = [letter for letter in name if letter in _FORBIDDEN]
    return f"has the character {found[0]}" if found else None


def check_labels(
    labels: Sequence[tuple[str, str]],
    classes: Sequence[str],
    fixed: bool,
    confirmed: Collection[str] = (),
) -> None:
    """Raises UserError at the first label that cannot be a class, or seems to be a mistake.

    `labels` are those of all answers and where each stands, in order; with `fixed` there are no
    other `classes` than those given. A `confirmed` one may be nearly another.
    """
    counts = collections.Counter(label for label, _ in labels)
    known = set(classes)
    names = sorted(known | counts.keys())
    new: dict[str, str] = {}  # where each first occurs
    for label, where in labels:
        if label not in known:
            new.setdefault(label, where)
    for name, where in new.items():
        if fault := _fault(name):
            raise UserError(f'{where}: the class "{shown(name)}" {fault}: rename it')
        if fixed:
            raise UserError(
                f"{where}: {name} is none of the classes{_nearest(name, classes)}: mend it, or"
                " add it to folder.classes"
            )
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"the labels name {len(names):,} classes, at most {MOST_CLASSES:,}: is the column of"
            " labels the right one?"
        )
    once = [name for name in new if counts[name] == 1]
    if len(once) > MOST_ONCE and len(once) > 0.8 * len(labels):
        raise UserError(
            f"{new[once[0]]}: {len(once):,} of {len(labels):,} labels occur only once,"
            f" {shown(once[0])} and {shown(once[1])} among them: is the column of labels the right"
            " one? If so, name the classes in folder.classes"
        )
    _check_spellings(new, known, counts)
    for name, near in _near_pairs([name for name in once if name not in confirmed], names):
        raise UserError(
            f"{new[name]}: {name}, which occurs only once, is nearly {near}: mend it, or name both"
            " in folder.classes if it is another class"
        )


def _check_spellings(
    new: Mapping[str, str], known: Collection[str], counts: Mapping[str, int]
) -> None:
    """Raises UserError for a new name, with its place, that is another one spelt otherwise."""
    spelt: dict[str, list[str]] = {}
    # What is meant is the known one, or else what is said most often.
    for name in sorted({*new, *known}, key=lambda one: (one not in known, -counts[one], one)):
        spelt.setdefault(spelling(name), []).append(name)
    for name, where in new.items():
        meant = spelt[spelling(name)][0]
        if meant != name:
            raise UserError(
                f"{where}: {name} (said {_times(counts[name])}) is spelt otherwise than the class"
                f" {meant} (said {_times(counts[meant])}): write {meant}, or name both in"
                " folder.classes if they are two classes"
            )


def _times(count: int) -> str:
    return f"{count:,} time{'s' * (count != 1)}"


def _near_pairs(once: Iterable[str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each name of `once` that is nearly another one of `names`, and that one."""
    shortened: dict[str, list[str]] = {}
    for name in names:
        for short in _shortened(name):
            shortened.setdefault(short, []).append(name)
    for name in once:
        others = {other for short in _shortened(name) for other in shortened[short]}
        near = next((other for other in sorted(others) if _is_near(name, other)), None)
        if near is not None:
            yield name, near


def _nearest(name: str, classes: Collection[str]) -> str:
    """The hint at the class that is most like `name`; "" where there are none."""
    by_case = {caseless(other): other for other in reversed(list(classes))}
    near = by_case.get(caseless(name)) or next(
        iter(difflib.get_close_matches(name, classes, n=1, cutoff=0)), ""
    )
    return near and f" (nearest: {near})"


def _shortened(name: str) -> set[str]:
    """The name, caseless, and without each one letter: nearly equal names share one of these."""
    return {name, caseless(name), *(name[:at] + name[at + 1 :] for at in range(len(name)))}


def _is_near(name: str, other: str) -> bool:
    """Whether two names differ in case alone, or by one edit.

    An edit is a letter more, less or replaced, or two swapped. Names of one or two letters, and
    those that differ in a number alone, are never near.
    """
    if min(len(name), len(other)) < 3 or abs(len(name) - len(other)) > 1 or name == other:
        return False
    if caseless(name) == caseless(other):
        return True
    differ = (at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b)
    start = next(differ, min(len(name), len(other)))
    a, b = name[start:], other[start:]
    swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
    is_edit = swapped or b[1:] == a[1:] or b[1:] == a or b == a[1:]
    return is_edit and re.sub(r"\d", "", name) != re.sub(r"\d", "", other)
