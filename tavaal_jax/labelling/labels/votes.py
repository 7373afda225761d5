"""Votes: answers with their meaning, of which the last one of each annotator counts."""

from collections.abc import Sequence
from typing import NamedTuple

from tavaal_jax.labelling.labels.rows import REQUESTS, Answer, moment
from tavaal_jax.labelling.passed_over import natural


class Vote(NamedTuple):
    """An answer with its meaning."""

    answer: Answer
    kind: str
    """label, unsure or bad."""
    label: str
    copy: int | str
    """Which of several files of the same content the answer names."""


def precedence(answer: Answer) -> tuple[object, ...]:
    """Sort key of answers: later ones override earlier ones; by age, then file and line."""
    # Folders of the images are older than requests, and files in labels/ correct both.
    if not answer.line and "/" not in answer.source:
        age = 0
    else:
        age = 1 if answer.source.startswith(REQUESTS) else 2
    # Of two files the one that sorts last counts, and (10) behind (2); one line may have several.
    return age, natural(answer.source), answer.source, answer.line, answer


def final_votes(votes: Sequence[Vote]) -> list[Vote]:
    """The votes of one annotator on one image that count, of votes in order: the last.

    Where several files of the same content have different labels in one label file, none of them
    is the last: the last vote on each counts.
    """
    if len(votes) == 1:
        return list(votes)
    group = _group(_last(votes).answer)
    copies: dict[int | str, list[Vote]] = {}
    for vote in votes:
        if _group(vote.answer) == group:
            copies.setdefault(vote.copy, []).append(vote)
    different: dict[tuple[str, str], Vote] = {}
    for vote in map(_last, copies.values()):
        different.setdefault((vote.kind, vote.label), vote)
    return list(different.values())


def contradiction(votes: Sequence[Vote]) -> tuple[Vote, Vote] | None:
    """Two votes on one file in rows of which neither is the later one; None where there are none.

    `votes` are those of one person on one image. An older label file cannot contradict itself.
    """
    if len(votes) == 1:
        return None
    last = _last(votes)
    for vote in votes:
        is_same = (vote.answer.source, vote.copy) == (last.answer.source, last.copy)
        differs = (vote.kind, vote.label) != (last.kind, last.label)
        times = [one.answer.updated and moment(one.answer.updated) for one in (vote, last)]
        if last.answer.line and is_same and differs and times[0] == times[1]:
            return vote, last
    return None


def _last(votes: Sequence[Vote]) -> Vote:
    """The vote with the newest time, or the last one behind it that has no time."""
    timed = [at for at, vote in enumerate(votes) if vote.answer.updated]
    newest = max(timed, key=lambda at: (moment(votes[at].answer.updated), at), default=-1)
    return next(
        vote for at, vote in reversed(list(enumerate(votes))) if at == newest or at not in timed
    )


def _group(answer: Answer) -> str:
    """The label file of an answer, or the folder that holds the class folders."""
    return answer.source if answer.line else answer.source.partition("/")[0]
