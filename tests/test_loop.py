"""People label their own images: requests, answers, cycles, and what happens in real life."""

import functools
import itertools
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import people
import pytest
from conftest import ROOT, read_csv
from PIL import Image
from trials import compiled_once

import tavaal_jax
from configs import smoke
from tavaal_jax import data
from tavaal_jax.errors import Interrupted, UserError
from tavaal_jax.labelling import cycle, selection
from tavaal_jax.labelling.frozen import RequestRow
from tavaal_jax.labelling.workdir import LabellingWorkdir
from tavaal_jax.report import files


@pytest.fixture(autouse=True, scope="module")
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture
def photos(tmp_path):
    """A folder of 60 photos and the class of each."""
    return tmp_path / "photos", people.folder(tmp_path / "photos")


@pytest.fixture
def config(photos, tmp_path):
    """`config(**changes)` for these photos."""
    return lambda **changes: people.config(photos[0], tmp_path, **changes)


def listing(folder):
    """Everything below a folder, with times and contents."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


# Requests


def test_the_first_start_asks_for_random_images_and_the_second_says_the_same(
    photos, config, tmp_path
):
    work, before = tmp_path / "work", listing(photos[0])
    line, said = people.run(config(), work)
    assert line == (
        f"cycle 0: 16 images to label (0 answered), open {work}/to_label/cycle_000/index.html or"
        " see HOWTO.txt there; then the same command continues"
    )
    assert any("60 images found" in text for text in said)
    rows = people.requested(work, 0)
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(16)]
    assert len({row["id"] for row in rows}) == 16
    assert {row["label"] for row in rows} == {""}
    asked = LabellingWorkdir(work).read_request(0)
    assert [row.id for row in asked] == [row["id"] for row in rows]
    assert sum(row.role == "test" for row in asked) == 4
    status = json.loads((work / "status.json").read_text())
    assert (status["state"], status["cycle"], status["asked"]) == ("WAITING", 0, 16)
    assert status["images"] == 60
    own = {".lock", ".scanned"}
    there = {name: file for name, file in listing(work).items() if name not in own}
    assert people.run(config(), work)[0] == line
    assert there == {name: file for name, file in listing(work).items() if name not in own}
    assert listing(photos[0]) == before


def test_part_of_the_answers_is_counted_and_enough_of_them_go_on(photos, config, tmp_path):
    work = tmp_path / "work"
    people.run(config(), work)
    names = [row["file"] for row in people.requested(work, 0)]
    people.answer(work, 0, photos[1], but=names[:5])
    assert "16 images to label (11 answered)" in people.run(config(), work)[0]
    assert not (work / "cycles" / "cycle_000" / "config.json").exists()


@pytest.mark.parametrize(
    ("ends", "state"),
    [(KeyboardInterrupt(), "STOPPED"), (Interrupted(15), "STOPPED"),
     (UserError("of the user's"), "FAILED"), (ValueError("of ours"), "FAILED")],
)  # fmt: skip
def test_status_says_that_a_cycle_is_trained_and_how_that_ended(
    ends, state, photos, config, tmp_path, monkeypatch
):
    work, seen = tmp_path / "work", []

    def run(*arguments):
        del arguments
        seen.append(json.loads((work / "status.json").read_text()))
        raise ends

    people.run(config(), work)
    people.answer(work, 0, photos[1])
    monkeypatch.setattr(cycle, "run", run)
    with pytest.raises(type(ends)):
        people.run(config(), work)
    assert (seen[0]["state"], seen[0]["cycle"], seen[0]["answered"]) == ("TRAINING", 0, 16)
    assert json.loads((work / "status.json").read_text()) == seen[0] | {"state": state}


def test_status_says_so_where_it_ends_between_a_training_and_the_next_request(
    photos, config, tmp_path, monkeypatch
):
    work = tmp_path / "work"
    people.run(config(), work)
    people.answer(work, 0, photos[1])

    def run(context, number, *others):
        del others
        context.workdir.write_trained(number, {"skipped": "nothing"})
        (work / "labels" / "bad.csv").write_text("file,label\nno_such.png,cat\n")

    monkeypatch.setattr(cycle, "run", run)
    with pytest.raises(UserError, match=r"no_such\.png"):
        people.run(config(), work)
    assert json.loads((work / "status.json").read_text())["state"] == "FAILED"


def test_labels_that_are_there_count_and_only_the_rest_is_asked_for(photos, config, tmp_path):
    work, truth = tmp_path / "work", photos[1]
    (work / "labels").mkdir(parents=True)
    lines = [f"{name},{truth[name]}" for name in list(truth)[:10]]
    (work / "labels" / "mine.csv").write_text("\n".join(["file,label", *lines]))
    assert "cycle 0: 6 images to label" in people.run(config(), work)[0]
    asked = {row["file"] for row in people.requested(work, 0)}
    assert not asked & set(list(truth)[:10])


def test_a_row_that_fits_no_image_stops_or_is_left_out(photos, config, tmp_path):
    work = tmp_path / "work"
    people.run(config(), work)
    (work / "labels" / "a.csv").write_text("file,label\nnowhere.png,cat\n")
    with pytest.raises(UserError, match=r"labels/a.csv line 2: .*nowhere.png.*labels_strict=False"):
        people.run(config(), work)
    one = config(**{"folder.labels_strict": False})
    line, said = people.run(one, work)
    assert "(0 answered)" in line
    (told,) = [text for text in said if text.startswith("not read: ")]
    row = "labels/a.csv line 2: nowhere.png is none of the images"
    assert told.startswith(
        f"not read: 1 row fitting no image, left out by labels_strict=False: {row}"
    )
    record = json.loads((work / "status.json").read_text("utf-8"))["passed_over"]["labels"]
    assert [(one["count"], one["first"][0].startswith(row)) for one in record] == [(1, True)]
    assert not [text for text in people.run(one, work)[1] if "nowhere.png" in text]


WRONG = [
    ({"folder.images": ""}, "folder.images is empty"),
    ({"folder.images": "/nowhere/at/all"}, "there is no such folder, name one"),
    ({"folder.images": __file__}, "that is a file, give its folder"),
    ({"folder.classes": ("cat,dog",)}, "with both kinds of quotes"),
    ({"methods": "coreset,tavaal"}, "people answer one method"),
    ({"trials": 2}, "people answer one method"),
    ({"diagnostics": True}, "diagnostics is True"),
    ({"parallel": "trials"}, "parallel is 'trials'"),
    ({"imbalance.ratio": 10}, "imbalance.ratio is 10"),
    ({"folder.label_studio_images": "local"}, "label_studio_root"),
    ({"folder.resize": "strech"}, "give stretch, or else one of stretch, crop, pad"),
    ({"folder.channels": 2}, "one of 1, 3"),
    ({"folder.test_fraction": 1.0}, "0 to less than 1"),
    ({"folder.low_high": (5.0, 1.0)}, "the lower one first"),
    ({"folder.test": "/nowhere"}, "folder.test"),
    ({"batch_size": 24}, "batch_size is 24, more than initial = 16"),
    ({"batch_size": 16}, "batch_size is 16, more than the 12 of initial = 16"),
    ({"folder.wait_for": 0.0}, "folder.wait_for is 0.0: give a fraction, more than 0"),
]


@pytest.mark.parametrize(("changes", "says"), WRONG)
def test_wrong_configs_are_one_line_and_write_nothing(changes, says, config, tmp_path):
    with pytest.raises(UserError, match=says) as error:
        people.run(config(**changes), tmp_path / "work")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "work" / "to_label").exists()


def test_a_workdir_among_the_images_is_refused(photos, config):
    with pytest.raises(UserError, match=r"lies in folder\.images"):
        people.run(config(), photos[0] / "runs")
    assert not (photos[0] / "runs").exists()


def test_a_simulations_workdir_is_left_alone(config, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    files.write_config(work, smoke.get_config())
    before = listing(work)
    with pytest.raises(UserError, match=r"dataset \(digits -> people\)"):
        people.run(config(), work)
    assert {k: v for k, v in listing(work).items() if k != ".lock"} == before


def test_a_simulation_leaves_a_folder_alone_in_which_people_are_asked(photos, config, tmp_path):
    work = tmp_path / "work"
    line, _ = people.run(config(), work)
    before = listing(work)
    says = "holds images that people label, and dataset is 'digits': give another --workdir"
    with pytest.raises(UserError, match=says):
        tavaal_jax.run_study(smoke.get_config(), work)
    assert listing(work) == before
    assert people.run(config(), work)[0] == line


def test_a_sub_folder_that_is_gone_needs_no_decision(photos, config, tmp_path):
    work = tmp_path / "work"
    (photos[0] / "trip").mkdir()
    (photos[0] / "photo_000.png").rename(photos[0] / "trip" / "photo_000.png")
    with pytest.raises(UserError, match=r"has sub-folders \(trip\): give --config.folder.class_f"):
        people.run(config(), work)
    (photos[0] / "trip" / "photo_000.png").rename(photos[0] / "photo_000.png")
    assert "16 images to label" in people.run(config(), work)[0]


def test_a_request_that_is_gone_is_written_again(photos, config, tmp_path):
    work = tmp_path / "work"
    line, _ = people.run(config(), work)
    rows = people.requested(work, 0)
    shutil.rmtree(work / "to_label")
    people.folder(photos[0], 5, first=60)  # What is there since changes no request.
    assert people.run(config(), work)[0] == line
    assert people.requested(work, 0) == rows


def test_an_image_that_is_deleted_is_not_waited_for(photos, config, tmp_path):
    work = tmp_path / "work"
    people.run(config(), work)
    (photos[0] / people.requested(work, 0)[0]["file"]).unlink()
    assert "cycle 0: 15 images to label" in people.run(config(), work)[0]


def test_requests_for_more_images_than_there_are_say_so(photos, config, tmp_path):
    line, said = people.run(config(initial=100), tmp_path / "work")
    assert line.startswith("cycle 0: 60 images to label")
    assert "initial is 100: only 60 images are left to ask for" in said


def test_images_that_nobody_has_sorted_have_no_class(tmp_path):
    for name in ("cat", "dog", "unlabelled"):
        first = 20 * ("cat", "dog", "unlabelled").index(name)
        people.folder(tmp_path / "photos" / name, 20, first=first)
    config = people.config(tmp_path / "photos", tmp_path, initial=50)
    config.folder.class_folders = True
    line, _ = people.run(config, tmp_path / "work")
    assert line.startswith("cycle 0: 10 images to label")
    asked = {row["file"] for row in people.requested(tmp_path / "work", 0)}
    assert all(name.startswith("unlabelled/") for name in asked)


def test_sub_folders_are_classes_only_where_that_is_said(tmp_path):
    for name in ("cat", "dog"):
        people.folder(tmp_path / "photos" / name, 20, first=20 * (name == "dog"))
    config = people.config(tmp_path / "photos", tmp_path)
    with pytest.raises(UserError, match=r"sub-folders \(cat, dog\): give .*class_folders=True"):
        people.run(config, tmp_path / "a")
    config.folder.class_folders = False
    assert "16 images to label" in people.run(config, tmp_path / "b")[0]
    assert (
        "cat/" in people.requested(tmp_path / "b", 0)[0]["file"]
        or "dog/" in (people.requested(tmp_path / "b", 0)[0]["file"])
    )


# What is asked for


def test_the_test_set_is_drawn_from_images_that_nothing_else_can_take():
    names = [f"i{number:016x}" for number in range(4000)]
    reserved = selection.reserved(names, 0, 0.25)
    assert 0.23 < len(reserved) / len(names) < 0.27
    assert selection.reserved(names[:100], 0, 0.25) == reserved & set(names[:100])
    assert selection.reserved(names, 1, 0.25) != reserved
    assert selection.reserved(names, 0, 0.0) == set()
    rows = selection.next_tests(reserved, 30, 0)
    assert [row.role for row in rows] == ["test"] * 30
    more = selection.next_tests(reserved - {row.id for row in rows}, 30, 0)
    assert not {row.id for row in rows} & {row.id for row in more}


def test_picks_keep_their_order_among_the_others():
    picks = [RequestRow(f"p{i}", "pick", 1.0) for i in range(30)]
    tests = [RequestRow(f"t{i}", "test", 1.0) for i in range(10)]
    both = selection.interleaved(picks, tests, 0, 3)
    assert [row for row in both if row.role == "pick"] == picks
    assert [row for row in both if row.role == "test"] == tests
    assert both == selection.interleaved(picks, tests, 0, 3)
    assert both != selection.interleaved(picks, tests, 0, 4)
    assert {i for i, row in enumerate(both) if row.role == "test"} != set(range(30, 40))


@pytest.mark.parametrize(
    ("counts", "lacks"),
    [
        ({"a": 4, "b": 4}, None),
        ({"a": 8}, "two classes"),
        ({"a": 7, "b": 1}, "two classes"),
        ({"a": 3, "b": 3}, "8 labels"),
        ({}, "8 labels"),
    ],
)
def test_what_is_needed_to_learn_anything(counts, lacks):
    found = selection.missing_labels(counts, 8)
    assert found is None if lacks is None else lacks in found


# Whole runs


@pytest.mark.slow
def test_digits_as_photos_give_what_the_simulation_gives(tmp_path):
    """Index and score of picks, and results, byte for byte."""
    method, simulated = "tavaal", smoke.get_config()
    simulated.update(methods=method, trials=1, diagnostics=False, batch_size=16)
    tavaal_jax.run_study(simulated, tmp_path / "simulated")
    digits, truth = data.load(simulated), {}
    for part in ("train", "test"):
        images, labels = getattr(digits, f"{part}_images"), getattr(digits, f"{part}_labels")
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            sub = "." if part == "train" else str(label)
            path = tmp_path / part / sub / f"{part}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
            truth[path.name] = str(label)
    real = simulated.copy_and_resolve_references()
    with real.unlocked():
        real.dataset, real.data_dir = "people", str(tmp_path / "cache")
        real.folder.update(
            images=str(tmp_path / "train"), test=str(tmp_path / "test"), image_size=8, channels=1,
            classes=tuple(digits.class_names),
        )  # fmt: skip
    for number in range(real.cycles):
        line, _ = people.run(real, tmp_path / "people")
        assert line.startswith(f"cycle {number}: ")
        people.answer(tmp_path / "people", number, truth)
    line, said = people.run(real, tmp_path / "people")
    assert line is None
    assert said[-1].startswith(f"{32 + 2 * 16} of 1,297 images are labelled; model in ")
    one, other = (
        [{k: v for k, v in row.items() if k != "id"} for row in read_csv(tmp_path / which)]
        for which in (
            f"simulated/{method}/trial_0/picks.csv", f"people/{method}/trial_0/picks.csv"
        )
    )  # fmt: skip
    assert one == other
    same = [(tmp_path / which / "results.csv").read_bytes() for which in ("simulated", "people")]
    assert same[0] == same[1]


@pytest.fixture
def rounds(photos, config, tmp_path):
    """A run whose first request is answered: workdir, truth, config."""
    work = tmp_path / "work"
    people.run(config(), work)
    people.answer(work, 0, photos[1])
    return work, photos[1], config


@pytest.mark.slow
def test_a_run_from_no_label_to_the_last(rounds):
    work, truth, config = rounds
    config = functools.partial(config, budget=15)
    asked, number = [], 0
    while True:
        line, said = people.run(config(), work)
        if line is None:
            break
        number += 1
        assert line.startswith(f"cycle {number}: ")
        asked += [row["file"] for row in people.requested(work, number)]
        people.answer(work, number, truth)
    assert said[-1] == f"all 60 images are labelled; model in {work}/model"
    assert len(asked) == len(set(asked)) == 60 - 16
    workdir = LabellingWorkdir(work)
    frozen = workdir.frozen(workdir.last_cycle()).frozen
    tested = {row.id for row in frozen.rows if row.split == "test"}
    assert 5 < len(tested) < 30
    for number in range(workdir.last_cycle() + 1):
        assert not tested & {
            row.id for row in workdir.frozen(number).frozen.rows if row.split == "train"
        }
    results = read_csv(work / "results.csv")
    assert [int(row["cycle"]) for row in results] == list(range(workdir.last_cycle() + 1))
    status = json.loads((work / "status.json").read_text())
    assert status["state"] == "FINISHED"
    assert status["test"]["n"] == len(tested)
    assert status["test"]["low"] <= status["test"]["accuracy"] <= status["test"]["high"]
    assert (work / "accuracy.png").stat().st_size > 1000
    labels = read_csv(work / "labels.csv")
    assert {row["file"]: row["label"] for row in labels} == truth
    said_of = read_csv(work / "predictions.csv")
    assert len(said_of) == 60
    for row in said_of:
        np.testing.assert_allclose(float(row["p_cat"]) + float(row["p_dog"]), 1, atol=1e-5)
    assert people.run(config(), work)[0] is None  # Nothing is left to do.


@pytest.mark.slow
def test_a_training_that_diverges_begins_anew_with_another_learning_rate(rounds):
    work, truth, config = rounds
    line = (
        r"^coreset trial 0: task_loss is nan in cycle 0, stage task, step \d+: lower the learning"
        r" rates, or .*; the same command begins cycle 0 anew$"
    )
    for _ in range(2):
        with pytest.raises(UserError, match=line):
            people.run(config(**{"task.learning_rate": 1e30}), work)
    row = people.requested(work, 0)[0]["file"]
    people.answer(work, 0, truth, name="later.csv", **{pathlib.Path(row).stem: "bad"})
    assert people.run(config(), work)[0].startswith("cycle 1: ")
    frozen, record = LabellingWorkdir(work).frozen(0)
    assert record["config"]["task"]["learning_rate"] == config().task.learning_rate
    files = {image.id: image.file for image in LabellingWorkdir(work).images()}
    assert [files[r.id] for r in frozen.rows if r.split == "bad"] == [row]  # What is said by then.
    assert [row["cycle"] for row in read_csv(work / "results.csv")] == ["0"]


@pytest.mark.slow
def test_a_training_that_does_not_fit_begins_anew_with_smaller_networks(rounds):
    work, _, config = rounds
    line = r"^cycle 0: a device's memory, .* is full .*: lower batch_size .* begins cycle 0 anew$"
    with pytest.raises(UserError, match=line):
        people.run(config(**{"task.widths": (500_000,)}), work)
    assert people.run(config(), work)[0].startswith("cycle 1: ")


@pytest.mark.slow
def test_a_cycle_that_begins_anew_forgets_the_stages_of_its_other_schedule(rounds):
    work, _, config = rounds
    bad = {"methods": "vaal", "log_every_steps": 1, "discriminator.learning_rate": 1e30}
    with pytest.raises(UserError, match="begins cycle 0 anew"):
        people.run(config(**bad), work)
    log = work / "vaal" / "trial_0" / "metrics.jsonl"
    log.write_text('{"cycle": 0, "stage": "joint", "step": 1}\n')
    other = {"methods": "vaal", "schedule": "two_phase", "vae.epochs": 1}
    assert people.run(config(**other), work)[0].startswith("cycle 1: ")
    stages = [json.loads(line)["stage"] for line in log.read_text().splitlines()]
    assert "joint" not in stages
    assert "adversary" in stages


@pytest.mark.slow
def test_a_begun_cycle_whose_config_is_deleted_begins_anew(rounds):
    work, _, config = rounds
    with pytest.raises(Interrupted):
        tavaal_jax.run_study(config(epochs=50), work, stop=training_begins(work))
    with pytest.raises(UserError, match=r"epochs \(50 -> 2\); give .* begins anew") as e:
        people.run(config(), work)
    path = pathlib.Path(str(e.value).partition("or delete ")[2].partition(" and it begins")[0])
    path.unlink()
    assert people.run(config(), work)[0].startswith("cycle 1: ")
    assert LabellingWorkdir(work).frozen(0).config["config"]["epochs"] == 2


def training_begins(work):
    """A `stop` that ends a run as soon as its first training is under way."""
    log = work / "coreset" / "trial_0" / "metrics.jsonl"
    return lambda: signal.SIGTERM if log.exists() else None


@pytest.mark.slow
def test_an_unlabelled_image_that_is_gone_holds_nobody_up_and_a_labelled_one_is_named(
    rounds, photos
):
    work, _, config = rounds
    with pytest.raises(Interrupted):
        tavaal_jax.run_study(config(epochs=50), work, stop=training_begins(work))
    labelled = {row["file"] for row in people.requested(work, 0)}
    other = next(path for path in sorted(photos[0].iterdir()) if path.name not in labelled)
    one = photos[0] / min(labelled)
    kept = one.read_bytes()
    shutil.rmtree(config().data_dir)
    other.unlink()
    one.unlink()
    with pytest.raises(UserError, match=rf"^1 labelled images .* gone, first {one.name}: put them"):
        people.run(config(epochs=50), work)
    one.write_bytes(kept)
    line, said = people.run(config(epochs=50), work)
    assert line.startswith("cycle 1: ")
    assert "1 images without a label are gone: they are not picked" in said


def contradict(work, truth, files, who):
    """Somebody says the other class of some images."""
    other = {"cat": "dog", "dog": "cat"}
    rows = "".join(f"{file},{other[truth[file]]},{who}\n" for file in files)
    (work / "labels" / f"{who}.csv").write_text(f"file,label,annotator\n{rows}")


@pytest.mark.slow
def test_what_was_said_before_a_request_does_not_answer_it(rounds):
    """Whatever share is waited for, ties are asked again until somebody has said more of them."""
    work, truth, config = rounds
    options = {"folder.wait_for": 0.5}
    files_of = [row["file"] for row in people.requested(work, 0)][:4]
    contradict(work, truth, files_of, "anna")
    line, said = people.run(config(**options), work)
    assert "4 images with conflicting answers: asked again" in said
    assert line.startswith("cycle 1: 12 images to label (0 answered)")
    again = {row["file"] for row in people.requested(work, 1)}
    assert again >= set(files_of)
    (work / "labels" / "anna.csv").unlink()  # She sees her mistake.
    people.answer(work, 1, truth)
    assert people.run(config(**options), work)[0].startswith("cycle 2: 8 images to label (0 ans")


@pytest.fixture
def all_at_once(tmp_path):
    """24 photos, all asked for in the first request: workdir, truth, files, config."""
    truth, work = people.folder(tmp_path / "photos", 24), tmp_path / "work"
    changes = {"initial": 24, "methods": "random", "epochs": 1, "folder.test_fraction": 0.0}
    config = lambda **more: people.config(tmp_path / "photos", tmp_path, **changes, **more)
    assert people.run(config(), work)[0].startswith("cycle 0: 24 images to label")
    return work, truth, [row["file"] for row in people.requested(work, 0)], config


@pytest.mark.slow
def test_ties_at_the_end_are_asked_again_twice(all_at_once):
    work, truth, files_of, config = all_at_once
    people.answer(work, 0, truth)
    contradict(work, truth, files_of[:4], "anna")
    for number in (1, 2):
        line = people.run(config(), work)[0]
        assert line.startswith(f"cycle {number}: 4 images to label (0 answered)")
        assert {row["file"] for row in people.requested(work, number)} == set(files_of[:4])
        people.answer(work, number, truth, name="by_me.csv")  # And anna stays with hers.
    line, said = people.run(config(), work)
    assert line is None
    assert said[-1] == f"20 of 24 images are labelled; model in {work}/model"


@pytest.mark.slow
def test_images_of_which_nobody_was_sure_are_asked_once_more_and_waited_for(all_at_once):
    work, truth, files_of, config = all_at_once
    config = functools.partial(config, **{"folder.ask_again": True})
    stems = [pathlib.Path(file).stem for file in files_of[:3]]
    people.answer(work, 0, truth, **dict.fromkeys(stems, "unsure"))
    assert people.run(config(), work)[0].startswith("cycle 1: 3 images to label (0 answered)")
    people.answer(work, 1, truth, **{stems[0]: "unsure"})
    line, said = people.run(config(), work)
    assert line is None
    assert said[-1] == f"23 of 24 images are labelled; model in {work}/model"


@pytest.mark.slow
def test_labels_that_are_mended_after_the_end_are_not_said_to_be_learned(all_at_once):
    work, truth, _, config = all_at_once
    path = people.answer(work, 0, truth)
    assert people.run(config(cycles=1), work)[0] is None
    before = (work / "labels.csv").read_bytes()
    first = path.read_text().splitlines()[1]
    other = first.replace("cat", "x").replace("dog", "cat").replace("x", "dog")
    path.write_text(path.read_text().replace(first, other))
    line, said = people.run(config(cycles=1), work)
    assert line is None
    assert said[-2].startswith("1 images have other labels than when cycle 0 began, with which the")
    assert "give --config.cycles=2 to continue with them" in said[-2]
    assert (work / "labels.csv").read_bytes() == before


@pytest.mark.slow
def test_another_share_for_the_test_set_moves_nothing_from_one_side_to_the_other(rounds):
    work, truth, config = rounds
    sides = []
    for number, fraction in enumerate((0.25, 0.5, 0.0, 0.25)):
        line = people.run(config(**{"folder.test_fraction": fraction}), work)[0]
        assert line.startswith(f"cycle {number + 1}: ")
        people.answer(work, number + 1, truth)
        rows = LabellingWorkdir(work).frozen(number).frozen.rows
        sides.append([{r.id for r in rows if r.split == split} for split in ("train", "test")])
    for (train, test), (later, tested) in itertools.pairwise(sides):
        assert train < later
        assert test <= tested
    assert not sides[-1][0] & sides[-1][1]
    # A request is made with the share of its start: 8 images, of which 4, then none are for tests.
    assert [len(tested) for _, tested in sides] == [4, 6, 10, 10]


@pytest.mark.slow
def test_what_people_change_between_two_cycles(rounds, photos):
    """Changed, taken back, unsure, bad, volunteered; images added, renamed, gone, replaced."""
    work, truth, config = rounds
    people.run(config(), work)
    first = [row["file"] for row in people.requested(work, 0)]
    second = [row["file"] for row in people.requested(work, 1)]
    workdir, folder = LabellingWorkdir(work), photos[0]
    trained = [r.id for r in workdir.frozen(0).frozen.rows if r.split == "train"]
    files = {image.id: image.file for image in workdir.images()}
    changed, taken, gone, renamed, replaced = (files[name] for name in trained[:5])
    old = (work / "labels" / "000_answers.csv").read_text().splitlines()
    flipped = {"cat": "dog", "dog": "cat"}[truth[changed]]
    old = [f"{changed},{flipped}" if line.startswith(changed) else line for line in old]
    (work / "labels" / "000_answers.csv").write_text(
        "\n".join(line for line in old if not line.startswith(taken))
    )
    (folder / gone).unlink()
    (folder / renamed).rename(folder / "renamed.png")
    new = list(people.folder(folder, 3, first=60).items())
    Image.fromarray(people.picture(900, 0)).save(folder / replaced)
    unsure, bad = second[0].removesuffix(".png"), second[1].removesuffix(".png")
    people.answer(work, 1, truth, **{unsure: "unsure", bad: "bad"})
    free = next(name for name in truth if name not in {*first, *second})
    (work / "labels" / "free.csv").write_text(f"file,label\n{free},{truth[free]}\n")
    # The file of a label that is kept has another name now, or is gone: rows name what they name.
    text = (work / "labels" / "000_answers.csv").read_text()
    (work / "labels" / "000_answers.csv").write_text(text.replace(renamed, "renamed.png"))
    ids = {image.file: image.id for image in workdir.images()}
    line, said = people.run(config(), work)
    assert line.startswith("cycle 2: ")
    rows = {row.id: row for row in workdir.frozen(1).frozen.rows}
    assert (rows[ids[changed]].label, rows[ids[changed]].split) == (flipped, "train")
    assert any(f"{changed} {truth[changed]} -> {flipped}" in text for text in said)
    assert ids[taken] not in rows or rows[ids[taken]].split == "reserved"
    assert rows[ids[gone]].split == "absent"
    assert rows[ids[renamed]].split == "train"
    assert rows[ids[second[0]]].split == "unsure"
    assert rows[ids[second[1]]].split == "bad"
    assert rows[ids[free]].split == "train"
    images = workdir.images()
    assert [image.id for image in images[:60]] == [ids[name] for name in sorted(truth)]
    assert {image.file for image in images[60:]} >= {name for name, _ in new}
    later = {row["file"] for row in people.requested(work, 2)}
    assert not later & {*second, free}
    labels = {row["id"]: row for row in read_csv(work / "labels.csv")}
    assert labels[ids[gone]]["label"] == truth[gone]  # Kept, though the image is not used.


@pytest.mark.slow
def test_a_class_that_comes_later(rounds):
    work, truth, config = rounds
    people.run(config(), work)
    names = [row["file"].removesuffix(".png") for row in people.requested(work, 1)][:2]
    people.answer(work, 1, truth, **dict.fromkeys(names, "bird"))
    _, said = people.run(config(), work)
    assert (work / "classes.txt").read_text().split() == ["cat", "dog", "bird"]
    assert any(text.startswith("new class bird") for text in said)
    assert "p_bird" in read_csv(work / "predictions.csv")[0]


@pytest.mark.slow
def test_the_model_says_of_the_folder_what_the_run_has_said(rounds, photos, tmp_path):
    work, _, config = rounds
    people.run(config(), work)
    out = tmp_path / "p.csv"
    command = ["-m", "tavaal_jax.predict", f"--model={work}/model", f"--images={photos[0]}"]
    done = subprocess.run(
        [sys.executable, *command, f"--out={out}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before = read_csv(work / "predictions.csv")
    columns = ["id", "file", "predicted", "confidence", "p_cat", "p_dog"]
    assert [{k: row[k] for k in columns} for row in before] == read_csv(out)
    record = json.loads((work / "model" / "model.json").read_text())
    assert str(photos[0]) not in json.dumps(record)
    assert (work / "model" / "predict.jaxexport").exists()


@pytest.mark.slow
def test_it_stays_and_goes_on_by_itself(photos, config, tmp_path):
    work = tmp_path / "work"

    def stop():
        if (work / "to_label" / "cycle_001").exists():
            return signal.SIGTERM
        labels = work / "labels" / "half.csv"
        if (work / "status.json").exists() and not (work / "labels" / "000_answers.csv").exists():
            if not labels.exists():
                labels.write_text("file,lab")  # Somebody is writing it.
            else:
                labels.unlink()
                people.answer(work, 0, photos[1])
        return None

    with pytest.raises(tavaal_jax.Interrupted):
        tavaal_jax.run_study(config(**{"folder.poll_seconds": 1}), work, stop=stop)
    assert LabellingWorkdir(work).is_trained(0)


@pytest.mark.slow
def test_more_cycles_and_more_images_after_the_end(rounds, photos):
    work, truth, config = rounds
    line, said = people.run(config(cycles=1), work)
    assert line is None
    assert "12 of 60 images" in said[-1] or "16 of 60 images" in said[-1]
    line, _ = people.run(config(cycles=2), work)
    assert line.startswith("cycle 1: 8 images to label")
    roles = [row.role for row in LabellingWorkdir(work).read_request(1)]
    assert roles.count("pick") == 6
    people.answer(work, 1, truth)
    assert people.run(config(cycles=1), work)[0] is None  # Lowered: enough is enough.
    assert not LabellingWorkdir(work).is_trained(1)
    assert people.run(config(cycles=2), work)[0] is None
    assert LabellingWorkdir(work).is_trained(1)


@pytest.mark.slow
def test_the_cache_may_go_while_a_cycle_is_trained(rounds, tmp_path):
    work, _, config = rounds
    other = tmp_path / "other"
    shutil.copytree(work, other)
    people.run(config(), work)

    def stop():  # As soon as it trains, it is stopped, and all that was decoded goes.
        return signal.SIGTERM if list(other.glob("coreset/trial_0/checkpoints/*")) else None

    with pytest.raises(tavaal_jax.Interrupted):
        tavaal_jax.run_study(config(), other, stop=stop)
    shutil.rmtree(tmp_path / "cache")
    people.run(config(), other)
    for name in ("results.csv", "coreset/trial_0/picks.csv", "predictions.csv"):
        assert (work / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_one_class_alone_makes_it_ask_for_more(photos, config, tmp_path):
    work = tmp_path / "work"
    people.run(config(), work)
    people.answer(work, 0, dict.fromkeys(photos[1], "cat"))
    line, said = people.run(config(), work)
    assert line.startswith("cycle 1: 8 images to label")
    assert any("two classes" in text for text in said)
    people.answer(work, 1, photos[1])
    assert people.run(config(), work)[0].startswith("cycle 2: ")


@pytest.mark.slow
def test_without_a_test_set_there_is_no_accuracy(rounds):
    work, truth, config = rounds
    shutil.rmtree(work)
    none = config(**{"folder.test_fraction": 0.0})
    people.run(none, work)
    people.answer(work, 0, truth)
    people.run(none, work)
    assert [row["value"] for row in read_csv(work / "results.csv")] == [""]
    assert json.loads((work / "status.json").read_text())["test"]["n"] == 0


@pytest.mark.slow
def test_keys_change_between_cycles_and_some_never(rounds):
    work, truth, config = rounds
    people.run(config(), work)
    people.answer(work, 1, truth)
    with pytest.raises(UserError, match=r"folder.image_size \(8 -> 16\)"):
        people.run(config(**{"folder.image_size": 16}), work)
    people.run(config(epochs=1, methods="random"), work)
    assert LabellingWorkdir(work).frozen(1).config["config"]["epochs"] == 1
    picks = read_csv(work / "random" / "trial_0" / "picks.csv")
    assert {row["cycle"] for row in picks} == {"1"}


@pytest.mark.slow
def test_unknown_labels_are_never_seen(rounds, monkeypatch, tmp_path):
    """A million in their place changes nothing."""
    work, _, config = rounds
    other = tmp_path / "other"
    shutil.copytree(work, other)
    people.run(config(), work)
    state_of = cycle._state

    def poisoned(*arguments):
        state = state_of(*arguments)
        labels = np.where(state.labelled, state.labels, 10**6).astype(np.int32)
        return state.replace(labels=labels)

    monkeypatch.setattr(cycle, "_state", poisoned)
    people.run(config(), other)
    for name in ("results.csv", "coreset/trial_0/picks.csv", "predictions.csv"):
        assert (work / name).read_bytes() == (other / name).read_bytes(), name


# The command line


PEOPLE = """
import sys
sys.path.insert(0, {tests!r})
import pathlib
import people

def get_config():
    return people.config({images!r}, pathlib.Path({folder!r}), **{changes!r})
"""


@pytest.fixture
def config_file(photos, tmp_path):
    path = tmp_path / "configs" / "mine.py"
    path.parent.mkdir()
    path.write_text(
        PEOPLE.format(
            tests=str(ROOT / "tests"), images=str(photos[0]), folder=str(tmp_path),
            changes={"epochs": 40},
        )
    )  # fmt: skip
    return path


@pytest.mark.slow
def test_exit_codes(config_file, run_main, photos, tmp_path):
    done = run_main(config_file, tmp_path / "work", "--config.cycles=1", "--config.epochs=2")
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1].startswith("cycle 0: 16 images to label (0 answered)")
    people.answer(tmp_path / "work", 0, photos[1])
    done = run_main(config_file, tmp_path / "work", "--config.cycles=1", "--config.epochs=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"model in {tmp_path / 'work' / 'model'}")
    done = run_main(config_file, tmp_path / "other", "--config.folder.images=")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_killed_anywhere_while_people_go_on_labelling(
    config_file, command, run_main, photos, tmp_path
):
    """As an uninterrupted run with the labels that there were when the cycle began."""
    flags = ("--config.checkpoint_every_steps=5",)
    work, whole = tmp_path / "work", tmp_path / "whole"
    assert run_main(config_file, whole, *flags).returncode == 75
    people.answer(whole, 0, photos[1])
    shutil.copytree(whole, work)
    assert run_main(config_file, whole, *flags).returncode == 75
    argv, environment = command(config_file, work, *flags)
    trial, cycle = work / "coreset" / "trial_0", work / "cycles" / "cycle_000"
    marks = [
        "cycles/cycle_000/config.json", "coreset/trial_0/checkpoints/*",
        "coreset/trial_0/results.csv", "coreset/trial_0/picks.csv",
        "coreset/trial_0/model/model.json", "model/model.json", "predictions.csv",
        "cycles/cycle_000/trained.json", "cycles/cycle_001/asked.csv",
    ]  # fmt: skip
    kills = []
    while True:
        process = subprocess.Popen(
            argv, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        there = lambda mark: any(work.glob(mark))
        left = [mark for mark in marks if not there(mark)]
        while process.poll() is None and left and not there(left[0]):
            time.sleep(0.002)
        process.kill()
        code = process.wait()
        if not left or code == 75:
            break
        kills.append(left[0])
        if (cycle / "config.json").exists():  # Frozen: what people say now is for the next one.
            name = people.requested(work, 0)[len(kills)]["file"]
            text = f"file,label\n{name},{'cat' if len(kills) % 2 else 'dog'}\n"
            (work / "labels" / "late.csv").write_text(text)
    assert len(kills) >= 4, kills
    assert (trial / "picks.csv").exists()
    (work / "labels" / "late.csv").unlink()
    assert run_main(config_file, work, *flags).returncode == 75
    for name in ("results.csv", "coreset/trial_0/picks.csv", "predictions.csv"):
        assert (work / name).read_bytes() == (whole / name).read_bytes(), name
    assert people.requested(work, 1) == people.requested(whole, 1)


@pytest.mark.slow
def test_a_model_whose_publishing_was_killed_is_published_at_the_next_start(tmp_path):
    truth = people.folder(tmp_path / "photos", 40)
    config = people.config(tmp_path / "photos", tmp_path, **{"folder.test_fraction": 0.0})
    work = tmp_path / "work"
    people.run(config, work)
    people.answer(work, 0, truth)
    people.run(config, work)
    before = {path.name: path.read_bytes() for path in (work / "model").iterdir()}
    assert "README.txt" in before
    (work / "model" / "README.txt").unlink()
    (work / "model" / "weights.npz").write_bytes(b"of an earlier cycle")
    line, _ = people.run(config, work)
    assert "cycle 1" in line
    after = {path.name: path.read_bytes() for path in (work / "model").iterdir()}
    assert after.keys() == before.keys()
    differ = {name for name in before if before[name] != after[name]}
    assert differ <= {"predict.jaxexport"}  # It has names that JAX counts up.


@pytest.mark.slow
def test_a_change_of_method_between_two_cycles_is_told(photos, config, tmp_path):
    one, work = config(methods="random"), tmp_path / "work"
    people.run(one, work)
    people.answer(work, 0, photos[1])
    people.run(one, work)
    _, log = people.run(config(methods="margin"), work)
    assert "other keys than in the cycle before: methods (random -> margin)" in log
    _, log = people.run(one, work)
    assert not [text for text in log if "other keys" in text]
