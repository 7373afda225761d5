"""What all answers together say of each image: nothing but a function of them and of the scan."""

import collections
import difflib
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.matching import Index
from tavaal_jax.labelling.labels.rows import Answer, moment, place, shown


class Verdict(NamedTuple):
    """What people say of an image."""

    kind: str
    """label, unsure, bad or conflict."""
    label: str
    """Name of the class; "" for other kinds."""
    annotator: str
    """Whose answer counts; several joined by "+"."""
    source: str
    """The file of that answer; several joined by "+"."""
    votes: tuple[tuple[str, int], ...]
    """What was said how often, most first."""


class Consensus(NamedTuple):
    """What people say of all images."""

    entries: dict[str, Verdict]
    """By the image's id."""
    refused: tuple[str, ...]
    """A line for each row that fits no image, or several."""
    classes: tuple[str, ...]
    """Those known before in their order, then new ones, sorted."""


MOST_CLASSES = 1000
LONGEST_NAME = 100
"""Characters of a class."""
MOST_ONCE = 20
"""New names said once each, of more than four in five labels: hardly a column of classes."""

_FORBIDDEN = '/\\<>"'
_SHEETS = "to_label/"  # where requests lie


class _Vote(NamedTuple):
    """An answer, and what it means."""

    answer: Answer
    kind: str
    label: str
    copy: int | str
    """Which of several files of the same content is named."""


def aggregate(
    images: Sequence[Image],
    answers: Iterable[Answer],
    *,
    classes: Sequence[str],
    fixed: bool,
    unsure: Sequence[str],
    bad: Sequence[str],
) -> Consensus:
    """The ledger of all answers, in whichever order they come.

    `classes` are those known so far, or, with `fixed`, all there may be; `unsure` and `bad` are
    answers that are no class. Raises UserError where a label cannot be a class.
    """
    classes = tuple(unicodedata.normalize("NFC", name) for name in classes)
    words = _words(classes, unsure, bad)
    index = Index(images)
    refused = []
    said: dict[str, dict[str, list[_Vote]]] = {}
    for answer in sorted(answers, key=_order):
        if not (answer.label or answer.skipped):
            continue
        row, reason = index.find(answer)
        if row < 0:
            refused.append(f"{place(answer.source, answer.line)}: {reason}")
        elif name := index.entry(row):  # Of what cannot be read there is nothing to know.
            label = unicodedata.normalize("NFC", answer.label)
            kind = "unsure" if answer.skipped else words.get(label.casefold(), "label")
            copy = row if answer.line else f"{answer.source} {answer.name}"
            one = _Vote(answer, kind, label if kind == "label" else "", copy)
            said.setdefault(name, {}).setdefault(answer.annotator, []).append(one)
    votes = {
        name: [one for person in people.values() for one in _counting(person)]
        for name, people in said.items()
    }
    _check_labels([one for ones in votes.values() for one in ones], classes, fixed)
    texts = {"unsure": next(iter(unsure), "unsure"), "bad": next(iter(bad), "bad")}
    order = {name: row for row, name in reversed(list(enumerate(i.id for i in images)))}
    entries = {name: _entry(votes[name], texts) for name in sorted(votes, key=order.__getitem__)}
    new = {entry.label for entry in entries.values() if entry.kind == "label"} - set(classes)
    return Consensus(entries, tuple(refused), (*classes, *sorted(new)))


def digest(entry: Verdict) -> str:
    """Another one after any new answer; a file that says the same once more is one."""
    return hashlib.sha256(repr(tuple(entry)).encode()).hexdigest()[:16]


def changes(
    before: Consensus | Mapping[str, Verdict],
    after: Consensus | Mapping[str, Verdict],
    files: Mapping[str, str] | None = None,
) -> list[str]:
    """A line for each image of which something else is said now, and how many came and went.

    `files` are the images' names, by id; without one the id stands for it.
    """
    old, new = (
        which.entries if isinstance(which, Consensus) else which for which in (before, after)
    )
    names = files or {}
    pairs = [(names.get(i, i), _text(old[i]), _text(new[i])) for i in old if i in new]
    lines = [f"{shown(name)} {was} -> {now}" for name, was, now in sorted(pairs) if was != now]
    counts = {"new": len(new.keys() - old.keys()), "deleted": len(old.keys() - new.keys())}
    return lines + [
        f"{count:,} {word} label{'s' * (count != 1)}" for word, count in counts.items() if count
    ]


def _text(entry):
    return entry.label or entry.kind


# Which answers count


def _order(answer):
    """By file and line, but for what was there first.

    What it says comes last, so that answers of one line have an order, too.
    """
    # Folders of the images are not files of labels; what is dropped among those mends the requests.
    if not answer.line and "/" not in answer.source:
        age = 0
    else:
        age = 1 if answer.source.startswith(_SHEETS) else 2
    return (age, answer.source, answer.line, answer)


def _counting(said: Sequence[_Vote]) -> list[_Vote]:
    """What one person says of one image, of answers in order: the last.

    Of several files of the same content, named in the same place with different labels, no one is
    the last: the last of each counts.
    """
    if len(said) == 1:
        return list(said)
    last = _last(said)
    group = _group(last.answer)
    copies: dict[int | str, list[_Vote]] = {}
    for one in said:
        if _group(one.answer) == group:
            copies.setdefault(one.copy, []).append(one)
    verdicts: dict[tuple[str, str], _Vote] = {}
    for one in map(_last, copies.values()):
        verdicts.setdefault((one.kind, one.label), one)
    return list(verdicts.values())


def _last(said):
    """The newest of those with a time, or one without that stands behind it."""
    timed = [place for place, one in enumerate(said) if one.answer.updated]
    newest = max(timed, key=lambda at: (moment(said[at].answer.updated), at), default=-1)
    return next(
        one for at, one in reversed(list(enumerate(said))) if at == newest or at not in timed
    )


def _group(answer):
    """The file, or the folder of class folders."""
    return answer.source if answer.line else answer.source.partition("/")[0]


def _entry(votes: Sequence[_Vote], texts: Mapping[str, str]) -> Verdict:
    """What most people say; where as many say something else it is a conflict."""
    counts = collections.Counter((one.kind, one.label) for one in votes)
    most = max(counts.values())
    first = [verdict for verdict, count in counts.items() if count == most]
    kind, label = first[0] if len(first) == 1 else ("conflict", "")
    heard = [one for one in votes if kind == "conflict" or (one.kind, one.label) == (kind, label)]
    said = [(label or texts[kind], count) for (kind, label), count in counts.items()]
    return Verdict(
        kind,
        label,
        "+".join(sorted({one.answer.annotator for one in heard} - {""})),
        "+".join(sorted({one.answer.source for one in heard})),
        tuple(sorted(said, key=lambda pair: (-pair[1], pair[0]))),
    )


# Classes


def _words(classes, unsure, bad) -> dict[str, str]:
    """What each answer that is no class means."""
    kinds = (("unsure", unsure), ("bad", bad))
    words = {_same(word): kind for kind, texts in kinds for word in texts}
    for word in unsure:
        if words[_same(word)] != "unsure":
            raise UserError(
                f"folder.unsure and folder.exclude_answers both have {shown(word)}: it can be one"
            )
    for name in classes:
        if fault := _fault(name):
            raise UserError(f'the class "{shown(name)}" {fault}: rename it')
        if _same(name) in words:
            key = {"unsure": "unsure", "bad": "exclude_answers"}[words[_same(name)]]
            raise UserError(
                f'the class "{name}" is one of folder.{key}: rename it, or change that key'
            )
    twice = [name for name, count in collections.Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f'the class "{twice[0]}" is there twice: name it once')
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{len(classes):,} classes, at most {MOST_CLASSES:,}: name fewer")
    return words


def _same(text):
    return unicodedata.normalize("NFC", text).casefold()


def _fault(name):
    """Why this cannot be a class; None if it can."""
    if not 1 <= len(name) <= LONGEST_NAME:
        return f"has {len(name)} characters, and 1 to {LONGEST_NAME} are allowed"
    if not name.isprintable():
        return "has a character that cannot be printed"
    if name in (".", ".."):
        return "is the name of a folder everywhere"
    found = [letter for letter in name if letter in _FORBIDDEN]
    return f"has the character {found[0]}" if found else None


def _check_labels(votes: Sequence[_Vote], classes: Sequence[str], fixed: bool) -> None:
    """Raises UserError at the first label that cannot be a class, or hardly is meant as one."""
    votes = sorted((one for one in votes if one.kind == "label"), key=lambda o: _order(o.answer))
    counts = collections.Counter(one.label for one in votes)
    known = set(classes)
    names = sorted(known | counts.keys())
    strangers: dict[str, str] = {}
    for one in votes:
        if one.label not in known:
            strangers.setdefault(one.label, place(one.answer.source, one.answer.line))
    for name, where in strangers.items():
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
    once = [name for name in strangers if counts[name] == 1]
    if len(once) > MOST_ONCE and len(once) > 0.8 * len(votes):
        raise UserError(
            f"{strangers[once[0]]}: {len(once):,} of {len(votes):,} labels are said once only,"
            f" {shown(once[0])} and {shown(once[1])} among them: is the column of labels the right"
            " one? If so, name the classes in folder.classes"
        )
    shortened: dict[str, list[str]] = {}
    for name in names:
        for short in _shortened(name):
            shortened.setdefault(short, []).append(name)
    for name in once:
        others = {other for short in _shortened(name) for other in shortened[short]}
        near = [other for other in sorted(others) if _is_near(name, other)]
        if near:
            raise UserError(
                f"{strangers[name]}: {name}, said once only, is nearly {near[0]}: mend it, or name"
                " both in folder.classes if it is another class"
            )


def _nearest(name: str, classes: Collection[str]) -> str:
    by_case = {_same(other): other for other in reversed(list(classes))}
    near = by_case.get(_same(name)) or next(
        iter(difflib.get_close_matches(name, classes, n=1, cutoff=0)), ""
    )
    return near and f" (nearest: {near})"


def _shortened(name):
    """It, without case, and without one letter: names that are near to each other share one."""
    return {name, _same(name), *(name[:at] + name[at + 1 :] for at in range(len(name)))}


def _is_near(name: str, other: str) -> bool:
    """Whether one edit leads from one to the other: a letter more, less, another, or two swapped.

    Or they differ in case alone. Numbers, and names of one or two letters, differ that little by
    nature.
    """
    if min(len(name), len(other)) < 3 or abs(len(name) - len(other)) > 1 or name == other:
        return False
    if _same(name) == _same(other):
        return True
    differ = (at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b)
    start = next(differ, min(len(name), len(other)))
    a, b = name[start:], other[start:]
    swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
    is_edit = swapped or b[1:] == a[1:] or b[1:] == a or b == a[1:]
    return is_edit and re.sub(r"\d", "", name) != re.sub(r"\d", "", other)
