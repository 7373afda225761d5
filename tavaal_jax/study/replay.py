"""Replays a trial to its state from picks.csv and results.csv alone.

Every cycle starts from fresh weights, so between two cycles nothing else is needed: a trial moves
to another folder or machine with two small files, and goes on after its checkpoints are gone.
"""

import contextlib
import pathlib
from typing import NoReturn

import jax
import numpy as np

from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.errors import TrialError, UserError
from tavaal_jax.report import records
from tavaal_jax.study import cycle
from tavaal_jax.study.setup import Setup


def is_ahead(folder: pathlib.Path, state: LoopState) -> bool:
    """Whether picks.csv in a trial's `folder` holds cycles that `state` does not contain."""
    with contextlib.suppress(UserError):  # A damaged file is written anew from the state.
        return bool((records.read_picks(folder)["cycle"] > state.cycle).any())
    return False


def replay(
    setup: Setup, key: jax.Array, folder: pathlib.Path, number: int, ids: np.ndarray
) -> LoopState | None:
    """Replays the cycles in the files of a trial's `folder`, `-> state`; None without picks.

    `key` and `number` are the trial's, `ids` `[N]` the training images'. A diagnosis that is not in
    diagnostics.csv stays out: the weights it needs are gone. Raises TrialError, and changes
    nothing, where the files cannot be this trial's.
    """
    picks = records.read_picks(folder)
    cycles = np.unique(picks["cycle"])
    if not len(cycles):
        return None
    if list(cycles) != list(range(len(cycles))) or len(cycles) >= setup.config.cycles:
        most = setup.config.cycles - 2
        _refuse(folder, f"it has picks of the cycles {cycles.tolist()}, not of 0 to {most} at most")
    evaluated = _evaluated(setup, folder, number)
    state = cycle.blank(setup, key)
    for now in range(len(cycles)):
        rows = picks["cycle"] == now
        count = int(state.labelled.sum())
        found = evaluated.get(now)
        if found is None or set(found) != {(count, m) for m in setup.problem.metrics}:
            _refuse(folder, f"cycle {now} begins with {count} labels, and results.csv there has"
                            f" {sorted(found or ()) or 'no row of it'}")  # fmt: skip
        results, counts = state.results.copy(), state.counts.copy()
        results[now] = [found[count, metric] for metric in setup.problem.metrics]
        counts[now] = count
        _check(setup, key, state, folder, picks["index"][rows], picks["rank"][rows])
        _check_ids(folder, ids, picks["index"][rows], picks["id"][rows])
        state = _labelled(setup, state.replace(results=results, counts=counts), picks, rows)
    return cycle.fresh(setup, key, state)


def _evaluated(
    setup: Setup, folder: pathlib.Path, number: int
) -> dict[int, dict[tuple[int, str], float]]:
    """Values in results.csv: `{cycle: {(labelled, metric): value}}`."""
    found: dict[int, dict[tuple[int, str], float]] = {}
    for row in records.read_results(folder):
        if (row["method"], row["trial"]) != (setup.method.name, number):
            _refuse(folder, f"results.csv beside it is of {row['method']} trial {row['trial']}")
        found.setdefault(row["cycle"], {})[row["labelled"], row["metric"]] = row["value"]
    return found


def _check(
    setup: Setup,
    key: jax.Array,
    state: LoopState,
    folder: pathlib.Path,
    indices: np.ndarray,
    ranks: np.ndarray,
) -> None:
    """Raises TrialError unless the picks are a full request from the cycle's subset."""
    number = state.cycle
    stream = derive(key, Stream.SUBSET, number)
    subset = plans.subset(stream, setup.candidates(state.labelled), setup.config.subset)
    count = min(setup.config.budget, len(subset))
    if sorted(ranks) != list(range(count)):
        _refuse(folder, f"cycle {number} has not the ranks 0 to {count - 1}, each once")
    strange = np.setdiff1d(indices, subset)
    if len(strange):
        _refuse(folder, f"image {strange[0]} is not in this trial's subset of cycle {number}")
    if len(np.unique(indices)) < count:
        _refuse(folder, f"cycle {number} has an image twice")


def _check_ids(
    folder: pathlib.Path, ids: np.ndarray, indices: np.ndarray, named: np.ndarray
) -> None:
    """Raises TrialError unless the images `indices` have the ids `named`."""
    other = np.flatnonzero(ids[indices].astype(str) != named)
    if len(other):
        index = indices[other[0]]
        _refuse(folder, f"image {index} is {ids[index]} here and {named[other[0]]} there")


def _refuse(folder: pathlib.Path, what: str) -> NoReturn:
    raise TrialError(
        f"{folder / 'picks.csv'} is not of this trial: {what}; put back the trial's own, or delete"
        " that folder to run it anew"
    )


def _labelled(
    setup: Setup, state: LoopState, picks: dict[str, np.ndarray], rows: np.ndarray
) -> LoopState:
    """State at the start of the next cycle, with the picks `rows` made and labelled."""
    names = ("labels", "labelled_in", "picked_in", "pick_rank", "pick_score")
    arrays = {name: getattr(state, name).copy() for name in names}
    indices = picks["index"][rows]
    answers = setup.oracle.answer(indices)
    arrays["labels"][indices] = answers
    arrays["labelled_in"][indices[answers >= 0]] = state.cycle + 1
    arrays["picked_in"][indices] = state.cycle
    arrays["pick_rank"][indices] = picks["rank"][rows]
    arrays["pick_score"][indices] = picks["score"][rows]
    following = cycle.stage_names(setup.config, setup.method, state.cycle + 1)[0]
    return state.replace(cycle=state.cycle + 1, stage=following, **arrays)
