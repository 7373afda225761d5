"""The ablation's driver and report, and the check of the stop hint, on studies made by hand."""

import argparse
import csv
import gzip
import importlib.util
import pathlib
import sys

import numpy as np
import pytest
from conftest import results, results_of

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.config import KEYS
from tavaal_jax.report import records

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ablation, stop_hint = script("ablation"), script("stop_hint")


def arguments(workdir, **changes):
    given = {"config": ["moons"], "trials": 4, "block": 2, "processes": 2, "cells": ""}
    given |= {"methods": "", "first_trial": 0}
    return argparse.Namespace(workdir=workdir, **{**given, **changes})


def write(folder, method, curves):
    """results.csv of a study in which each trial of `method` has a curve."""
    for trial, values in curves.items():
        to = folder / method / f"trial_{trial}"
        to.mkdir(parents=True)
        records.write_results(to, results_of(method, trial, values))


def test_every_cell_names_keys_and_methods_that_there_are():
    for keys, methods in ablation.CELLS.values():
        assert set(keys) <= set(KEYS)
        assert set(methods.split(",")) <= set(METHODS)
    for pair in ablation.EFFECTS.values():
        for cell, method in pair:
            assert method in ablation.CELLS[cell][1].split(",")


def test_cells_grow_at_the_same_pace_and_the_long_ones_to_half():
    jobs = ablation.jobs(arguments(pathlib.Path()), "moons")
    short = [cell for cell in ablation.CELLS if cell not in ablation.LONG]
    assert [cell for _, cell, _, first, _ in jobs if first == 0] == list(ablation.CELLS)
    assert [cell for _, cell, _, first, _ in jobs if first == 2] == short
    assert {last for *_, last in jobs} == {2, 4}
    ends = {cell: last for _, cell, *_, last in jobs}
    assert all(ends[cell] == 2 for cell in ablation.LONG)


def test_the_rest_is_left_to_other_machines():
    given = arguments(pathlib.Path(), methods="random,tavaal", first_trial=2)
    jobs = ablation.jobs(given, "moons")
    short = [cell for cell in ablation.CELLS if cell not in ablation.LONG]
    own = [c for c in short if {"random", "tavaal"} & set(ablation.CELLS[c][1].split(","))]
    assert [cell for _, cell, *_ in jobs] == own  # The long ones have no third trial.
    assert {job[2:] for job in jobs} == {("random,tavaal", 2, 4), ("tavaal", 2, 4)}
    assert not ablation.jobs(arguments(pathlib.Path(), methods="sraal"), "moons")


def test_a_command_overrides_the_keys_of_its_cell():
    command = ablation.command(pathlib.Path("w"), "moons", "two_phase_raw", "tavaal", 5, 10)
    assert "--config=configs/moons.py" in command
    assert "--workdir=w/moons/two_phase_raw/trials_5" in command
    assert {"--config.methods=tavaal", "--config.first_trial=5", "--config.trials=10",
            "--config.schedule=two_phase",
            "--config.rank_to_discriminator=raw"} <= set(command)  # fmt: skip


def test_all_jobs_are_run_and_a_failure_is_told(tmp_path, monkeypatch, capsys):
    def command(workdir, config, cell, methods, first, last):
        code = (
            f"open(r'{tmp_path}/{cell}_{first}', 'w'); raise SystemExit({int(cell == 'no_rank')})"
        )
        return [sys.executable, "-c", code]

    monkeypatch.setattr(ablation, "command", command)
    assert ablation.run(arguments(tmp_path, cells="no_rank,detach_0")) == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"no_rank_0", "no_rank_2", "detach_0_0", "detach_0_2"}
    told = capsys.readouterr().out
    assert told.count("failed") == 2
    assert told.count("done") == 2
    assert ablation.run(arguments(tmp_path, cells="detach_0")) == 0


def test_effects_are_paired_differences_over_all_parts_of_a_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "STUDIES", tmp_path / "studies")
    base, other = tmp_path / "moons" / "detach_0.6", tmp_path / "moons" / "no_rank"
    write(base / "trials_0", "random", {0: (0.5, 0.6), 1: (0.6, 0.7)})
    write(base / "trials_2", "random", {2: (0.4, 0.6), 3: (0.9, 0.9)})
    write(base / "trials_0", "vaal", {0: (0.5, 0.7), 1: (0.6, 0.9)})
    write(other / "trials_0", "tavaal", {0: (0.5, 0.8), 1: (0.7, 0.9), 2: (0.1, 0.2)})
    assert ablation.report(arguments(tmp_path)) == 0
    text = (tmp_path / "studies" / "moons.md").read_text()
    # Under the curve vaal is better than random by 0.05 and 0.1: t = 12.7 with one degree.
    assert "| the adversary alone: vaal less random | 2 | +0.075 [-0.243, +0.393] |" in text
    # First cycle 0 and 0, last 0.1 and 0.2.
    assert "| +0.000 | +0.150 [-0.485, +0.785] |" in text
    assert "| no_rank | `tavaal` | 3 |" in text
    assert "tavaal: ranking loss" not in text
    packed = (tmp_path / "studies" / "moons_results.csv.gz").read_bytes()
    kept = list(csv.DictReader(gzip.decompress(packed).decode().splitlines()))
    assert len(kept) == 18
    assert {row["method"] for row in kept} == {
        "detach_0.6/random", "detach_0.6/vaal", "no_rank/tavaal"
    }  # fmt: skip
    assert (tmp_path / "studies" / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_of_nothing_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "STUDIES", tmp_path / "studies")
    assert ablation.report(arguments(tmp_path)) == 2
    assert "run first" in capsys.readouterr().err


def test_the_hint_is_checked_on_every_prefix():
    labelled = (10, 20, 30, 40, 60)
    curve = {n: {0: 0.5 + n / 200, 1: 0.5 + n / 200} for n in labelled}
    found = stop_hint.checked(curve)
    # After 10, 20, 30 comes 40; after ... 40 comes 60, which is no such step.
    assert [said.labelled for said, _ in found] == [30]
    np.testing.assert_allclose(found[0][1], 0.05)


def test_the_check_of_the_hint_prints_a_row_per_study(monkeypatch, capsys, tmp_path):
    curve = lambda t: [1 - 0.4 * (c + 1) ** -0.5 + 0.001 * t * (-1) ** c for c in range(6)]
    records.write_results(tmp_path, results(random=[curve(t) for t in range(3)]))
    monkeypatch.setattr(sys, "argv", ["stop_hint.py", str(tmp_path / "results.csv")])
    assert stop_hint.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["3", "9", "3", "9"]
    hint, nothing = (float(lines[2].split("|")[i]) for i in (4, 7))
    assert hint < 0.5 * nothing


def test_an_unknown_cell_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "run", "moons", "--cells=no_rank,nope"])
    with pytest.raises(SystemExit):
        ablation.main()
    assert "--cells has nope: give some of detach_0.6, " in capsys.readouterr().err


def test_parts_that_overlap_count_once(tmp_path):
    for part, trials in (("trials_0", (0, 1)), ("trials_1", (1, 2))):
        write(tmp_path / "no_rank" / part, "tavaal", dict.fromkeys(trials, (0.5, 0.6)))
    rows, _ = ablation.collect(tmp_path)
    assert sorted((row["trial"], row["cycle"]) for row in rows) == [
        (trial, cycle) for trial in range(3) for cycle in range(2)
    ]


@pytest.mark.parametrize("name", ["ablation", "stop_hint"])
def test_scripts_tell_their_flags(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as caught:
        script(name).main()
    assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out
