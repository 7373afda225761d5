"""One trial with its files: late reports, pace, what a log keeps, stopping, faults."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import read_csv, several_devices
from trials import compiled_once, config_of, trial

from tavaal_jax import Interrupted
from tavaal_jax.algorithm import picks, values
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.engine import devices, processes
from tavaal_jax.errors import TrialError
from tavaal_jax.report.checkpoints import Checkpoints
from tavaal_jax.study import context, cycle, recorder
from tavaal_jax.study.trial import CallSizer


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    with compiled_once():
        yield


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and events of a trial whose metrics were fetched at once."""
    folder, events = tmp_path_factory.mktemp("finished"), []
    trial(folder, config_of(seconds_per_call=0.0, steps_per_call=3), callback=events.append).run()
    return folder, events


def test_late_metrics_are_the_same_and_none_is_lost(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(context.StageReport, "is_ready", lambda self: False)
    trial(tmp_path, config_of(seconds_per_call=0.0, steps_per_call=3)).run()
    assert records(tmp_path) == records(finished[0])
    late, at_once = (read_csv(folder / "results.csv") for folder in (tmp_path, finished[0]))
    assert late == at_once


def test_a_finished_trial_leaves_its_records_and_its_model(finished):
    folder, _ = finished
    assert sorted(p.name for p in folder.iterdir()) == [
        "diagnostics", "diagnostics.csv", "metrics.jsonl", "model", "picks.csv", "results.csv",
    ]  # fmt: skip
    rows = read_csv(folder / "results.csv")
    assert [(r["method"], r["trial"], r["cycle"], r["labelled"]) for r in rows] == [
        ("random", "0", "0", "20"), ("random", "0", "1", "30"),
    ]  # fmt: skip
    assert len(read_csv(folder / "picks.csv")) == 10
    assert [d["labelled"] for d in read_csv(folder / "diagnostics.csv")] == ["20"]
    with np.load(folder / "diagnostics" / "cycle_0.npz") as arrays:
        assert len(arrays["index"]) == 100


def test_events_tell_of_every_training_step_once(finished):
    _, events = finished
    trained_in = [(e.cycle, e.step) for e in events if e.stage == "task"]
    assert trained_in == [(0, 3), (0, 4), (1, 3), (1, 4)]
    assert {e.method for e in events} == {"random"}
    texts = [e.text for e in events if e.text]
    assert [text.split(", accuracy")[0] for text in texts] == [
        "random trial 0 cycle 0: 20 labelled", "random trial 0 cycle 1: 30 labelled",
    ]  # fmt: skip
    assert all(set(e.metrics) == {"task_loss"} for e in events if e.stage == "task")


@several_devices
def test_a_state_that_devices_disagree_on_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_devices_agree", lambda tree: jnp.bool_(False))
    config = config_of(steps_per_call=2)  # Programs of its own.
    with pytest.raises(RuntimeError, match="devices disagree after task"):
        trial(tmp_path, config).run()


def test_a_stopped_trial_goes_on_to_the_same_end(finished, tmp_path):
    config = config_of(seconds_per_call=0.0, steps_per_call=3)
    asked = iter([None, None, None, 15])
    with pytest.raises(Interrupted) as error:
        trial(tmp_path, config, stop=lambda: next(asked)).run()
    assert error.value.number == 15
    assert (tmp_path / "checkpoints").is_dir()
    events = []
    trial(tmp_path, config, callback=events.append).run()
    assert events[0].text.startswith("random trial 0 continues in cycle 0, stage ")
    assert events[0].skipped > 0
    for name in ("results.csv", "picks.csv"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes()
    assert records(tmp_path) == records(finished[0])
    assert not (tmp_path / "checkpoints").exists()


def test_a_trial_that_is_asked_to_stop_before_it_starts_has_a_checkpoint(tmp_path):
    config = config_of()
    with pytest.raises(Interrupted):
        trial(tmp_path, config, stop=lambda: 2).run()
    mine = trial(tmp_path, config)
    state = Checkpoints(tmp_path / "checkpoints").restore(cycle.template(mine._setup))
    assert (state.cycle, state.stage, state.step) == (0, "task", 0)


def test_a_simulation_saves_seldom_and_people_after_each_training(tmp_path, monkeypatch):
    saved, begin = [], (0, "task", 0)
    note = lambda self, state: saved.append((state.cycle, state.stage, state.step))
    monkeypatch.setattr(Checkpoints, "save", note)
    monkeypatch.setattr(recorder, "_SAVE_EVERY", 1e9)  # However slow the machine is.

    def moments(name, initial_state=None, **changes):
        saved.clear()
        mine = trial(tmp_path / name, config_of(**changes))
        if initial_state is not None:
            first = lambda key: initial_state(mine._setup, key)
            mine._open = functools.partial(mine._open, initial_state=first)
        mine.run()
        return saved

    with compiled_once():
        assert moments("short") == [begin]
        assert moments("steps", checkpoint_every_steps=3) == [begin, (0, "task", 3), (1, "task", 3)]
        trained = [begin, (0, "evaluate", 0), (1, "task", 0), (1, "evaluate", 0), (2, "", 0)]
        assert moments("people", cycle.start) == trained
        monkeypatch.setattr(recorder, "_SAVE_EVERY", 0.0)
        stages = ("task", "evaluate", "select", "label", "diagnose")
        first = [(0, stage, 0) for stage in stages]
        assert moments("long") == [*first, (1, "task", 0), (1, "evaluate", 0), (2, "", 0)]


def test_a_trial_that_is_killed_before_a_diagnosis_makes_it(tmp_path, monkeypatch):
    """Picks that no checkpoint is behind are on the disk only when they are diagnosed."""
    monkeypatch.setattr(recorder, "_SAVE_EVERY", 1e9)

    def kill(event):
        if (event.cycle, event.stage) == (1, "label"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial(tmp_path, config_of(cycles=3), callback=kill).run()
    assert {row["cycle"] for row in read_csv(tmp_path / "picks.csv")} == {"0"}
    trial(tmp_path, config_of(cycles=3)).run()
    assert [row["cycle"] for row in read_csv(tmp_path / "diagnostics.csv")] == ["0", "1"]


# Faults


def test_a_fault_of_a_methods_values_names_trial_and_cycle(tmp_path):
    nan = Method("nan", lambda view, key: values.uniform(view, key) + jnp.nan, picks.smallest)
    with pytest.raises(TrialError) as error:
        trial(tmp_path, config_of(), nan).run()
    text = str(error.value)
    assert text.startswith("nan trial 0: in cycle 0, value of 100 of 100 images is not finite")
    assert "mend the method's value or pick" in text
    assert "\n" not in text
    # What was evaluated before stays.
    assert [r["cycle"] for r in read_csv(tmp_path / "results.csv")] == ["0"]


def test_a_pick_that_repeats_an_image_is_a_fault_of_the_trial(tmp_path):
    def twice(found, count, key, labelled=None):
        return np.zeros(count, int), np.zeros(count)

    with pytest.raises(TrialError, match=r"twice trial 0: in cycle 0, its pick chose an image tw"):
        trial(tmp_path, config_of(), Method("twice", values.uniform, twice)).run()


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_checkpoint(tmp_path):
    config = config_of(**{"task.learning_rate": 1e30, "task.optimiser": "sgd"})
    with pytest.raises(TrialError) as error:
        trial(tmp_path, config).run()
    text = str(error.value)
    assert text.startswith("random trial 0: ")
    assert "in cycle 0" in text
    assert "step" in text
    assert f"the last good checkpoint is kept in {tmp_path / 'checkpoints'}" in text
    restored = Checkpoints(tmp_path / "checkpoints").restore(
        cycle.template(trial(tmp_path / "other", config)._setup)
    )
    assert (restored.cycle, restored.stage) == (0, "task")


# Pace


def test_pace_doubles_while_calls_are_short_and_halves_when_they_are_long():
    pace = CallSizer(seconds=5.0, most=6)
    assert pace("task") == 1
    for expected in (2, 4, 6, 6):
        pace.observe("task", 0.1)
        assert pace("task") == expected
    pace.observe("task", 4.0)
    assert pace("task") == 6
    pace.observe("task", 20.0)
    assert pace("task") == 3
    assert pace("joint") == 1
    assert CallSizer(seconds=0, most=6)("task") == 6


def test_several_processes_make_the_same_calls(monkeypatch):
    monkeypatch.setattr(processes, "several", lambda: True)
    pace = CallSizer(seconds=5.0, most=6)
    assert pace("task") == 6
