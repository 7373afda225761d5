"""A trial goes on from picks.csv and results.csv alone, or is told why it cannot."""

import re
import shutil

import numpy as np
import pytest
from conftest import read_csv
from trials import KEY, compiled_once, config_of, prepared

from tavaal_jax import errors
from tavaal_jax.algorithm.state import derive
from tavaal_jax.run import run_study
from tavaal_jax.study import cycle, replay

METHOD = "tavaal"
TRIAL = f"{METHOD}/trial_0"


def config(**changes):
    return config_of(methods=METHOD, trials=1, cycles=4, **changes)


@pytest.fixture(autouse=True, scope="module")
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted study."""
    folder = tmp_path_factory.mktemp("whole")
    run_study(config(), folder)
    return folder


def moved(whole, folder, cycles, names=("picks.csv", "results.csv")):
    """Another folder with what a trial had written when it had gone through `cycles` cycles."""
    to = folder / TRIAL
    to.mkdir(parents=True)
    for name in names:
        header, *lines = (whole / TRIAL / name).read_text().splitlines(keepends=True)
        at = header.strip().split(",").index("cycle")
        kept = [line for line in lines if int(line.split(",")[at]) < cycles]
        (to / name).write_text(header + "".join(kept))
    return to


@pytest.mark.parametrize("cycles", [2, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 3))])
def test_another_folder_goes_on_to_the_same_files(whole, tmp_path, cycles):
    told = []
    to = moved(whole, tmp_path, cycles)
    run_study(config(), tmp_path, progress=lambda event: told.append(event.text))
    assert any(f"continues in cycle {cycles}, stage" in text for text in told if text)
    for name in ("picks.csv", "results.csv"):
        assert (to / name).read_bytes() == (whole / TRIAL / name).read_bytes()
    assert (tmp_path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert {row["cycle"] for row in read_csv(to / "diagnostics.csv")} == {
        str(number) for number in range(cycles, 3)
    }


@pytest.mark.slow
def test_a_trial_may_be_moved_again_and_again(whole, tmp_path):
    """Its diagnoses know of later cycles only; nothing is begun anew."""
    first, second = tmp_path / "first", tmp_path / "second"
    moved(whole, first, 1)
    run_study(config(), first)
    to = moved(first, second, 3, ("picks.csv", "results.csv", "diagnostics.csv"))
    told = []
    run_study(config(), second, progress=lambda event: told.append(event.text))
    assert any("continues in cycle 3, stage" in text for text in told if text)
    for name in ("picks.csv", "results.csv"):
        assert (to / name).read_bytes() == (whole / TRIAL / name).read_bytes()
    rows = (first / TRIAL / "diagnostics.csv").read_text().splitlines()
    assert (to / "diagnostics.csv").read_text().splitlines() == rows


@pytest.mark.slow
def test_a_cycle_with_results_but_without_picks_is_done_again(whole, tmp_path):
    to = moved(whole, tmp_path, 2, ("results.csv",))
    shutil.copy(moved(whole, tmp_path / "less", 1, ("picks.csv",)) / "picks.csv", to)
    told = []
    run_study(config(), tmp_path, progress=lambda event: told.append(event.text))
    assert any("continues in cycle 1, stage" in text for text in told if text)
    assert (to / "picks.csv").read_bytes() == (whole / TRIAL / "picks.csv").read_bytes()


@pytest.mark.slow
def test_files_that_are_further_than_a_checkpoint_go_before_it(whole, tmp_path):
    folder, asked = tmp_path / "study", []

    def stop():
        asked.append(None)
        return 15 if len(asked) > 20 else None

    with pytest.raises(errors.Interrupted):
        run_study(config(), folder, stop=stop)
    to = folder / TRIAL
    assert (to / "checkpoints").exists()
    behind = {row["cycle"] for row in read_csv(to / "results.csv")}
    assert behind <= {"0"}
    for name in ("picks.csv", "results.csv"):
        shutil.copy(moved(whole, tmp_path / name, 3, (name,)) / name, to)
    told = []
    run_study(config(), folder, progress=lambda event: told.append(event.text))
    assert any("continues in cycle 3, stage" in text for text in told if text)
    for name in ("picks.csv", "results.csv"):
        assert (to / name).read_bytes() == (whole / TRIAL / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_it_is_said_where_no_config_shows_how_picks_were_made(whole, tmp_path, there):
    moved(whole, tmp_path, 2)
    if there:
        shutil.copy(whole / "config.json", tmp_path)
    told = []
    run_study(config(), tmp_path, progress=lambda event: told.append(event.text or ""))
    assert any("no config.json shows how they were made" in text for text in told) != there


def test_the_state_is_the_one_that_the_loop_came_through(whole, tmp_path):
    made = prepared(METHOD)
    key = derive(KEY, 0)
    config_2 = made.config
    assert config_2.cycles == 2
    state = cycle.start(made, key)
    for after, _ in cycle.advance(made, key, state, lambda stage: 50):
        if after.cycle == 1:
            break
    picks = np.flatnonzero(after.picked_in == 0)
    ids = np.array([f"point_{i}" for i in range(made.size)])
    lines = [f"0,{after.pick_rank[i]},{i},{ids[i]},{after.pick_score[i]:.9g}\n" for i in picks]
    (tmp_path / "picks.csv").write_text("cycle,rank,index,id,score\n" + "".join(lines))
    value = f"{METHOD},0,0,{after.counts[0]},accuracy,{after.results[0, 0]:.6f}\n"
    (tmp_path / "results.csv").write_text("method,trial,cycle,labelled,metric,value\n" + value)
    found = replay.replay(made, key, tmp_path, 0, ids)
    for name in ("labels", "labelled_in", "picked_in", "pick_rank", "pick_score", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(after, name), err_msg=name)
    assert (found.cycle, found.stage, found.step) == (after.cycle, after.stage, after.step)


def spoil(to, change):
    path = to / "picks.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def other_column(number, text):
    def change(lines):
        fields = lines[1].split(",")
        fields[number] = text
        return [lines[0], ",".join(fields), *lines[2:]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "cycle 1 has not the ranks 0 to 9"),
        (other_column(1, "3"), "cycle 0 has not the ranks 0 to 9"),
        (other_column(2, "100000"), "image 100000 is not in this trial's subset of cycle 0"),
        (other_column(3, "somebody"), "and somebody there"),
        (lambda lines: [lines[0], "0,0,", *lines[2:]], "cannot be read"),
    ],
)
def test_picks_of_something_else_are_refused_and_kept(whole, tmp_path, change, said):
    to = moved(whole, tmp_path, 2)
    spoil(to, change)
    before = (to / "picks.csv").read_bytes()
    with pytest.raises(errors.UserError, match=re.escape(said)) as caught:
        run_study(config(), tmp_path)
    assert "\n" not in str(caught.value)
    assert (to / "picks.csv").read_bytes() == before


def no_results(to):
    (to / "results.csv").unlink()


def of_another_method(to):
    path = to / "results.csv"
    path.write_text(path.read_text().replace(METHOD, "vaal"))


def of_another_trial(to):
    path = to / "results.csv"
    path.write_text(path.read_text().replace(f"{METHOD},0,", f"{METHOD},1,"))


def with_other_labels(to):
    path = to / "results.csv"
    path.write_text(path.read_text().replace(",20,accuracy", ",25,accuracy"))


def with_a_gap(to):
    spoil(to, lambda lines: [line for line in lines if not line.startswith("0,")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_results, "cycle 0 begins with 20 labels, and results.csv there has no row of it"),
        (of_another_method, "results.csv beside it is of vaal trial 0"),
        (of_another_trial, f"results.csv beside it is of {METHOD} trial 1"),
        (with_other_labels, "cycle 0 begins with 20 labels, and results.csv there has [(25,"),
        (with_a_gap, "it has picks of the cycles [1], not of 0 to 2 at most"),
    ],
)
def test_results_of_something_else_are_refused_and_picks_kept(whole, tmp_path, change, said):
    to = moved(whole, tmp_path, 2)
    change(to)
    before = (to / "picks.csv").read_bytes()
    with pytest.raises(errors.UserError, match=re.escape(said)) as caught:
        run_study(config(), tmp_path)
    assert "\n" not in str(caught.value)
    assert (to / "picks.csv").read_bytes() == before


@pytest.mark.slow
def test_damaged_diagnostics_are_no_hindrance(whole, tmp_path):
    to = moved(whole, tmp_path, 2)
    (to / "diagnostics.csv").write_text("cycle,labelled\nx,y\n")
    run_study(config(), tmp_path)
    assert (to / "picks.csv").read_bytes() == (whole / TRIAL / "picks.csv").read_bytes()


def test_another_seed_is_refused(whole, tmp_path):
    to = moved(whole, tmp_path, 2)
    with pytest.raises(errors.UserError, match=r"is not in this trial's subset|an image twice"):
        run_study(config(seed=7), tmp_path)
    assert (to / "picks.csv").exists()


# By what a cycle starts from: weights of T, R and each adversary, labels, keys of values and picks.
KINDS = ("mc_dropout", "learning_loss_v2", "sraal", "badge", "power_margin", "uherding", "alfa_mix")


@pytest.mark.slow
def test_methods_of_every_kind_go_on_alike(tmp_path):
    changes = {"methods": ",".join(KINDS), "trials": 1, "cycles": 3}
    run_study(config_of(**changes), tmp_path / "whole")
    for name in KINDS:
        to = tmp_path / "half" / name / "trial_0"
        to.mkdir(parents=True)
        for file in ("picks.csv", "results.csv"):
            source = tmp_path / "whole" / name / "trial_0" / file
            header, *lines = source.read_text().splitlines(keepends=True)
            at = header.strip().split(",").index("cycle")
            kept = [line for line in lines if int(line.split(",")[at]) < 1]
            (to / file).write_text(header + "".join(kept))
    run_study(config_of(**changes), tmp_path / "half")
    for name in KINDS:
        for file in ("picks.csv", "results.csv"):
            there = f"{name}/trial_0/{file}"
            half, whole = (tmp_path / part / there for part in ("half", "whole"))
            assert half.read_bytes() == whole.read_bytes(), there
