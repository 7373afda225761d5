"""What a notebook reads of a study."""

import numpy as np
import pytest
from conftest import results_of

from tavaal_jax.errors import UserError
from tavaal_jax.report import records, statistics
from tavaal_jax.report.result import StudyResult


@pytest.fixture
def folder(tmp_path):
    for trial in range(2):
        mine = tmp_path / "tavaal" / f"trial_{trial}"
        mine.mkdir(parents=True)
        values = [0.25 * (1 + c + trial) for c in range(2)]
        records.write_results(mine, results_of("tavaal", trial, values))
        (mine / "picks.csv").write_text("cycle,rank,index,id,score\n0,0,7,train_7,0.5\n")
        (mine / "diagnostics.csv").write_text("cycle,labelled,picks_class_entropy\n0,10,1.5\n")
    return tmp_path


def test_rows_and_table(folder):
    result = StudyResult(str(folder))
    assert [row["value"] for row in result.rows()] == [0.25, 0.5, 0.5, 0.75]
    table = result.table()
    assert table == statistics.summary(result.rows())
    assert [row["mean"] for row in table if row["metric"] == "accuracy"] == [0.375, 0.625]


def test_picks_are_arrays(folder):
    picks = StudyResult(folder).picks("tavaal", trial=1)
    np.testing.assert_array_equal(picks.index, [7])
    np.testing.assert_array_equal(picks.id, ["train_7"])
    np.testing.assert_array_equal(picks.score, [0.5])
    np.testing.assert_array_equal((picks.cycle, picks.rank), [[0], [0]])


def test_diagnostics_and_the_models_folder(folder):
    result = StudyResult(folder)
    row = {"cycle": "0", "labelled": "10", "picks_class_entropy": "1.5"}
    expected = {"method": "tavaal", "trial": 0, **row}
    assert result.diagnostics() == [expected, {**expected, "trial": 1}]
    assert result.model_folder("tavaal", 1) == folder / "tavaal" / "trial_1" / "model"


def test_damaged_picks_are_named(folder):
    (folder / "tavaal" / "trial_0" / "picks.csv").write_text("cycle,rank\n0")
    with pytest.raises(UserError, match=r"picks\.csv"):
        StudyResult(folder).picks("tavaal")


@pytest.mark.parametrize(("method", "trial"), [("tavaal", 2), ("tavall", 0)])
def test_a_trial_that_is_not_there(folder, method, trial):
    with pytest.raises(UserError) as error:
        StudyResult(folder).picks(method, trial)
    expected = f"no trial {trial} of {method!r} in {folder}: there are tavaal 0, tavaal 1"
    assert str(error.value) == expected


def test_a_folder_without_a_study(tmp_path):
    result = StudyResult(tmp_path)
    assert result.rows() == result.table() == result.diagnostics() == []
    with pytest.raises(UserError, match="there are none"):
        result.picks("random")


def test_it_says_which_folder_it_reads():
    assert repr(StudyResult("runs/digits")) == "StudyResult('runs/digits')"
    assert "~" not in str(StudyResult("~/runs").folder)
