"""Consensus of all answers: one verdict per image, a pure function of answers and images."""

import collections
import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.errors import UserError
from tavaal_jax.labelling import passed_over
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels import class_names
from tavaal_jax.labelling.labels.matching import Index
from tavaal_jax.labelling.labels.rows import Answer, is_live, place
from tavaal_jax.labelling.labels.votes import Vote, contradiction, final_votes, precedence
from tavaal_jax.labelling.passed_over import PassedOver, shown


class Verdict(NamedTuple):
    """The majority of the answers on one image."""

    kind: str
    """label, unsure, bad or conflict."""
    label: str
    """Name of the class; "" for other kinds."""
    annotator: str
    """Annotators of the answers that count, joined by "+"."""
    source: str
    """Files of these answers, joined by "+"."""
    votes: tuple[tuple[str, int], ...]
    """Answers and how often each was given, most frequent first."""
    renewed: str = ""
    """Time of the newest of these answers given on the live page, which keeps one file for all."""


class Consensus(NamedTuple):
    """Verdicts on all images that were answered."""

    verdicts: dict[str, Verdict]
    """By the image's id."""
    unmatched: tuple[str, ...]
    """A line for each row that names no image, or several."""
    classes: tuple[str, ...]
    """Classes known before in their order, then new ones, sorted."""
    passed: tuple[PassedOver, ...] = ()
    """Rows that are no answer."""
    notes: tuple[str, ...] = ()
    """Lines about rows that can be read in two ways."""


_LEAST = 5  # images
_SHARE = 0.1
"""A reserved word said of so many images, and of this share of all, may be meant as a class."""
_TWO = "rows name one image by id and another by file, and the id counts"
_MEANS = {"unsure": "nobody can say", "bad": "not for training"}
_KEYS = {"unsure": "unsure", "bad": "exclude_answers"}


def aggregate(
    images: Sequence[Image],
    answers: Iterable[Answer],
    *,
    classes: Sequence[str],
    fixed: bool,
    unsure: Sequence[str],
    bad: Sequence[str],
    named: Collection[str] = (),
    ask: Collection[str] = (),
) -> Consensus:
    """The consensus of all answers, in whichever order they come.

    `classes` are those known so far, or with `fixed` all there may be; `named` are names of other
    class folders. `unsure` and `bad` are the words for answers that are no class, unless they are
    names of classes; `ask` are the kinds, unsure or bad, of which many such answers are
    questioned. Raises UserError where a label cannot be a class, and for what has to be asked.
    """
    classes = tuple(map(_nfc, classes))
    class_names.check_names(classes)
    answers = sorted(answers, key=precedence)
    names = set(classes)
    if not fixed:
        names |= {_nfc(name) for name in named}
        names |= {_nfc(answer.label) for answer in answers if answer.is_name}
    kinds = class_names.words_in_force(names, unsure, bad).kinds
    index = Index(images)
    unmatched, disagreeing = [], []
    passed: list[tuple[str, str]] = []
    answered: dict[str, dict[str, list[Vote]]] = {}  # by image and annotator
    for answer in answers:
        here, label = place(answer.source, answer.line), _nfc(answer.label)
        if class_names.is_missing(label) and label not in names and not answer.skipped:
            passed.append((f"rows saying {label.casefold()}, which is no answer", here))
            continue
        if not (label or answer.skipped):
            continue
        row, reason = index.find(answer)
        if row < 0:
            unmatched.append(f"{here}: {reason}")
        elif name := images[row].id:  # An image that cannot be read needs no verdict.
            kind = "unsure" if answer.skipped else kinds.get(class_names.caseless(label), "label")
            copy = row if answer.line else f"{answer.source} {answer.name}"
            vote = Vote(answer, kind, label if kind == "label" else "", copy)
            person = class_names.folded(answer.annotator)
            answered.setdefault(name, {}).setdefault(person, []).append(vote)
            if index.names_another(answer):
                disagreeing.append(here)
    order = {name: row for row, name in reversed(list(enumerate(i.id for i in images)))}
    files = {name: images[order[name]].file for name in answered}
    _check_rows(answered, files)
    votes = {
        name: [vote for by_one in annotators.values() for vote in final_votes(by_one)]
        for name, annotators in answered.items()
    }
    cast = [vote for on_one in votes.values() for vote in on_one]
    cast.sort(key=lambda vote: precedence(vote.answer))
    new = sorted({vote.label for vote in cast if vote.kind == "label"} - names)
    notes = _check_words(cast, len(votes), ask, [*classes, *new])
    _check_doubtful([v for v in cast if v.kind == "label" and v.label not in names], fixed)
    places = [
        (vote.label, place(vote.answer.source, vote.answer.line))
        for vote in cast
        if vote.kind == "label"
    ]
    # The live page asks anew before it makes a class of what is nearly another one's name.
    confirmed = {vote.label for vote in cast if is_live(vote.answer.source)}
    class_names.check_labels(places, classes, fixed, confirmed)
    words = {"unsure": next(iter(unsure), "unsure"), "bad": next(iter(bad), "bad")}
    verdicts = {name: _verdict(votes[name], words) for name in sorted(votes, key=order.__getitem__)}
    added = {one.label for one in verdicts.values() if one.kind == "label"} - set(classes)
    if disagreeing:
        one = _TWO.replace("rows name", "row names", 1)
        notes.append(passed_over.summary(disagreeing, _TWO, one))
    return Consensus(
        verdicts, tuple(unmatched), (*classes, *sorted(added)), passed_over.collected(passed),
        tuple(notes),
    )  # fmt: skip


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _verdict(votes: Sequence[Vote], words: Mapping[str, str]) -> Verdict:
    """The majority of votes, a conflict in a tie; `words` are shown for unsure and bad."""
    counts = collections.Counter((vote.kind, vote.label) for vote in votes)
    most = max(counts.values())
    first = [meaning for meaning, count in counts.items() if count == most]
    kind, label = first[0] if len(first) == 1 else ("conflict", "")
    winners = [v for v in votes if kind == "conflict" or (v.kind, v.label) == (kind, label)]
    named = [(label or words[kind], count) for (kind, label), count in counts.items()]
    return Verdict(
        kind,
        label,
        "+".join(sorted({vote.answer.annotator for vote in winners} - {""})),
        "+".join(sorted({vote.answer.source for vote in winners})),
        tuple(sorted(named, key=lambda pair: (-pair[1], pair[0]))),
        max((v.answer.updated for v in votes if is_live(v.answer.source)), default=""),
    )


def verdict_digest(verdict: Verdict) -> str:
    """Digest of a verdict: every new answer changes it, a copy of an answer in a new file, too."""
    content = tuple(verdict) if verdict.renewed else tuple(verdict)[:-1]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def changes(
    old: Mapping[str, Verdict], new: Mapping[str, Verdict], files: Mapping[str, str] | None = None
) -> list[str]:
    """A line for each image whose verdict has changed, then how many labels came and went.

    Verdicts are given by image id; `files` are the images' names by id, shown in its place.
    """
    names = files or {}
    pairs = [(names.get(i, i), _text(old[i]), _text(new[i])) for i in old if i in new]
    lines = [f"{shown(name)} {was} -> {now}" for name, was, now in sorted(pairs) if was != now]
    counts = {"new": len(new.keys() - old.keys()), "deleted": len(old.keys() - new.keys())}
    return lines + [
        f"{count:,} {word} label{'s' * (count != 1)}" for word, count in counts.items() if count
    ]


def _text(verdict: Verdict) -> str:
    return verdict.label or verdict.kind


# What has to be asked


def _check_rows(answered: Mapping[str, Mapping[str, list[Vote]]], files: Mapping[str, str]) -> None:
    """Raises UserError where one person's rows of one file contradict each other.

    `files` are the images' files by id.
    """
    found = {
        name: pair
        for name, annotators in answered.items()
        for votes in annotators.values()
        if (pair := contradiction(votes)) is not None
    }
    if not found:
        return
    source = min(pair[0].answer.source for pair in found.values())
    here = {n: pair for n, pair in found.items() if pair[0].answer.source == source}
    name, pair = min(here.items(), key=lambda item: item[1][0].answer.line)
    said = [
        f"{shown(vote.answer.label) or 'skipped'} in"
        f" {place(source, vote.answer.line).removeprefix(source).strip()}"
        for vote in pair
    ]
    count = f"{len(here):,} image{'s' * (len(here) != 1)}"
    raise UserError(
        f"{source} says different things of {count}: {shown(files[name])} is {said[0]} and"
        f" {said[1]}: leave one row of each, or say who in a column annotator"
    )


def _check_words(
    votes: Sequence[Vote], images: int, ask: Collection[str], classes: Sequence[str]
) -> list[str]:
    """A line for each word for an answer that is no class; UserError where many may mean a class.

    On a page or task of ours it was a button beside the classes, and means what that says.
    """
    notes = []
    said: dict[tuple[str, str], list[Vote]] = {}
    for vote in votes:
        answer = vote.answer
        if vote.kind in ask and answer.label and not answer.is_offered:
            said.setdefault((vote.kind, class_names.caseless(answer.label)), []).append(vote)
    for (kind, word), all_of_it in said.items():
        count, first = len(all_of_it), all_of_it[0].answer
        said_of = f"said of {count:,} image{'s' * (count != 1)}"
        notes.append(f'"{word}" is {said_of}, and means "{_MEANS[kind]}" here, not a class')
        if count >= max(_LEAST, _SHARE * images):
            other = next(one for one in class_names.INSTEAD[kind] if one != word)
            names = ",".join(f"'{name}'" for name in classes) or "..."
            raise UserError(
                f"{place(first.source, first.line)}: {word} is said of {count:,} of {images:,}"
                f' images, and means "{_MEANS[kind]}" here: if it is a class, give'
                f" --config.folder.{_KEYS[kind]}=\"('{other}',)\"; if not, name the classes,"
                f' --config.folder.classes="({shown(names, 100)},)"'
            )
    return notes


def _check_doubtful(votes: Sequence[Vote], fixed: bool) -> None:
    """Raises UserError for new labels that may stand for empty cells, or for other names."""
    for vote in votes:
        label = vote.label
        is_date = class_names.may_be_date(label)
        if fixed or vote.answer.is_offered or not (is_date or class_names.may_be_missing(label)):
            continue
        count = sum(other.label == label for other in votes)
        why = ", and may be what a spreadsheet made of a name such as 1-2" if is_date else ""
        mend = "write that name" if is_date else "empty these cells"
        raise UserError(
            f"{place(vote.answer.source, vote.answer.line)}: {label} is said of {count:,}"
            f" image{'s' * (count != 1)}{why}: name it in folder.classes if it is a class, or"
            f" {mend}"
        )
