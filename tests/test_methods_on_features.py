"""Studies of methods on features: settings, bounds, and what is told from their results."""

import argparse
import gzip
import pathlib
import sys

import numpy as np
import pytest
from conftest import ROOT, results, results_of

sys.path.append(str(ROOT / "benchmarks"))
import bounds
import methods_on_features as study
import which_method

from tavaal_jax.report import files, records


def arguments(workdir, **changes):
    given = {"names": ["tiny"], "settings": ["1_small"], "workdir": workdir, "trials": 2}
    given |= {"methods": "random,margin", "first_by": "random", "block": 5, "workers": 1}
    return argparse.Namespace(**{**given, **changes})


def write_features(path, count=180, classes=3):
    """A file of features of three clouds, a third of them for the test."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    features = random.standard_normal((count, 8)) + 1.5 * np.eye(classes, 8)[labels]
    test = np.arange(count) % 9 < 3
    np.savez(path, features=features.astype(np.float32), labels=labels, test=test)


def pack(folder, name, rows):
    lines = files.as_csv(study._COLUMNS, rows)
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Two settings: in both `badge` is better than `random`, in one `entropy` than both."""
    monkeypatch.setattr(study, "STUDIES", tmp_path)
    height = lambda by: [[0.5 + t / 50, 0.6 + t / 50 + by + 0.001 * (t % 3)] for t in range(8)]
    for name, entropy in (
        ("cifar10_1_small_random", 0.08),
        ("clothing_thinned_10_large_random", 0),
    ):
        rows = results(random=height(0.0), badge=height(0.05), entropy=height(entropy))
        for row in rows:  # Only what varies can be tested.
            row["value"] += 0.0001 * hash_of(row)
        pack(tmp_path, name, rows + [{**row, "metric": "macro_f1"} for row in rows])
    return tmp_path


def hash_of(row):
    return (3 * row["trial"] + 7 * len(row["method"]) + 5 * row["cycle"]) % 11


def test_settings_have_names_and_sizes():
    assert len(study.SETTINGS) == 9
    assert study.settings_of("all") == [name for name in study.SETTINGS if name]
    assert study.sizes(10, study.SETTINGS["thinned_1_small"]) == (10, 10, 11)
    assert study.sizes(100, study.SETTINGS["10_large"]) == (1000, 500, 6)
    assert study.sizes(10, study.SETTINGS[study.FIRST_STUDY]) == (20, 40, 8)  # As it ran.
    with pytest.raises(argparse.ArgumentTypeError, match="has 2_small: give some of 1_small, "):
        study.settings_of("1_small,2_small")


def test_files_are_called_after_data_setting_and_start(tmp_path):
    given = arguments(tmp_path)
    assert study.stem_of("clothing", study.FIRST_STUDY, given) == "clothing_random"
    assert study.stem_of("cifar10", "thinned_1_small", given) == "cifar10_thinned_1_small_random"
    assert (
        which_method.label("cifar10_thinned_1_small_random") == "cifar10, thinned, 1 a class, small"
    )
    assert which_method.label("clothing_10_large_typiclust") == (
        "clothing, 10 a class, large, typiclust")  # fmt: skip
    assert which_method.label("clothing_random") == "clothing"


def test_the_first_half_of_the_classes_is_thinned_and_the_test_set_is_not(tmp_path):
    write_features(tmp_path / "tiny.npz", count=360)
    whole = study.dataset_of(tmp_path / "tiny.npz", study.SETTINGS["1_small"])
    few = study.dataset_of(tmp_path / "tiny.npz", study.SETTINGS["thinned_1_small"])
    assert np.bincount(whole.train_labels).tolist() == [80, 80, 80]
    assert np.bincount(few.train_labels).tolist() == [8, 80, 80]
    np.testing.assert_array_equal(few.test_labels, whole.test_labels)


def test_who_beats_whom_is_counted_over_settings(packed):
    methods, wins, compared = which_method.penalties("accuracy")
    assert methods == ["badge", "entropy", "random"]
    assert wins.tolist() == [[0, 1, 2], [1, 0, 1], [0, 0, 0]]
    assert (compared == 2 - 2 * np.eye(3, dtype=int)).all()
    assert which_method.penalty("accuracy")[2] == "| `badge` | - | 1/2 | 2/2 | 3/4 |"
    # By macro F1 the setting alone whose classes are unequal.
    assert which_method.penalties("macro_f1").compared.max() == 1


def test_gains_stand_beside_each_other(packed):
    table = which_method.when("accuracy")
    heads = "cifar10, 1 a class, small (n = 8) | clothing, thinned, 10 a class, large (n = 8)"
    assert table[0] == f"| method | {heads} |"
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in table[2:]}
    assert list(rows) == ["`badge`", "`entropy`"]
    assert [cell.strip()[-1] for cell in rows["`badge`"]] == ["*", "*"]
    assert float(rows["`entropy`"][0].strip(" *")) == pytest.approx(4, abs=0.2)
    assert not rows["`entropy`"][1].strip().endswith("*")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["when", "penalty"])
def test_figures_are_drawn(name, packed):
    which_method.draw(packed / f"{name}.png", name)
    assert (packed / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_bounds_stand_below_the_methods(packed):
    rows = [{"bound": bounds.ALL, "trial": 0, "labelled": 900, "accuracy": 0.9, "macro_f1": 0.8}]
    rows += [
        {"bound": bounds.ORACLE, "trial": t, "labelled": n, "accuracy": 0.7, "macro_f1": 0.6}
        for t in range(2) for n in (10, 20)
    ]  # fmt: skip
    text = files.as_csv(bounds.FIELDS, rows)
    (packed / "cifar10_1_small_random_bounds.csv").write_text(text, encoding="utf-8")
    assert study.table("cifar10_1_small_random")[-2:] == [
        "| all labels | 1 | 0.900 | - | - | - | - |",
        "| oracle (sees the test labels) | 2 | 0.700 | - | - | 0.700 | - |",
    ]


def test_only_whole_trials_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STUDIES", tmp_path / "studies")
    folder = tmp_path / "tiny_1_small_random"
    for method, trial, values in (
        ("random", 0, (0.5, 0.6)), ("random", 1, (0.4, 0.6)), ("margin", 0, (0.5, 0.7)),
        ("margin", 1, (0.5,)),
    ):  # fmt: skip
        to = files.trial_folder(folder, method, trial)
        to.mkdir(parents=True)
        records.write_results(to, results_of(method, trial, values))
    study.report(arguments(tmp_path, settings=["1_small", "10_large"]))
    study.report(arguments(tmp_path, settings=["1_small", "10_large"]))  # Nothing twice.
    readme = (tmp_path / "studies" / "README.md").read_text(encoding="utf-8")
    assert readme.count("<!-- table: features tiny_1_small_random -->\n<!-- end -->\n") == 1
    assert "10_large" not in readme
    packed = sorted(path.name for path in (tmp_path / "studies").glob("*.csv.gz"))
    assert packed == ["tiny_1_small_random.csv.gz"]
    rows = which_method.areas(tmp_path / "studies" / packed[0], "accuracy")
    assert rows == {"random": {0: 0.55, 1: 0.5}, "margin": {0: pytest.approx(0.6)}}


def test_the_oracle_starts_at_random(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bounds.py", "tiny.npz", "--first_by=typiclust"])
    with pytest.raises(SystemExit):
        bounds.main()
    assert "--first_by is typiclust: give random" in capsys.readouterr().err


@pytest.mark.slow
def test_trials_and_methods_added_later_are_the_same_bytes(tmp_path, monkeypatch):
    write_features(tmp_path / "tiny.npz")
    names = [str(tmp_path / "tiny.npz")]
    monkeypatch.setitem(study.REQUESTS, "large", (5, 2))
    config_of = study.config_of
    monkeypatch.setattr(study, "config_of", lambda *given: one_process(config_of(*given)))
    setting = {"names": names, "settings": ["10_large"]}
    once, later = tmp_path / "once", tmp_path / "later"
    study.run(arguments(once, **setting))
    study.run(arguments(later, methods="random", trials=1, **setting))
    study.run(arguments(later, **setting))
    packed = []
    for folder in (once, later):
        monkeypatch.setattr(study, "STUDIES", folder / "studies")
        study.report(arguments(folder, settings=["10_large"]))
        packed.append((folder / "studies" / "tiny_10_large_random.csv.gz").read_bytes())
    assert packed[0] == packed[1]
    trial = pathlib.Path("tiny_10_large_random")
    for method in ("random", "margin"):
        for number in range(2):
            path = files.trial_folder(trial, method, number) / "picks.csv"
            assert (once / path).read_bytes() == (later / path).read_bytes(), path

    # The bounds' head is the study's: from the same start it is as accurate.
    folder = files.trial_folder(once / trial, "random", 0)
    dataset = study.dataset_of(tmp_path / "tiny.npz", study.SETTINGS["10_large"])
    head = bounds.Head(dataset)
    found = head.metrics(bounds.first_images(0, len(head.pool), 30))
    rows = [row["value"] for row in records.read_results(folder) if row["cycle"] == 0]
    np.testing.assert_allclose(found, rows, atol=1e-6)


def one_process(config):
    config.parallel = "devices"
    return config


@pytest.mark.slow
def test_bounds_go_on_from_what_is_there(tmp_path, capsys):
    write_features(tmp_path / "tiny.npz")
    given = arguments(tmp_path, candidates=3, trials=1)
    bounds.bound(tmp_path / "tiny.npz", "1_large", given)
    path = tmp_path / "tiny_1_large_random_bounds.csv"
    before = path.read_bytes()
    rows = files.read_csv(path)
    assert [row["labelled"] for row in rows] == ["120", "3", "18", "33", "48", "63", "78"]
    assert float(rows[-1]["accuracy"]) > float(rows[1]["accuracy"])
    capsys.readouterr()
    bounds.bound(tmp_path / "tiny.npz", "1_large", given)
    assert path.read_bytes() == before
    assert not capsys.readouterr().out
