"""The figures, their command line, studies put together from several folders, files that lack."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT, read_csv, results
from matplotlib import image
from matplotlib.axes import Axes
from trials import compiled_once, config_of

from tavaal_jax import run_study
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset, load
from tavaal_jax.errors import UserError
from tavaal_jax.report import plots, statistics
from tavaal_jax.report.plots import curves, style

NAMES = "random,learning_loss,tavaal"


def config(**changes):
    return config_of(**{"cycles": 3, "methods": NAMES, "trials": 1, **changes})


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    with compiled_once():
        yield


def part(tmp_path_factory, trial):
    folder = tmp_path_factory.mktemp(f"part_{trial}")
    run_study(config(first_trial=trial, trials=trial + 1), folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of one trial."""
    return part(tmp_path_factory, 0)


@pytest.fixture(scope="module")
def parts(study, tmp_path_factory):
    """Two trials of one study, each in a workdir of its own, as two machines would leave them."""
    return study, part(tmp_path_factory, 1)


def draw(*arguments):
    command = [sys.executable, "-m", "tavaal_jax.report.plots", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# Whole studies


@pytest.mark.slow
def test_a_part_has_its_trial_alone_and_all_figures(parts):
    table = read_csv(parts[1] / "results.csv")
    assert {r["trial"] for r in table} == {"1"}
    for name in plots.figures.FIGURES.keys() - {"picks.png", "maps.png", "class_iou.png"}:
        assert image.imread(parts[1] / name)[..., :3].std() > 0.01, name


@pytest.mark.slow
def test_parts_put_together_are_a_finished_study(parts, tmp_path):
    for part in parts:
        shutil.copytree(part, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.png"))
    texts = []
    result = run_study(config(trials=2), tmp_path, progress=lambda e: texts.append(e.text))
    assert "are finished; nothing to do" in texts[0]
    table = read_csv(tmp_path / "results.csv")
    assert len(table) == len(result.rows()) == 3 * 2 * 3
    assert [r for r in table if r["trial"] == "0"] == read_csv(parts[0] / "results.csv")
    assert "Trials: random 2" in (tmp_path / "summary.md").read_text()
    again = draw(tmp_path, "--trial=1", "--cycle=0")
    assert again.returncode == 0, again.stderr
    assert f"{tmp_path / 'plane.png'}: Figure 1" in again.stdout


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"trial": 7}, "--trial is 7: give one of 0"),
        ({"cycle": 9}, "--cycle is 9, but nothing was picked there: give 0 to 1"),
    ],
)
def test_a_choice_that_is_not_there(study, choice, message):
    with pytest.raises(UserError) as error:
        plots.draw(study, **choice)
    assert str(error.value) == message


def test_the_command_line_says_what_is_wrong_in_one_line(study):
    done = draw(study, "--trial=7")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["error: --trial is 7: give one of 0"]


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(UserError, match="holds no results of a study"):
        plots.draw(tmp_path)


def test_a_torn_line_of_the_log_is_left_out(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "learning_loss" / "trial_0" / "metrics.jsonl").open("a") as file:
        file.write('{"cycle": 1, "st')
    assert "ranking_loss.png" in plots.draw(tmp_path)


def test_a_damaged_file_of_a_choice_is_named(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tavaal" / "trial_0" / "diagnostics" / "cycle_1.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"tavaal/trial_0/diagnostics/cycle_1\.npz cannot be read"):
        plots.draw(tmp_path)


def test_figure_1_shows_a_cycle_that_there_is(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    for method in NAMES.split(","):
        (tmp_path / method / "trial_0" / "diagnostics" / "cycle_0.npz").unlink()
    there = tmp_path / "random" / "trial_0" / "diagnostics"
    shutil.copy(there / "cycle_1.npz", there / "cycle_1 (copy).npz")
    assert "plane.png" in plots.draw(tmp_path)
    (there / "cycle_1.npz").rename(there / "cycle_6.npz")  # None of the fifth, or before it.
    assert "plane.png" in plots.draw(tmp_path)


def test_a_study_of_another_version_is_not_drawn(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text('{"config": {"a": 1}}')
    with pytest.raises(UserError, match="is of another version of tavaal_jax"):
        plots.draw(tmp_path)


def test_the_figure_of_people_is_left_alone(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"]["dataset"] = "people"
    (tmp_path / "config.json").write_text(json.dumps(record))
    before = (tmp_path / "accuracy.png").read_bytes()
    with pytest.raises(UserError, match=r"is people's, whose accuracy\.png each training draws"):
        plots.draw(tmp_path)
    assert (tmp_path / "accuracy.png").read_bytes() == before


def test_names_with_dollars_are_shown_as_they_are(tmp_path):
    from configs import digits

    data = load(digits.get_config())
    names = ("$5_$", "a$b", *data.class_names[2:])
    arrays = {"index": np.arange(20), "rank": np.arange(20)}
    plots.figures.pictures.contact_sheet(
        {"$mine_$": arrays}, dataclasses.replace(data, class_names=names),
        tmp_path / "picks.png", "set $^",
    )  # fmt: skip
    curves.accuracy(results(**{"$m_$": [[0.5, 0.6]]}), tmp_path / "accuracy.png", "$_$")
    assert (tmp_path / "accuracy.png").exists()


def test_every_class_of_the_plane_has_its_points_and_its_boundary(tmp_path, monkeypatch):
    rng, contours, scatters = np.random.default_rng(0), [], []
    points, labels = rng.normal(size=(80, 2)), np.arange(80) % 8
    data = Dataset.from_arrays(points, labels)
    x, y = np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-2, 2, 9))
    arrays = {
        "labelled": np.arange(16), "index": np.arange(16, 20), "rank": np.arange(4),
        "x": x[0], "y": y[:, 0], "classes": np.arange(81).reshape(9, 9) % 8,
    }  # fmt: skip
    for name, calls in (("contour", contours), ("scatter", scatters)):
        whole = getattr(Axes, name)
        monkeypatch.setattr(
            Axes,
            name,
            lambda *a, whole=whole, calls=calls, **k: (calls.append(k), whole(*a, **k))[1],
        )
    plots.figures.pictures.plane({"random": arrays}, data, tmp_path / "plane.png", "eight")
    assert len(contours) == 7
    assert len(scatters) == 2 * 8 + 1


def test_a_trial_of_an_unknown_method_is_drawn_as_well(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    shutil.move(tmp_path / "tavaal", tmp_path / "mine")
    for file in (tmp_path / "results.csv", *tmp_path.glob("mine/trial_*/results.csv")):
        file.write_text(file.read_text().replace("tavaal", "mine"))
    assert "mine" not in METHODS
    assert {"accuracy.png", "likelihood.png", "plane.png"} <= set(plots.draw(tmp_path))


def test_without_diagnostics_there_are_neither_files_nor_their_figures(tmp_path):
    run_study(config(methods="random", diagnostics=False), tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["accuracy.png"]
    trial = tmp_path / "random" / "trial_0"
    assert not list(trial.glob("diagnostics*"))
    picks = read_csv(trial / "picks.csv")
    assert len(np.unique([p["index"] for p in picks])) == 20


# Single figures


VALUES = {"random": [[0.5, 0.7], [0.6, 0.9]], "tavaal": [[0.4, 0.9], [0.8, 0.9]]}


def test_differences_are_paired_by_trial():
    found = statistics.curves(results(**VALUES), "accuracy")
    difference = curves._to_baseline(found)["tavaal"]
    np.testing.assert_allclose(sorted(difference[10].values()), [-0.1, 0.2])
    np.testing.assert_allclose(sorted(difference[20].values()), [0.0, 0.2], atol=1e-9)
    del found["random"][10][1]
    assert list(curves._to_baseline(found)["tavaal"][10]) == [0]


def test_a_figure_without_a_baseline(tmp_path):
    curves.accuracy(results(tavaal=VALUES["tavaal"]), tmp_path / "accuracy.png", "moons")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_every_method_has_a_colour_and_a_marker_of_its_own():
    assert set(style.COLOURS) == set(METHODS)
    looks = [(style.colour(name), style.marker(name)) for name in METHODS]
    for looks_of in zip(*looks, strict=True):
        assert len(set(looks_of)) == len(METHODS)
    assert style.colour("mine") not in style.COLOURS.values()


def test_a_figure_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*gone/accuracy\.png"):
        curves.accuracy(results(**VALUES), tmp_path / "gone" / "accuracy.png", "moons")


def test_pictures_of_images_show_the_first_picks(tmp_path):
    from configs import digits

    data = load(digits.get_config())
    index = np.arange(100)
    rank = np.where(index % 10 == 0, index // 10, -1)
    plots.figures.pictures.contact_sheet(
        {"random": {"index": index, "rank": rank}, "tavaal": {"index": index, "rank": rank}},
        data, tmp_path / "picks.png", "digits",
    )  # fmt: skip
    assert image.imread(tmp_path / "picks.png")[..., :3].std() > 0.01


def test_an_image_without_a_true_loss_is_left_out_of_figure_8(drawn, tmp_path):
    arrays = {
        "rank": np.array([-1, 0, 1, -1]), "loss": np.array([1.0, np.nan, 2.0, 3.0]),
        "logit": np.zeros(4),
    }  # fmt: skip
    plots.figures.choices.loss_against_likelihood({"vaal": arrays}, tmp_path / "8.png", "maps")
    subset, picks = drawn[0].axes[0].collections
    np.testing.assert_array_equal(subset.get_offsets(), [[1, 0.5], [3, 0.5]])
    np.testing.assert_array_equal(picks.get_offsets(), [[2, 0.5]])


def test_large_pictures_are_shrunk_one_at_a_time(tmp_path):
    one = np.random.default_rng(0).integers(0, 256, (1, 512, 1024, 3), np.uint8)
    images, labels = np.broadcast_to(one, (40, 512, 1024, 3)), np.arange(40) % 2
    data = Dataset("large", images, labels, labels.astype(str), images, labels, ("a", "b"))
    chosen = {"random": {"index": np.arange(40), "rank": np.arange(40)}}
    tracemalloc.start()
    plots.figures.pictures.contact_sheet(chosen, data, tmp_path / "picks.png", "large")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < images.nbytes
    assert image.imread(tmp_path / "picks.png")[..., :3].std() > 0.01


@pytest.fixture
def drawn(monkeypatch):
    """Figures that would have been saved."""
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    return figures


@pytest.fixture
def streets():
    """8 images and maps, 6x12, of which each map's left third is of class 1."""
    images = np.full((8, 6, 12, 3), 100, np.uint8)
    labels = np.zeros((8, 6, 12), np.uint8)
    labels[:, :, :4] = 1
    return Dataset.from_arrays(images, labels, class_names=("road", "car"))


def test_sheets_of_maps_have_three_methods_in_a_row(drawn, streets, tmp_path):
    names = ("random", "vaal", "tavaal", "entropy")
    predicted = np.array([np.full((6, 12), n % 2, np.uint8) for n in range(2)])
    chosen = {
        name: {"index": np.arange(3), "rank": np.array([0, -1, 1]), "prediction": predicted}
        for name in names
    }
    plots.figures.pictures.maps(chosen, streets, tmp_path / "maps.png", "streets")
    axes = np.array(drawn[0].axes).reshape(4, 12)  # Two picks of each, in two rows of methods.
    titles = [axis.get_title() for axis in axes[::2].flat if axis.get_title()]
    words = ("image", "label", "prediction", "mistakes")
    assert titles == [f"{name}: {word}" for name in names for word in words]
    assert [len(axis.get_images()) for axis in axes[2]] == [1] * 4 + [0] * 8
    red = [(axes[row, 3].get_images()[0].get_array() == (213, 94, 0)).all(-1) for row in (0, 1)]
    np.testing.assert_array_equal(red, [streets.train_labels[0] == 1, streets.train_labels[0] == 0])


def test_picks_with_maps_are_told_by_their_pixels(drawn, streets, tmp_path):
    chosen = {"random": {"index": np.arange(3), "rank": np.arange(3)}}
    plots.figures.pictures.contact_sheet(chosen, streets, tmp_path / "picks.png", "streets")
    title = drawn[0].axes[0].get_title(loc="left")
    assert title == "random, % of pixels: road 66.7, car 33.3"


# What the environment sets for others

UNFRIENDLY = """
import errno, os, sys, tempfile
before = None
def fails(*arguments, **options):
    raise OSError(errno.EROFS, "Read-only file system")
if "MPLCONFIGDIR" in os.environ:
    tempfile.mkdtemp = fails
elif "MPLBACKEND" not in os.environ:
    import matplotlib
    before = dict(matplotlib.rcParams.copy())
from tavaal_jax.report import progress
from tavaal_jax.report.plots import curves
point = dict(labelled=8, accuracy=0.5, low=0.4, high=0.6, n=30)
with progress.attempt("curve", print, "try again"):
    curves.measured([point], __import__("pathlib").Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
assert before is None or dict(matplotlib.rcParams.copy()) == before
"""


def draw_in(environment, tmp_path, cwd=ROOT):
    path = tmp_path / "curve.png"
    done = subprocess.run(
        [sys.executable, "-c", UNFRIENDLY, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=cwd, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, path.read_bytes() if path.exists() else None


def test_a_notebooks_backend_and_a_matplotlibrc_change_no_figure_and_stay(tmp_path):
    said, plain = draw_in({}, tmp_path)
    assert (said, bool(plain)) == ("", True)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.facecolor: red\n", "utf-8")
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    said, other = draw_in(backend, tmp_path, tmp_path)
    assert (said, other) == ("", plain)


def test_what_cannot_be_drawn_is_a_line(tmp_path):
    said, drawn = draw_in({"MPLCONFIGDIR": "/proc/self/nowhere"}, tmp_path)
    assert drawn is None
    assert said.startswith("warning: no curve (OSError: ")
    assert said.endswith("): the results stand; try again\n")
