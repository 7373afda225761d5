"""Names of classes: which are allowed, and which labels are probably typing errors."""

import collections
import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels.rows import shown

MOST_CLASSES = 1000
LONGEST_NAME = 100
"""Limit for the characters of a class name."""
MOST_ONCE = 20
"""More new names than these, each used once, together over 80 % of the labels: no classes."""

_FORBIDDEN = '/\\<>"'


def answer_kinds(
    classes: Sequence[str], unsure: Sequence[str], bad: Sequence[str]
) -> dict[str, str]:
    """Kind (unsure or bad) of each answer that is no class, by its caseless word.

    Raises UserError where a class is no possible name, or is one of these words.
    """
    kinds = {_caseless(word): "unsure" for word in unsure}
    kinds |= {_caseless(word): "bad" for word in bad}
    for word in unsure:
        if kinds[_caseless(word)] != "unsure":
            raise UserError(
                f"folder.unsure and folder.exclude_answers both have {shown(word)}: it can be one"
            )
    for name in classes:
        if fault := _fault(name):
            raise UserError(f'the class "{shown(name)}" {fault}: rename it')
        if _caseless(name) in kinds:
            key = {"unsure": "unsure", "bad": "exclude_answers"}[kinds[_caseless(name)]]
            raise UserError(
                f'the class "{name}" is one of folder.{key}: rename it, or change that key'
            )
    twice = [name for name, count in collections.Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f'the class "{twice[0]}" is there twice: name it once')
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{len(classes):,} classes, at most {MOST_CLASSES:,}: name fewer")
    return kinds


def _caseless(text: str) -> str:
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


def check_labels(labels: Sequence[tuple[str, str]], classes: Sequence[str], fixed: bool) -> None:
    """Raises UserError at the first label that cannot be a class, or seems to be a mistake.

    `labels` are those of all answers and where each stands, in order; with `fixed` there are no
    other `classes` than those given.
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
    for name, near in _near_pairs(once, names):
        raise UserError(
            f"{new[name]}: {name}, which occurs only once, is nearly {near}: mend it, or name both"
            " in folder.classes if it is another class"
        )


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
    by_case = {_caseless(other): other for other in reversed(list(classes))}
    near = by_case.get(_caseless(name)) or next(
        iter(difflib.get_close_matches(name, classes, n=1, cutoff=0)), ""
    )
    return near and f" (nearest: {near})"


def _shortened(name: str) -> set[str]:
    """The name, caseless, and without each one letter: nearly equal names share one of these."""
    return {name, _caseless(name), *(name[:at] + name[at + 1 :] for at in range(len(name)))}


def _is_near(name: str, other: str) -> bool:
    """Whether two names differ in case alone, or by one edit.

    An edit is a letter more, less or replaced, or two swapped. Names of one or two letters, and
    those that differ in a number alone, are never near.
    """
    if min(len(name), len(other)) < 3 or abs(len(name) - len(other)) > 1 or name == other:
        return False
    if _caseless(name) == _caseless(other):
        return True
    differ = (at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b)
    start = next(differ, min(len(name), len(other)))
    a, b = name[start:], other[start:]
    swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
    is_edit = swapped or b[1:] == a[1:] or b[1:] == a or b == a[1:]
    return is_edit and re.sub(r"\d", "", name) != re.sub(r"\d", "", other)
