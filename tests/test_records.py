"""Tables, figures, logs and the progress display against hand-made results."""

import io
import json
from types import SimpleNamespace

import numpy as np
from rich.console import Console
from tavaal_jax.plots import curves
from tavaal_jax.runner import _is_before, _Pace

from configs import moons
from tavaal_jax import metrics, statistics, workdir

VALUES = {"random": [[0.5, 0.7], [0.6, 0.9]], "tavaal": [[0.4, 0.9], [0.8, 0.9]]}


def rows():
    config = moons.get_config()
    return [
        row
        for name, trials in VALUES.items()
        for trial, values in enumerate(trials)
        for row in workdir.result_rows(
            config, name, trial, np.array(values)[:, None], ("accuracy",)
        )
    ]


def test_result_rows_and_file(tmp_path):
    workdir.write_results(tmp_path, rows())
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "method,trial,cycle,labelled,metric,value"
    assert lines[1:3] == ["random,0,0,20,accuracy,0.500000", "random,0,1,30,accuracy,0.700000"]
    assert len(lines) == 9
    unfinished = np.array([[0.5], [np.nan]])
    assert len(workdir.result_rows(moons.get_config(), "random", 0, unfinished, ("a",))) == 1


def test_final_table_has_mean_and_deviation_over_trials():
    out = io.StringIO()
    Console(file=out, width=100).print(metrics.final_table(rows()))
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in out.getvalue().splitlines()]
    assert ["random", "2", "0.550", "0.800"] in cells
    assert ["", "", "± 0.071", "± 0.141"] in cells
    assert ["tavaal", "2", "0.600", "0.900"] in cells
    assert ["", "", "± 0.283", "± 0.000"] in cells
    out = io.StringIO()
    Console(file=out, width=100).print(metrics.final_table(rows()[:1]))
    assert "0.500" in out.getvalue()
    assert "±" not in out.getvalue().split("\n", 1)[1]


def test_differences_are_paired_by_trial():
    found = statistics.curves(rows(), "accuracy")
    difference = curves._differences(found)["tavaal"]
    np.testing.assert_allclose(sorted(difference[20].values()), [-0.1, 0.2])
    np.testing.assert_allclose(sorted(difference[30].values()), [0.0, 0.2], atol=1e-9)
    del found["random"][20][1]
    assert list(curves._differences(found)["tavaal"][20]) == [0]


def test_a_figure_without_a_baseline(tmp_path):
    only = [row for row in rows() if row["method"] == "tavaal"]
    curves.accuracy(only, tmp_path / "accuracy.png", "moons")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_picks_are_in_the_order_they_were_made(tmp_path):
    state = SimpleNamespace(
        labelled_in=np.array([0, 2, 1, -1, 1]),
        pick_rank=np.array([-1, 0, 1, -1, 0]),
        pick_score=np.array([0, 0.25, -1.5, 0, 1e-8], np.float32),
    )
    workdir.write_picks(tmp_path, state, np.array(["a", "b", "c", "d", "e"]))
    assert (tmp_path / "picks.csv").read_text().splitlines() == [
        "cycle,rank,index,id,score",
        "0,0,4,e,9.99999994e-09",
        "0,1,2,c,-1.5",
        "1,0,1,b,0.25",
    ]


def test_config_json_remembers_what_ran_earlier(tmp_path):
    config = moons.get_config()
    workdir.write_config(tmp_path, config)
    workdir.write_config(tmp_path, config)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["earlier"] == []
    config.trials = 9
    workdir.check_config(tmp_path, config)
    workdir.write_config(tmp_path, config)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["trials"] == 9
    assert [old["config"]["trials"] for old in record["earlier"]] == [5]


def test_runs_are_found_whatever_else_lies_there(tmp_path):
    for name in ("random/trial_0", "tavaal/trial_10", "random/trial_0_old", "other/trial_1"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    assert workdir.runs(tmp_path) == [("random", 0), ("tavaal", 10)]


def test_json_lines_drop_what_will_be_told_again_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = metrics.JsonLines(path, lambda record: record["step"] <= 2)
    log.write({"step": 3, "again": True})
    log.close()
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    assert steps == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_what_is_before_a_state():
    state = SimpleNamespace(cycle=1, stage=2, step=7)
    record = lambda cycle, stage, step: {"cycle": cycle, "stage_index": stage, "step": step}
    assert _is_before(record(0, 3, 99), state)
    assert _is_before(record(1, 1, 0), state)
    assert _is_before(record(1, 2, 7), state)
    assert not _is_before(record(1, 2, 8), state)
    assert not _is_before(record(1, 2, 0), state)
    assert not _is_before(record(1, 3, 0), state)


def test_pace_doubles_while_calls_are_short_and_halves_when_they_are_long():
    pace = _Pace(seconds=5.0, most=6)
    assert pace("task") == 1
    for expected in (2, 4, 6, 6):
        pace.observe("task", 0.1)
        assert pace("task") == expected
    pace.observe("task", 4.0)
    assert pace("task") == 6
    pace.observe("task", 20.0)
    assert pace("task") == 3
    assert pace("joint") == 1
    assert _Pace(seconds=0, most=6)("task") == 6


def test_display_prints_lines_with_the_time_left_where_there_is_no_terminal():
    out = io.StringIO()
    with metrics.Display(100, Console(file=out)) as display:
        display.line("first")
        display.skip(50)
        display.advance(25, "training")
        display.line("second")
    assert "first  [time left unknown]" in out.getvalue()
    assert "second  [0 s left]" in out.getvalue()
