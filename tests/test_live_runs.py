"""Whole runs with the live page: in turns with the plain command, killed while people answer."""

import collections
import csv
import json
import random
import threading

import people
import pytest
from live_people import Command, acknowledge, config_file, ledger, on_disk
from trials import compiled_once

import tavaal_jax
from tavaal_jax.errors import WaitingForLabels
from tavaal_jax.labelling import selection
from tavaal_jax.labelling.page.answer_files import AnswerFiles, Given
from tavaal_jax.labelling.workdir import LabellingWorkdir

pytestmark = pytest.mark.slow
CYCLES = 3


@pytest.fixture(autouse=True, scope="module")
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos", people.folder(tmp_path / "photos", 60)


def by_page(command, work, truth, numbers, name="Anna"):
    """Answers the requests of some cycles on the page, and waits for the request behind them."""
    person = command.person(name)
    for number in numbers:
        person.label(person.waiting(number), truth)
    person.waiting(numbers[-1] + 1)
    assert command.stop()[0] == 130


def by_hand(config, images, work, truth, numbers, name="Anna"):
    """Answers the same requests in the same file, and gives the plain command."""
    one = tavaal_jax.load_config(config)
    one.folder.images = str(images)

    def run():
        with pytest.raises(WaitingForLabels):
            tavaal_jax.run_study(one, work)

    run()
    for number in numbers:
        answers = AnswerFiles(work / "labels")
        answers.load()
        rows = people.requested(work, number)
        answers.save(name, [Given(r["id"], r["file"], truth[r["file"]]) for r in rows])
        run()


def test_page_and_plain_command_in_turns_give_the_ledger_of_either_alone(photos, tmp_path):
    images, truth = photos
    config = config_file(tmp_path)
    begin = lambda work: Command(images, work, config)
    alone, plain, turns = (tmp_path / name for name in ("alone", "plain", "turns"))
    with begin(alone) as command:
        by_page(command, alone, truth, range(CYCLES))
    by_hand(config, images, plain, truth, range(CYCLES))
    for number in range(CYCLES):
        if number % 2:
            by_hand(config, images, turns, truth, [number])
        else:
            with begin(turns) as command:
                by_page(command, turns, truth, [number])
    assert len(ledger(alone)) >= 2 * CYCLES + 5
    assert ledger(alone) == ledger(plain) == ledger(turns)


def test_kill_9_loses_no_answer_that_was_acknowledged(photos, tmp_path):
    images, truth = photos
    config, work, whole = config_file(tmp_path), tmp_path / "work", tmp_path / "whole"
    draw, known, kills = random.Random(0), {"Anna": {}, "Bob": {}}, 3
    for kill in range(kills + 1):
        with Command(images, work, config) as command:
            command.person().until(lambda s: s.get("request") is not None, "a request")
            assert_saved(work, known)
            is_last = kill == kills
            threads = [
                threading.Thread(target=answer, args=(command, place, truth, known, is_last))
                for place in range(2)
            ]
            for thread in threads:
                thread.start()
            if not is_last:
                threads[0].join(draw.uniform(0.05, 0.6))
                command.kill()
            for thread in threads:
                thread.join()
    assert_saved(work, known)
    rows = on_disk(work)
    assert len({(who, name) for who, name, _ in rows}) == len(rows)  # None is there twice.
    with Command(images, whole, config) as command:
        by_page(command, whole, truth, range(CYCLES))
    names = [name for name in ledger(whole) if "picks" in name or "results" in name]
    assert names
    assert {n: ledger(work)[n] for n in names} == {n: ledger(whole)[n] for n in names}


def answer(command, place, truth, known, is_last):
    """One of two people, who answers every other image until it breaks off, or to the end."""
    person = command.person(list(known)[place])
    for number in range(CYCLES):
        request = person.get(f"/api/request?who={person.name}")
        if request["request"] != number:
            continue
        mine = {**request, "images": request["images"][place::2]}
        known[person.name] |= acknowledge(person, mine, truth, 0.02)
        if not is_last:
            return
        person.until(lambda s, n=number: s.get("request") == n + 1, "the next request")


def assert_saved(work, known):
    rows = set(on_disk(work)) if (work / "labels").exists() else set()
    for who, answers in known.items():
        assert {(who, name, label) for name, label in answers.items()} <= rows


def test_what_is_wished_is_asked_next_and_a_model_comes_at_once_when_told(photos, tmp_path):
    images, truth = photos
    work = tmp_path / "work"
    with Command(images, work, config_file(tmp_path)) as command:
        person = command.person("Anna")
        request = person.waiting(0)
        names = [image["id"] for image in request["images"]]
        table = people.requested(work, 0)
        asked = {row["id"] for row in table}
        with (work / "images.csv").open(encoding="utf-8") as file:
            others = [line.split(",")[1] for line in file.readlines()[1:]]
        wished = [name for name in others if name not in asked][-12:]
        assert person.post("/api/ask", {"ids": wished}) == {"asked": 12}
        # All but two, of which nobody says anything.
        person.label(request, truth, request["images"][:-2])
        assert person.state()["answered"] == len(names) - 2
        person.post("/api/train", {})
        following = person.waiting(1)
        got = [image["id"] for image in following["images"]]
        tests = [r["id"] for r in roles(work, 1) if r["role"] == "test"]
        free = [name for name in wished if name not in reserved(work)]
        picks = [row["id"] for row in roles(work, 1) if row["role"] == "pick"]
        assert picks == free[: len(got) - len(tests)]
        state = person.state()
        assert state["curve"][0]["labelled"] > 0
        assert state["seconds_to_model"] > 0
        person.until(lambda s: person.get("/api/map?kind=pca")["state"] == "ready", "the map")
        found = person.get("/api/map?kind=pca")
        assert len(found["ids"]) == 60 == len(found["x"]) == len(found["label"])
        assert {found["label"][found["ids"].index(n)] for n in names[:-2]} == {"cat", "dog"}
        assert state["status"] == json.loads((work / "status.json").read_text("utf-8"))
        # Neither a request nor the map tells images of the test set from others.
        for number, images_of in enumerate((request["images"], following["images"])):
            told = collections.defaultdict(set)
            role = {row["id"]: row["role"] for row in roles(work, number)}
            for image in images_of[:-2]:  # Those without an answer may be asked for again.
                at = found["ids"].index(image["id"])
                on_map = found["label"][at] is None, found["picked"][at]
                told[role[image["id"]]].add((*sorted(image), str(image["fold"]), *on_map))
            assert told["test"] == told["pick"]
            assert len(told["test"]) == 1
        # Whatever the model suggests, no image that is reserved for the test set is among it.
        groups = person.get("/api/suggestions?who=Anna")["groups"]
        suggested = {image["id"] for group in groups for image in group["images"]}
        left = set(others) - set(names) - set(got)
        assert suggested
        assert suggested.isdisjoint(reserved(work))
        silent = left - suggested
        assert len(silent - reserved(work)) >= len(silent & reserved(work)) > 0
        code, text = command.stop()
        assert code == 130
        assert "everything is saved" in text


def roles(work, number):
    with (work / "cycles" / f"cycle_{number:03d}" / "asked.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def reserved(work):
    names = [image.id for image in LabellingWorkdir(work).images()]
    return selection.reserved(names, tavaal_jax.load_config("folder").seed, 0.25)
