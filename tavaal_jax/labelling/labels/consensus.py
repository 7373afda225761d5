"""Consensus of all answers: one verdict per image, a pure function of answers and images."""

import collections
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels import class_names
from tavaal_jax.labelling.labels.matching import Index
from tavaal_jax.labelling.labels.rows import Answer, moment, place, shown


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


class Consensus(NamedTuple):
    """Verdicts on all images that were answered."""

    verdicts: dict[str, Verdict]
    """By the image's id."""
    unmatched: tuple[str, ...]
    """A line for each row that names no image, or several."""
    classes: tuple[str, ...]
    """Classes known before in their order, then new ones, sorted."""


_REQUESTS = "to_label/"  # where requests lie


class _Vote(NamedTuple):
    """An answer with its meaning."""

    answer: Answer
    kind: str
    """label, unsure or bad."""
    label: str
    copy: int | str
    """Which of several files of the same content the answer names."""


def aggregate(
    images: Sequence[Image],
    answers: Iterable[Answer],
    *,
    classes: Sequence[str],
    fixed: bool,
    unsure: Sequence[str],
    bad: Sequence[str],
) -> Consensus:
    """The consensus of all answers, in whichever order they come.

    `classes` are those known so far, or with `fixed` all there may be; `unsure` and `bad` are the
    words for answers that are no class. Raises UserError where a label cannot be a class.
    """
    classes = tuple(unicodedata.normalize("NFC", name) for name in classes)
    kinds = class_names.answer_kinds(classes, unsure, bad)
    index = Index(images)
    unmatched = []
    answered: dict[str, dict[str, list[_Vote]]] = {}  # by image and annotator
    for answer in sorted(answers, key=_precedence):
        if not (answer.label or answer.skipped):
            continue
        row, reason = index.find(answer)
        if row < 0:
            unmatched.append(f"{place(answer.source, answer.line)}: {reason}")
        elif name := images[row].id:  # An image that cannot be read needs no verdict.
            label = unicodedata.normalize("NFC", answer.label)
            kind = "unsure" if answer.skipped else kinds.get(label.casefold(), "label")
            copy = row if answer.line else f"{answer.source} {answer.name}"
            vote = _Vote(answer, kind, label if kind == "label" else "", copy)
            answered.setdefault(name, {}).setdefault(answer.annotator, []).append(vote)
    votes = {
        name: [vote for by_one in annotators.values() for vote in _final_votes(by_one)]
        for name, annotators in answered.items()
    }
    named = [vote for on_one in votes.values() for vote in on_one if vote.kind == "label"]
    named.sort(key=lambda vote: _precedence(vote.answer))
    places = [(vote.label, place(vote.answer.source, vote.answer.line)) for vote in named]
    class_names.check_labels(places, classes, fixed)
    words = {"unsure": next(iter(unsure), "unsure"), "bad": next(iter(bad), "bad")}
    order = {name: row for row, name in reversed(list(enumerate(i.id for i in images)))}
    verdicts = {name: _verdict(votes[name], words) for name in sorted(votes, key=order.__getitem__)}
    new = {verdict.label for verdict in verdicts.values() if verdict.kind == "label"} - set(classes)
    return Consensus(verdicts, tuple(unmatched), (*classes, *sorted(new)))


def verdict_digest(verdict: Verdict) -> str:
    """Digest of a verdict: every new answer changes it, a copy of an answer in a new file, too."""
    return hashlib.sha256(repr(tuple(verdict)).encode()).hexdigest()[:16]


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


# Which answers count


def _precedence(answer: Answer) -> tuple[int, str, int, Answer]:
    """Sort key of answers: later ones override earlier ones; by age, then file and line."""
    # Folders of the images are older than requests, and files in labels/ correct both.
    if not answer.line and "/" not in answer.source:
        age = 0
    else:
        age = 1 if answer.source.startswith(_REQUESTS) else 2
    return (age, answer.source, answer.line, answer)  # One line may have several answers.


def _final_votes(votes: Sequence[_Vote]) -> list[_Vote]:
    """The votes of one annotator on one image that count, of votes in order: the last.

    Where several files of the same content have different labels in one label file, none of them
    is the last: the last vote on each counts.
    """
    if len(votes) == 1:
        return list(votes)
    group = _group(_last(votes).answer)
    copies: dict[int | str, list[_Vote]] = {}
    for vote in votes:
        if _group(vote.answer) == group:
            copies.setdefault(vote.copy, []).append(vote)
    different: dict[tuple[str, str], _Vote] = {}
    for vote in map(_last, copies.values()):
        different.setdefault((vote.kind, vote.label), vote)
    return list(different.values())


def _last(votes: Sequence[_Vote]) -> _Vote:
    """The vote with the newest time, or the last one behind it that has no time."""
    timed = [at for at, vote in enumerate(votes) if vote.answer.updated]
    newest = max(timed, key=lambda at: (moment(votes[at].answer.updated), at), default=-1)
    return next(
        vote for at, vote in reversed(list(enumerate(votes))) if at == newest or at not in timed
    )


def _group(answer: Answer) -> str:
    """The label file of an answer, or the folder that holds the class folders."""
    return answer.source if answer.line else answer.source.partition("/")[0]


def _verdict(votes: Sequence[_Vote], words: Mapping[str, str]) -> Verdict:
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
    )
