"""Events for a callback, and their display."""

import io

import pytest
from rich.console import Console

from tavaal_jax.report import progress
from tavaal_jax.report.progress import Event


def test_a_tracker_turns_units_into_shares():
    events = []
    tracker = progress.Tracker(events.append, 100)
    tracker("first", skipped=50, method="random", trial=3)
    tracker(units=25, cycle=1, stage="task", step=7, metrics={"loss": 0.5})
    tracker(units=100)
    assert events == [
        Event("first", 0.5, 0.5, "random", 3),
        Event(None, 0.75, 0.5, None, None, 1, "task", 7, {"loss": 0.5}),
        Event(None, 1.0, 0.5),
    ]


def test_a_study_without_work_is_done():
    events = []
    progress.Tracker(events.append, 0)(units=0)
    assert events[0].done == 0.0
    assert progress.silent(events[0]) is None


def shown(*events, terminal=False):
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=terminal)
    with progress.Display(console) as display:
        for event in events:
            display(event)
    return out.getvalue()


def test_lines_have_the_time_left_where_there_is_no_terminal():
    out = shown(
        Event("first", 0.5, 0.5, "random", 0),
        Event(None, 0.75, 0.5, "random", 0, 0, "task", 3),
        Event("second", 0.75, 0.5, "random", 0),
    )
    assert "first  [time left unknown]\n" in out
    assert "second  [0 s left]\n" in out
    assert out.count("\n") == 2


@pytest.mark.parametrize(("elapsed", "left"), [(10, "30 s left"), (60, "3 min left")])
def test_the_time_left_goes_by_what_this_process_has_done(elapsed, left, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    display = progress.Display(Console(file=out, width=200))
    now[0] = elapsed
    # A fifth was done earlier, a fifth now: three fifths take three times as long.
    display(Event("line", 0.4, 0.2, "random", 0))
    assert f"line  [{left}]" in out.getvalue()


def test_nothing_is_left_when_all_is_done():
    out = shown(Event("last", 1.0, 0.0, "random", 0))
    assert out == "last\n"


def test_a_line_about_the_whole_study_has_no_time_left():
    assert shown(Event("All is [bold]finished[/bold].")) == "All is [bold]finished[/bold].\n"


def test_on_a_terminal_a_bar_says_where_the_study_is():
    out = shown(
        Event("kept", 0.5, 0.0, "random", 1, 2, "task", 30),
        Event(None, 0.6, 0.0, "random", 1, 2, "task", 40),
        terminal=True,
    )
    assert "kept" in out
    assert "left]" not in out
    assert "random trial 1 cycle 2 task 40" in out


def test_a_long_line_is_not_broken():
    out = io.StringIO()
    with progress.Display(Console(file=out, width=20)) as display:
        display(Event("word " * 20))
    assert out.getvalue().count("\n") == 1
