"""Results, picks, diagnostics and the log of trials, and their union."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.errors import UserError
from tavaal_jax.report import files, records
from tavaal_jax.report.diagnostics import ALWAYS


def result(method, trial, cycle=0, value=0.5):
    return {
        "method": method, "trial": trial, "cycle": cycle, "labelled": 20 + 10 * cycle,
        "metric": "accuracy", "value": value,
    }  # fmt: skip


def leave(workdir, method, trial, *values):
    """The results that a trial has left in a study's folder: `-> its folder`."""
    folder = files.trial_folder(workdir, method, trial)
    folder.mkdir(parents=True)
    rows = [result(method, trial, cycle, value) for cycle, value in enumerate(values)]
    records.write_results(folder, rows)
    return folder


# Results


def test_result_rows_and_file(tmp_path):
    state = SimpleNamespace(
        results=np.array([[0.5, 2.0], [0.7, 3.0], [np.nan, np.nan]]), counts=np.array([20, 27, -1])
    )
    rows = records.result_rows(state, "random", 3, ("accuracy", "loss"))
    records.write_results(tmp_path, rows)
    assert (tmp_path / "results.csv").read_text().splitlines() == [
        "method,trial,cycle,labelled,metric,value",
        "random,3,0,20,accuracy,0.500000",
        "random,3,0,20,loss,2.000000",
        "random,3,1,27,accuracy,0.700000",
        "random,3,1,27,loss,3.000000",
    ]
    assert records.read_results(tmp_path) == rows
    assert [type(value) for value in rows[0].values()] == [str, int, int, int, str, float]


def test_a_result_that_is_not_a_number_is_written_and_read(tmp_path):
    records.write_results(tmp_path, [result("random", 0, value=float("nan"))])
    assert np.isnan(records.read_results(tmp_path)[0]["value"])


def test_without_a_file_there_are_no_results(tmp_path):
    assert records.read_results(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "method,trial,cycle,labelled,metric,value\nrandom,0,0,20,accuracy,0.5\nrandom,0,1,3",
        "method,trial,cycle,labelled,metric,value\nrandom,0,0,20,accuracy,zero\n",
        "method,trial\nrandom,0\n",
        "\0\0\0\0\n\0\0",
        "\ufffd\udcff",
    ],
)
def test_damaged_results_are_named_with_a_mend(tmp_path, text):
    (tmp_path / "results.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as error:
        records.read_results(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'results.csv'} cannot be read (")
    assert "put back a copy, or delete that trial's folder" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_studys_results_are_the_union_of_its_trials(tmp_path):
    names = list(METHODS)
    first, last = names[0], names[-1]
    leave(tmp_path, last, 0, 0.1)
    leave(tmp_path, "of_tomorrow", 0, 0.2)
    leave(tmp_path, first, 10, 0.3)
    leave(tmp_path, first, 2, 0.4, 0.5)
    rows, faults = records.all_results(tmp_path)
    assert faults == []
    assert [(row["method"], row["trial"], row["cycle"]) for row in rows] == [
        (first, 2, 0), (first, 2, 1), (first, 10, 0), (last, 0, 0), ("of_tomorrow", 0, 0),
    ]  # fmt: skip
    assert [row["value"] for row in rows] == [0.4, 0.5, 0.3, 0.1, 0.2]


def test_nothing_is_dropped_when_a_trials_folder_is_gone(tmp_path):
    leave(tmp_path, "random", 0, 0.1)
    kept = [result("random", 0, value=0.9), result("random", 1), result("tavaal", 0)]
    records.write_results(tmp_path, kept)
    rows, faults = records.all_results(tmp_path)
    assert faults == []
    # A trial's own file says what is true of it.
    assert rows == [result("random", 0, value=0.1), *kept[1:]]


def test_a_trial_that_has_written_nothing_yet_keeps_what_the_study_has(tmp_path):
    files.trial_folder(tmp_path, "random", 1).mkdir(parents=True)
    records.write_results(tmp_path, [result("random", 1)])
    assert records.all_results(tmp_path) == ([result("random", 1)], [])


def test_a_damaged_file_of_one_trial_is_reported_and_the_others_stay(tmp_path):
    leave(tmp_path, "random", 0, 0.1)
    damaged = leave(tmp_path, "random", 1, 0.2)
    (damaged / "results.csv").write_text("method,trial\nrandom")
    rows, (fault,) = records.all_results(tmp_path)
    assert rows == [result("random", 0, value=0.1)]
    assert str(damaged / "results.csv") in str(fault)
    # What the study had of it stays, too.
    records.write_results(tmp_path, [result("random", 1, value=0.2)])
    assert [row["trial"] for row in records.all_results(tmp_path)[0]] == [0, 1]


def test_a_damaged_union_is_made_anew_from_its_parts(tmp_path):
    leave(tmp_path, "random", 0, 0.1)
    (tmp_path / "results.csv").write_text("method,trial\nrandom")
    assert records.all_results(tmp_path) == ([result("random", 0, value=0.1)], [])


# Figures of each class


def test_figures_of_each_class_are_written_cycle_by_cycle_and_read(tmp_path):
    assert records.read_class_iou(tmp_path) == []
    records.write_class_iou(tmp_path, 0, 20, {"road": 0.5, "a,b": float("nan")})
    records.write_class_iou(tmp_path, 1, 30, {"road": 0.1234567, "a,b": 1.0})
    records.write_class_iou(tmp_path, 1, 30, {"road": 0.25, "a,b": 1.0})
    assert (tmp_path / "class_iou.csv").read_text().splitlines() == [
        "cycle,labelled,class,iou",
        "0,20,road,0.500000",
        '0,20,"a,b",',
        "1,30,road,0.250000",
        '1,30,"a,b",1.000000',
    ]
    rows = records.read_class_iou(tmp_path)
    assert rows[0] == {"cycle": 0, "labelled": 20, "class": "road", "iou": 0.5}
    assert np.isnan(rows[1]["iou"])


@pytest.mark.parametrize(
    "text",
    [
        "cycle,labelled,class,iou\n0,20,road,0.5\n0,20,ca",
        "cycle,labelled,class,iou\n0,20,road,half\n",
        "cycle,labelled\n0,20\n",
        "\0\0\0\0\n\0\0",
        "\udcff",
    ],
)
def test_damaged_figures_of_each_class_are_named_and_begun_anew(tmp_path, text):
    path = tmp_path / "class_iou.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as error:
        records.read_class_iou(tmp_path)
    assert str(error.value).startswith(f"{path} cannot be read (")
    assert str(error.value).endswith("): delete that file: it is not needed to go on")
    assert "\n" not in str(error.value)
    records.write_class_iou(tmp_path, 1, 30, {"road": 0.25})
    assert path.read_text() == "cycle,labelled,class,iou\n1,30,road,0.250000\n"


# Picks and diagnostics


def test_picks_are_in_the_order_they_were_made(tmp_path):
    state = SimpleNamespace(
        picked_in=np.array([-1, 1, 0, -1, 0]),
        pick_rank=np.array([-1, 0, 1, -1, 0]),
        pick_score=np.array([0, 0.25, -1.5, 0, 1e-8], np.float32),
    )
    records.write_picks(tmp_path, state, np.array(["a", "b", "c", "d", "e"]))
    assert (tmp_path / "picks.csv").read_text().splitlines() == [
        "cycle,rank,index,id,score",
        "0,0,4,e,9.99999994e-09",
        "0,1,2,c,-1.5",
        "1,0,1,b,0.25",
    ]
    picks = records.read_picks(tmp_path)
    assert list(picks) == ["cycle", "rank", "index", "id", "score"]
    np.testing.assert_array_equal(picks["index"], [4, 2, 1])
    np.testing.assert_array_equal(picks["id"], ["e", "c", "b"])
    np.testing.assert_array_equal(picks["score"].astype(np.float32), state.pick_score[[4, 2, 1]])


def test_ids_with_commas_and_quotes_come_back(tmp_path):
    state = SimpleNamespace(
        picked_in=np.array([0, 0]), pick_rank=np.array([0, 1]), pick_score=np.zeros(2, np.float32)
    )
    records.write_picks(tmp_path, state, np.array(['a,"b"', "c\nd"]))
    np.testing.assert_array_equal(records.read_picks(tmp_path)["id"], ['a,"b"', "c\nd"])


def test_without_picks_there_are_empty_columns(tmp_path):
    picks = records.read_picks(tmp_path)
    assert {name: len(column) for name, column in picks.items()} == dict.fromkeys(
        ("cycle", "rank", "index", "id", "score"), 0
    )
    assert picks["index"].dtype == np.int64


def test_a_table_has_six_digits_and_empty_cells(tmp_path):
    table = [{"a": 1 / 3, "b": 12}, {"b": 7}]
    records.write_table(tmp_path / "table.csv", ("a", "b"), table)
    assert (tmp_path / "table.csv").read_text() == "a,b\n0.333333,12\n,7\n"


def test_diagnostics_of_all_trials_carry_method_and_trial(tmp_path):
    for name, trial in (("tavaal", 1), ("random", 0)):
        folder = leave(tmp_path, name, trial)
        records.write_table(folder / "diagnostics.csv", (*ALWAYS, "kl"), [dict.fromkeys(ALWAYS, 2)])
    leave(tmp_path, "vaal", 0)
    rows = dict.fromkeys(ALWAYS, "2")
    assert records.read_diagnostics(tmp_path) == [
        {"method": "random", "trial": 0, **rows, "kl": ""},
        {"method": "tavaal", "trial": 1, **rows, "kl": ""},
    ]


@pytest.mark.parametrize("name", ALWAYS)
def test_diagnostics_without_what_figures_need_are_named_and_left_out(tmp_path, name):
    rest = {other: 2 for other in ALWAYS if other != name}
    for method, fields in (("random", tuple(rest)), ("vaal", tuple(ALWAYS))):
        path = leave(tmp_path, method, 0) / "diagnostics.csv"
        records.write_table(path, fields, [rest])
    found, (column, cell) = records.all_diagnostics(tmp_path)
    assert found == []
    assert f"random/trial_0/diagnostics.csv cannot be read (no column '{name}')" in str(column)
    assert "vaal/trial_0/diagnostics.csv cannot be read (could not convert" in str(cell)


# The log


def test_the_log_drops_what_will_be_told_again_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = records.Log(path, lambda record: record["step"] <= 2)
    log.write({"step": 3, "again": True})
    log.close()
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    assert steps == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    assert records.read_log(tmp_path) == steps


def test_a_record_whose_line_was_not_ended_is_not_lost(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    log = records.Log(path, lambda record: True)
    log.write({"step": 3})
    log.close()
    assert records.read_log(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_lines_that_hold_no_record_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('7\n{"step": 1}\nnull\n[1]\n{"step"\n')
    assert records.read_log(tmp_path) == [{"step": 1}]
    assert records.read_log(tmp_path / "nowhere") == []


def test_what_is_written_can_be_read_at_once(tmp_path):
    log = records.Log(tmp_path / "metrics.jsonl", lambda record: True)
    log.write({"step": 1})
    assert log.records() == [{"step": 1}]
    log.close()


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*gone/metrics\.jsonl"):
        records.Log(tmp_path / "gone" / "metrics.jsonl", lambda record: True)


def test_a_copy_of_a_methods_folder_is_no_method(tmp_path):
    own = leave(tmp_path, "random", 0, 0.1)
    leave(tmp_path, "of_tomorrow", 0, 0.2)
    shutil.copytree(own, tmp_path / "random.bak" / "trial_0")
    shutil.copytree(own, tmp_path / "random" / "trial_7")
    rows, faults = records.all_results(tmp_path)
    assert [(row["method"], row["trial"]) for row in rows] == [("random", 0), ("of_tomorrow", 0)]
    assert files.trials(tmp_path) == [("random", 0), ("of_tomorrow", 0)]
    assert [str(fault).removeprefix(f"{tmp_path}/") for fault in faults] == [
        f"{folder} is left out: it holds random's trial 0, of which it seems to be a copy"
        for folder in ("random/trial_7", "random.bak/trial_0")
    ]
