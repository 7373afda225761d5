"""A trial's state from its picks.csv and results.csv alone.

Every cycle starts from fresh weights, so between two cycles nothing else is needed: a trial moves
to another folder or machine with two small files, and goes on after its checkpoints are gone.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.errors import TrialError
from tavaal_jax.report import files, records
from tavaal_jax.study import cycle
from tavaal_jax.study.setup import Setup


def replay(setup: Setup, key: jax.Array, folder: pathlib.Path, ids: np.ndarray) -> LoopState | None:
    """The state after the cycles that the files in a trial's `folder` hold whole.

    None where there is none. `key` is the trial's, `ids` `[N]` are the training images'. Raises
    TrialError where the picks cannot be this trial's.
    """
    rows = [row for row in records.read_results(folder) if row["metric"] in setup.problem.metrics]
    evaluated = {row["cycle"] for row in rows}
    if not evaluated or not (folder / "picks.csv").exists():
        return None
    picks = records.read_picks(folder)
    diagnosed = {int(row["cycle"]) for row in files.read_csv(folder / "diagnostics.csv")}
    state = cycle.blank(setup, key)
    for number in range(setup.config.cycles - 1):
        mine = picks["cycle"] == number
        # A cycle is gone through again if it was stopped before its diagnosis.
        if not mine.any() or number not in evaluated or (diagnosed and number not in diagnosed):
            break
        indices, ranks = picks["index"][mine], picks["rank"][mine]
        _check(setup, key, state, folder, indices, ranks)
        named = picks["id"][mine]
        if (ids[indices].astype(str) != named).any():
            wrong = int(np.flatnonzero(ids[indices].astype(str) != named)[0])
            _refuse(folder, f"image {indices[wrong]} of cycle {number} is {ids[indices[wrong]]}"
                            f" here and {named[wrong]} there")  # fmt: skip
        state = _labelled(setup, state, indices, ranks, picks["score"][mine])
    if not state.cycle:
        return None
    results, counts = state.results.copy(), state.counts.copy()
    for row in (row for row in rows if row["cycle"] < state.cycle):
        results[row["cycle"], setup.problem.metrics.index(row["metric"])] = row["value"]
        counts[row["cycle"]] = row["labelled"]
    state = state.replace(results=results, counts=counts)
    return cycle.fresh(setup, key, state)


def _check(setup, key, state, folder, indices, ranks):
    """TrialError unless the picks are of this cycle's subset, each once, as many as asked."""
    number = state.cycle
    stream = derive(key, Stream.SUBSET, number)
    subset = plans.subset(stream, state.labelled, setup.config.subset)
    count = min(setup.config.budget, len(subset))
    if sorted(ranks) != list(range(count)):
        _refuse(folder, f"cycle {number} has not the ranks 0 to {count - 1}, each once")
    strange = np.setdiff1d(indices, subset)
    if len(strange):
        _refuse(folder, f"image {strange[0]} is not in this trial's subset of cycle {number}")
    if len(np.unique(indices)) < count:
        _refuse(folder, f"cycle {number} has an image twice")


def _refuse(folder: pathlib.Path, what: str) -> Any:
    raise TrialError(
        f"{folder / 'picks.csv'} is not of this trial: {what}; put back the trial's own, or delete"
        " that folder to run it anew"
    )


def _labelled(setup, state, indices, ranks, scores):
    """The state with a cycle's picks made and answered, at the start of the next."""
    arrays = {
        name: getattr(state, name).copy()
        for name in ("labels", "labelled_in", "picked_in", "pick_rank", "pick_score")
    }
    answers = setup.oracle.answer(indices)
    arrays["labels"][indices] = answers
    arrays["labelled_in"][indices[answers >= 0]] = state.cycle + 1
    arrays["picked_in"][indices] = state.cycle
    arrays["pick_rank"][indices], arrays["pick_score"][indices] = ranks, scores
    following = cycle.names(setup.config, setup.method, state.cycle + 1)[0]
    return state.replace(cycle=state.cycle + 1, stage=following, **arrays)
