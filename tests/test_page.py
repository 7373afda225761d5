"""report.html of small studies that are made by hand, and in a browser where there is one."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, results_of
from PIL import Image

from configs import digits
from tavaal_jax.data import Dataset, load
from tavaal_jax.errors import UserError
from tavaal_jax.report import __main__ as command_line
from tavaal_jax.report import files, hint, page, records, summary, thumbnails

EVIL = "<img src=x onerror=alert(1)>"
VALUES = {"random": [[0.5, 0.7, 0.8], [0.6, 0.9, 0.9]], "tavaal": [[0.4, 0.9, 0.9], [0.8, 0.8, 1]]}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """What a page holds; fails where a tag is not closed, or not in its place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tags, self.tables, self.titles = [], [], [], [], []
        self.details = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.titles.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes another tag"

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        if "h2" in self.open:
            self.titles[-1] += data

    def attributes(self, name):
        return [found[name] for _, found in self.tags if name in found]

    def images(self):
        """All images of the page, decoded: figures, then strips."""
        uris = self.attributes("src")
        uris += [
            m[1] for s in self.attributes("style") if (m := re.match(r"--strip:url\((.*)\)", s))
        ]
        assert all(uri.startswith("data:image/png;base64,") for uri in uris)
        return [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]


@pytest.fixture(scope="module")
def dataset():
    return load(digits.get_config())


def make(folder, pool, values=VALUES, diagnosed=True, **changes):
    """A workdir as a study leaves it: `values` of each cycle of each trial of each method."""
    config = digits.get_config()
    config.update(methods=",".join(values), trials=2, cycles=3, initial=10, budget=10)
    config.update_from_flattened_dict(changes)
    folder.mkdir(exist_ok=True)
    files.write_config(folder, config)
    rng = np.random.default_rng(0)
    for name, trials in values.items():
        for number, curve in enumerate(trials):
            trial = files.trial_folder(folder, name, number)
            trial.mkdir(parents=True)
            records.write_results(trial, results_of(name, number, curve))
            write_picks(trial, pool, rng, cycles=len(curve) - 1)
            write_log(trial, len(curve))
            if diagnosed:
                (trial / "diagnostics.csv").write_text(
                    "cycle,labelled,picks_class_entropy,picks_loss,picks_spread\n"
                    f"0,10,1.5,{1 + number},0.5\n1,20,1.5,{2 + number},0.7\n"
                )
    rows = records.all_results(folder)[0]
    records.write_results(folder, rows)
    summary.write(folder, rows, config.dataset)
    return folder


def write_picks(trial, pool, rng, cycles, count=30):
    index = rng.choice(len(pool.train_images), (cycles, count), replace=False)
    rows = [
        {"cycle": cycle, "rank": rank, "index": i, "id": pool.train_ids[i], "score": -rank / 7}
        for cycle in range(cycles)
        for rank, i in reversed(list(enumerate(index[cycle])))
    ]
    (trial / "picks.csv").write_text(files.as_csv(("cycle", "rank", "index", "id", "score"), rows))


def write_log(trial, cycles):
    records_ = [
        {"cycle": cycle, "stage": stage, "step": 0, "seconds": seconds}
        for cycle in range(cycles)
        for stage, seconds in (("task", 1.0), ("adversary", 0.5), ("evaluate", 0.25))
    ]
    (trial / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records_))


@pytest.fixture
def study(tmp_path, dataset):
    return make(tmp_path / "study", dataset)


def written(folder, **arguments):
    assert page.write(folder, **arguments) == "report.html"
    return Page((folder / "report.html").read_text())


# The page


def test_every_tag_closes_and_nothing_comes_from_elsewhere(study):
    Image.new("RGB", (60, 40), "red").save(study / "accuracy.png")
    found = written(study)
    text = (study / "report.html").read_text()
    assert "://" not in text
    assert "<script" not in text
    assert not {"link", "script", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert not [name for _, names in found.tags for name in names if name.startswith("on")]
    assert set(re.findall(r"url\((.{22})", text)) == {"data:image/png;base64,"}
    assert ("html", {"lang": "en"}) in found.tags
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy in found.attributes("content")
    anchors = [link.removeprefix("#") for link in found.attributes("href")]
    assert anchors == [at for at in found.attributes("id") if at in anchors]
    assert len(found.titles) == len(anchors)
    assert all(names.get("scope") for tag, names in found.tags if tag == "th")


def test_what_comes_from_files_stays_text(tmp_path, dataset):
    arrays = Dataset.from_arrays(
        dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels,
        ids=[f'"{EVIL}{i}' for i in range(len(dataset.train_ids))], class_names=[EVIL] * 10,
    )  # fmt: skip
    folder = make(tmp_path, arrays, {**VALUES, EVIL: VALUES["random"]}, dataset=EVIL)
    found = written(folder, dataset=arrays)
    assert all(names["src"].startswith("data:") for tag, names in found.tags if tag == "img")
    assert not any("onerror" in names for _, names in found.tags)
    shown = "".join(found.text)
    assert f"{EVIL}: 3 methods" in shown
    assert EVIL in {row[0] for table in found.tables for row in table}
    assert any(
        t.startswith(f"{EVIL}, score 0, number 1 of 30, ") for t in found.attributes("title")
    )
    assert f"30 picks by class: {EVIL} (" in shown


def test_tables_hold_the_figures_of_the_summary(study):
    shown = [[[" ".join(cell.split()) for cell in row] for row in table]
             for table in written(study).tables]  # fmt: skip
    blocks = (study / "summary.md").read_text().replace("`", "").split("\n\n")
    expected = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in blocks if block.startswith("|")
    ]  # fmt: skip
    assert len(expected) == 6
    for table in expected:
        del table[1]  # The line below the head.
        assert table in shown


def test_methods_are_compared_with_each_other(tmp_path, dataset):
    values = {"random": [[0.5, 0.7, 0.9]] * 2, "vaal": [[0.5, 0.6, 0.9]] * 2, "tavaal": [[0.5] * 3]}
    found = written(make(tmp_path, dataset, values))
    (table,) = (table for table in found.tables if table[0][0] == "less")
    assert table[1:] == [
        ["random", "-", "+0.050", "+0.200"],
        ["vaal", "-0.050", "-", "+0.150"],
        ["tavaal", "-0.200", "-0.150", "-"],
    ]
    assert summary.OF_PAIRS in "".join(found.text)


def test_head_and_times(study):
    found = written(study)
    shown = "".join(found.text)
    assert "digits: 2 methods, 2 trials" in shown
    assert "4 finished, all methods together" in shown
    assert "here from 10 to 30 labels" in shown
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", shown)
    assert "numpy" in shown
    (times,) = (table for table in found.tables if "later trials" in table[0])
    assert dict(zip(times[0], times[1], strict=True)) == {
        "method": "random", "train": "4.50", "evaluate": "0.75", "select": "0.00",
        "label": "0.00", "diagnose": "0.00", "whole trial": "5.25", "first trial": "5.25",
        "later trials": "5.25",
    }  # fmt: skip


def test_changed_keys_come_first(study):
    changed, every = written(study).tables[-2:]
    keys = [row[0] for row in changed[1:]]
    assert ["cycles", "3", "10"] in [row[:3] for row in changed]
    assert "task.widths" in keys
    assert "seed" not in keys
    assert "seed" in [row[0] for row in every]
    assert set(keys) < {row[0] for row in every}


def test_the_stop_hint_is_shown_and_escaped(study, monkeypatch):
    monkeypatch.setattr(hint, "lines", lambda rows: [f"`a`: <b>{len(rows)}</b>", EVIL])
    assert {"a: <b>12</b>", EVIL} <= set("".join(written(study).text).split("\n"))
    monkeypatch.setattr(hint, "lines", lambda rows: [])
    assert "too few points" in "".join(written(study).text)


def test_figures_are_those_of_the_folder(study):
    Image.new("RGB", (60, 40), "red").save(study / "accuracy.png")
    Image.new("RGB", (20, 10), "blue").save(study / "likelihood.png")
    Image.new("RGB", (20, 10), "blue").save(study / "picks.png")
    found = written(study)
    assert [im.size for im in found.images()[:2]] == [(60, 40), (20, 10)]
    assert len(found.attributes("src")) == len(found.attributes("alt")) == 2
    (study / "accuracy.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"accuracy\.png is no PNG"):
        page.write(study)
    assert "accuracy.png is no PNG" in (study / "report.html").read_text()


# Thumbnails


def test_thumbnails_are_the_data_sets_images(study, dataset):
    found = written(study)
    picks = records.read_picks(files.trial_folder(study, "random", 0))
    first = picks["index"][(picks["cycle"] == 0)][np.argsort(picks["rank"][picks["cycle"] == 0])]
    strips = found.images()
    assert len(strips) == 2 * 2
    shown = np.split(np.asarray(strips[0]), 24, axis=1)
    np.testing.assert_array_equal(shown, dataset.train_images[first[:24], ..., 0] * 15)
    tips = found.attributes("title")
    assert len(tips) == 4 * 24
    name = dataset.class_names[dataset.train_labels[first[1]]]
    assert tips[1] == f"{name}, score -0.1429, number 2 of 30, {dataset.train_ids[first[1]]}"
    assert [int(s[5:]) for s in found.attributes("style") if "--at" in s] == [*range(24)] * 4


@pytest.mark.parametrize(
    ("shape", "strip"), [((9, 12, 3), (72, 9)), ((90, 128, 3), (6 * 64, 45)), ((9, 12), (72, 9))]
)
def test_images_of_any_size_and_colour(shape, strip, rng):
    images = rng.integers(0, 256, (6, *shape), dtype=np.uint8)
    arrays = Dataset.from_arrays(images, np.arange(6) % 2)
    choice = thumbnails.CyclePicks("mine", 0, 0, np.arange(6), np.zeros(6), arrays.train_ids)
    (png,) = thumbnails.strips([choice], arrays, 24)
    shown = Image.open(io.BytesIO(png))
    assert shown.size == strip
    assert shown.mode == ("RGB" if len(shape) == 3 else "L")
    if shape[0] == 9:
        np.testing.assert_array_equal(np.split(np.asarray(shown), 6, axis=1), images)


def test_many_large_images_are_fewer_per_choice():
    assert thumbnails.count([None] * 60, (8, 8, 1)) == 24
    assert thumbnails.count([None] * 108, (32, 32, 3)) == 12
    assert thumbnails.count([None] * 1000, (500, 400, 3)) == 4


def test_picks_of_another_data_set_are_refused(study, dataset):
    other = Dataset.from_arrays(dataset.train_images, dataset.train_labels, class_names=range(10))
    with pytest.raises(UserError, match=r"picks\.csv names other images than arrays has"):
        page.write(study, other)
    assert not Page((study / "report.html").read_text()).images()


def test_features_have_no_thumbnails(tmp_path, rng):
    features = Dataset.from_arrays(rng.normal(size=(100, 2)), np.arange(100) % 2)
    found = written(make(tmp_path, features), dataset=features)
    assert "What was picked" not in found.titles
    assert "Diagnostics of the picks" in found.titles


def test_arrays_are_not_taken_for_the_data_set_of_their_name(study):
    record = files.read_config(study)
    files.write(study / "config.json", json.dumps({**record, "data": "abc"}))
    found = written(study)
    assert not found.images()
    assert "The images are not at hand" in "".join(found.text)
    assert "SHA-256 abc" in "".join(found.text)


# Studies with something missing


def test_an_unfinished_study(tmp_path, dataset):
    values = {"random": VALUES["random"], "tavaal": [[0.4]]}
    shown = "".join(written(make(tmp_path, dataset, values)).text)
    assert "2 finished, all methods together; unfinished: tavaal 0 (1 of 3 cycles)" in shown
    assert "1 without any result yet" in shown


def test_a_method_alone_that_nobody_knows(tmp_path, dataset):
    found = written(make(tmp_path, dataset, {"mine": [[0.5, 0.7, 0.9]]}, trials=1))
    assert "paired by trial" not in "".join(found.text)
    assert ["mine", "0.700", "-", "-"] in found.tables[0]
    assert len(found.images()) == 2


def test_without_diagnostics(tmp_path, dataset):
    found = written(make(tmp_path, dataset, diagnosed=False, diagnostics=False))
    assert "Diagnostics of the picks" not in found.titles


def test_damaged_diagnostics_are_left_out_and_named(study):
    (study / "tavaal" / "trial_1" / "diagnostics.csv").write_text("cycle,labelled\n0,torn\n")
    (study / "tavaal" / "trial_1" / "diagnostics").mkdir()
    (study / "tavaal" / "trial_1" / "diagnostics" / "cycle_0.npz").write_bytes(b"no zip")
    found = written(study)
    assert "tavaal/trial_1/diagnostics.csv cannot be read" in "".join(found.text)
    (table,) = (table for table in found.tables if "true loss of the picks" in table[0])
    assert table[1:] == [
        ["random", "2.000 ± 0.707", "1.500 ± 0.000"],
        ["tavaal", "1.500", "1.500"],
    ]


def test_damaged_picks_are_named_when_the_page_is_written(study):
    (study / "random" / "trial_0" / "picks.csv").write_text("cycle,rank\n0,0\n")
    with pytest.raises(UserError, match=r"random/trial_0/picks\.csv cannot be read"):
        page.write(study)
    found = Page((study / "report.html").read_text())
    assert "random/trial_0/picks.csv cannot be read" in "".join(found.text)
    assert "random, trial 1" in "".join(found.text)


def test_a_damaged_log_costs_its_own_lines_only(study):
    log = study / "random" / "trial_0" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"stage": "task", "seconds": "long"}\n{"cyc')
    assert "Times" in written(study).titles


def test_a_folder_without_a_study(tmp_path):
    missing = (
        r"holds no results of a study \(config.json: No such file or directory\): give a study's"
    )
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match=f"{folder.name} {missing}"):
            page.write(folder)


def test_a_study_without_results_yet(study):
    (study / "results.csv").unlink()
    with pytest.raises(UserError, match=r"no results of a study \(results.csv has no rows\)"):
        page.write(study)


# The command line and the browser


def test_the_command_line_prints_the_path(study, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", str(study)])
    assert command_line.main() == 0
    assert capsys.readouterr().out == f"{study / 'report.html'}\n"
    assert (study / "report.html").exists()


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tavaal_jax.report", str(tmp_path)], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    text = f"error: {tmp_path} holds no results of a study (config.json: "
    assert done.stderr.startswith(text)
    assert len(done.stderr.splitlines()) == 1


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is on PATH")
@pytest.mark.parametrize(
    ("width", "scheme", "paper"), [(1200, 1, (255, 255, 255)), (420, 0, (20, 23, 27))]
)
def test_a_browser_shows_it(study, tmp_path, width, scheme, paper):
    """Light and wide, dark and narrow."""
    Image.new("RGB", (600, 400), "red").save(study / "accuracy.png")
    found = written(study)
    for image in found.images():
        image.load()
    path = study / "open.html"  # Folded thumbnails are not drawn.
    path.write_text((study / "report.html").read_text().replace("<details>", "<details open>"))

    def browse(*flags):
        command = [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},6000",
            f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=5000",
            "--enable-logging=stderr", *flags, path.as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    shown = browse("--dump-dom")
    assert "Content Security Policy" not in shown.stderr
    assert Page(shown.stdout).tables == found.tables
    browse(f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as image:
        colours = {colour: n for n, colour in image.convert("RGB").getcolors(10**7)}
    assert len(colours) > 100
    assert max(colours, key=lambda colour: colours[colour]) == paper
    assert colours.get((255, 0, 0), 0) > 10_000, "the figure is not drawn"
    assert colours.get((240, 240, 240), 0) > 1000, "the thumbnails are not drawn"
