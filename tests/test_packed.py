"""Packed files of trials, and the tables that studies make of them; values are made up."""

import sys

import numpy as np
import pytest
from conftest import ROOT, read_csv

sys.path.insert(0, str(ROOT / "benchmarks"))
import camvid_small
import cifar10_small
from packed import FIELDS, Packed, Place

from tavaal_jax.report import files


def trial(folder, method, values, **diagnosed):
    """Writes the files of a trial."""
    folder.mkdir(parents=True)
    results = [
        {"method": method, "trial": 0, "cycle": c, "labelled": 1000 * (c + 1), "metric": "accuracy",
         "value": value}
        for c, value in enumerate(values)
    ]  # fmt: skip
    picks = [{"cycle": 0, "rank": r, "index": r, "id": f"cat_{r}", "score": 1} for r in range(2)]
    rows = [{"cycle": 0, "labelled": 1000, "picks_class_entropy": 2, **diagnosed}]
    for name, found in (("results", results), ("picks", picks)):
        files.write(folder / f"{name}.csv", files.as_csv(tuple(found[0]), found))
    files.write(folder / "diagnostics.csv", files.as_csv(FIELDS["diagnostics"], rows))


def test_a_trial_goes_through_packed_files_unchanged(tmp_path):
    place = Place("balanced", "tavaal_released", 0)
    trial(tmp_path / "here", "tavaal", [0.5, 0.6], discriminator_auc=0.7)
    pack = Packed(tmp_path / "packed")
    pack.take(place, tmp_path / "here")
    pack.write()
    again = Packed(tmp_path / "packed")
    assert again.cycles(place) == 2
    again.give(place, "tavaal", tmp_path / "there")
    for name in ("results", "picks", "diagnostics"):
        there = (tmp_path / "there" / f"{name}.csv").read_text()
        assert there == (tmp_path / "here" / f"{name}.csv").read_text()
    assert not (tmp_path / "there" / "class_iou.csv").exists()


def test_less_does_not_replace_more_and_finished_trials_need_no_picks(tmp_path):
    place = Place("balanced", "random", 0)
    trial(tmp_path / "long", "random", [0.5, 0.6, 0.7])
    trial(tmp_path / "short", "random", [0.5])
    pack = Packed(tmp_path / "packed", ".csv")
    pack.take(place, tmp_path / "long")
    pack.take(place, tmp_path / "short")
    assert pack.cycles(place) == 3
    pack.drop_picks(cycles=4)
    assert pack.rows["picks"]
    pack.drop_picks(cycles=3)
    pack.write()
    assert read_csv(tmp_path / "packed" / "picks.csv") == []
    assert len(read_csv(tmp_path / "packed" / "results.csv")) == 3


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of three trials: `tavaal` is 0.1 above the others with 100:1, 0.1 below balanced."""
    monkeypatch.setattr(cifar10_small, "STUDY", tmp_path)
    cifar10_small.rows_of.cache_clear()
    noise, pack = np.random.default_rng(0), Packed(tmp_path)
    for condition, gain in (("balanced", -0.1), ("thinned_100", 0.1)):
        for method in ("random", "coreset", "vaal", "tavaal"):
            for number in range(3):
                values = 0.5 + gain * (method == "tavaal") + noise.normal(0, 1e-3, 5)
                place = Place(condition, method, number)
                for cycle, value in enumerate(values):
                    row = {"cycle": cycle, "labelled": 1000 * (cycle + 1), "metric": "accuracy"}
                    pack.rows["results"].setdefault(place, []).append(row | {"value": f"{value}"})
                row = dict.fromkeys(FIELDS["diagnostics"], "") | {"cycle": 0, "labelled": 1000}
                row |= {"picks_loss": 2.0, "subset_loss": 1.0, "labelled_class_entropy": 2.2}
                pack.rows["diagnostics"][place] = [row]
    pack.write()
    yield tmp_path
    cifar10_small.rows_of.cache_clear()


def test_claims_come_out_or_not(study):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in cifar10_small.claims()[2:]]
    verdicts = {(row[0], row[1]): row[-1] for row in rows}
    assert verdicts["4(a), thinned_100", "TA-VAAL is above random"] == "comes out"
    assert verdicts["3(a), balanced", "TA-VAAL is above coreset"] == "does not"
    assert not any(row[0].startswith("4(b)") for row in rows)  # There is no trial of that.
    # Differences that are all zero have no interval.
    picks = "TA-VAAL picks images of higher loss than VAAL (difference loss)"
    assert verdicts["8, thinned_100", picks] == "cannot be told"


def test_a_table_has_a_row_for_each_method(study):
    lines = cifar10_small.table("thinned_100")
    assert lines[2].startswith("| `tavaal` |")
    assert len(lines) == 2 + 4
    assert "600, 6,160" in lines[2]
    assert cifar10_small.table("thinned_10") == ["No trial is finished."]


def test_neighbouring_frames_are_a_block():
    frames = [f"train/a_{i:03d}.jpg" for i in range(25)] + ["train/b_000.jpg"]
    rows = [{"method": "random", "trial": 0, "id": frames[i]} for i in (0, 9, 10, 24, 25)]
    assert camvid_small.blocks(rows, frames) == {"random": {0: 4}}


def test_rare_classes_are_drawn_more_often():
    import jax

    shares = np.tile(np.array([[0.98, 0.02]]), (200, 1))
    shares[:20] = 0.5
    labelled = np.array([[0.98, 0.02]])
    positions, scores = camvid_small.rarer_more_often(shares, 20, jax.random.key(0), labelled)
    assert len(set(positions)) == 20
    assert (positions < 20).sum() > 8  # 2 of 20 by chance.
    assert np.isfinite(scores).all()
