"""A trial's recorder: the lines of a log that it keeps, the cost of what is done."""

from types import SimpleNamespace

import numpy as np
import pytest
from trials import config_of, trial

from tavaal_jax.study import cycle, training
from tavaal_jax.study.recorder import is_before


def test_what_is_before_a_state():
    names = lambda number: ("task", "evaluate", "adversary", "select", "label")
    state = SimpleNamespace(cycle=1, stage="adversary", step=7)
    record = lambda cycle, stage, step: {"cycle": cycle, "stage": stage, "step": step}
    before = lambda *place: is_before(record(*place), state, names)
    assert before(0, "select", 99)
    assert before(1, "evaluate", 0)
    assert before(1, "adversary", 7)
    assert not before(1, "adversary", 8)
    assert not before(1, "adversary", 0)
    assert not before(1, "select", 0)
    assert not before(2, "task", 1)


def test_everything_is_before_the_end_of_a_trial():
    state = SimpleNamespace(cycle=2, stage="", step=0)
    record = {"cycle": 1, "stage": "evaluate", "step": 0}
    assert is_before(record, state, lambda number: ("task", "evaluate"))


@pytest.mark.parametrize(
    ("place", "units"),
    [((0, "task", 0), 0), ((0, "task", 3), 3), ((0, "select", 0), 4), ((1, "task", 2), 6)],
)
def test_units_of_an_earlier_process_are_counted(tmp_path, place, units):
    mine = trial(tmp_path, config_of())
    recorder = mine._open(lambda stage, seconds: None)
    assert training.STEP_COST["task"] == 1
    number, stage, step = place
    counts = np.array([20 if number or stage != "task" else -1, -1])
    state = cycle.template(mine._setup).replace(cycle=number, stage=stage, step=step, counts=counts)
    labelled_in = np.where(np.arange(550) < 20, 0, np.where(np.arange(550) < 30, 1, -1))
    assert recorder._units_before(state.replace(labelled_in=labelled_in)) == units
