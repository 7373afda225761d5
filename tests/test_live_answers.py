"""Answers of the live page as files: once, on the disk first, whole or not at all."""

import csv
import datetime
import io
import os
import threading

import pytest

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels import answers, consensus, rows
from tavaal_jax.labelling.page import answer_files, wishes
from tavaal_jax.labelling.page.answer_files import AnswerFiles, Given

CAT, DOG = "i" + "0" * 16, "i" + "1" * 16


def saved(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [(row["id"], row["label"], row["annotator"]) for row in csv.DictReader(file)]


@pytest.fixture
def store(tmp_path):
    (tmp_path / "labels").mkdir()
    return AnswerFiles(tmp_path / "labels")


def give(store, who="Anna", name=CAT, label="cat", **others):
    store.save(who, [Given(name, "a.png", label, **others)])


def again(store):
    other = AnswerFiles(store.folder)
    other.load()
    return other


def test_an_answer_is_a_row_that_every_reader_of_labels_reads(store):
    store.save("Anna B", [Given(CAT, "=x,\n1.png", "cat"), Given(DOG, "b.png", "dog")])
    found = answers.read(store.folder).answers
    assert [(a.id, a.label, a.annotator, a.is_offered) for a in found] == [
        (CAT, "cat", "Anna B", True),
        (DOG, "dog", "Anna B", True),
    ]
    assert found[0].source == "labels/page_anna_b.csv"
    assert found[0].updated < found[1].updated
    assert again(store).of("anna b") == {CAT: "cat", DOG: "dog"} == store.of("ANNA B")
    assert store.of("Bob") == {}


def test_the_same_answer_again_writes_nothing(store):
    give(store)
    before = (store.folder / "page_anna.csv").read_bytes()
    give(store)
    give(again(store))
    assert (store.folder / "page_anna.csv").read_bytes() == before
    give(store, label="dog")
    give(store)
    assert [label for _, label, _ in saved(store.folder / "page_anna.csv")] == ["cat", "dog", "cat"]


def test_an_answer_to_an_image_that_is_asked_for_again_counts_again(store):
    give(store)
    digest = lambda: consensus.verdict_digest(verdict(store))
    before = digest()
    give(store, since=datetime.datetime.now(datetime.UTC))
    assert len(saved(store.folder / "page_anna.csv")) == 2
    assert digest() != before


def verdict(store):
    from tavaal_jax.labelling.images.inventory import Image

    image = Image(CAT, "a.png", "ok", 8, 8, "L")
    found = answers.read(store.folder).answers
    result = consensus.aggregate([image], found, classes=(), fixed=False, unsure=(), bad=())
    return result.verdicts[CAT]


def test_verdicts_of_other_files_have_the_digest_that_they_always_had():
    plain = consensus.Verdict("label", "cat", "anna", "labels/a.csv", (("cat", 1),))
    assert consensus.verdict_digest(plain) == "ab9e6bf60ac95253"
    assert rows.is_live("labels/page_anna.csv")
    assert not rows.is_live("labels/sub/page_anna.csv")


def test_what_is_taken_back_is_gone_for_good(store):
    store.save("Anna", [Given(CAT, "a.png", "cat"), Given(DOG, "b.png", "dog")])
    give(store, "Bob")
    give(store, label="dog")
    store.save("anna", [Given(CAT, "a.png", None)])
    assert saved(store.folder / "page_anna.csv") == [(DOG, "dog", "Anna")]
    assert saved(store.folder / "page_bob.csv") == [(CAT, "cat", "Bob")]
    assert again(store).of("Anna") == {DOG: "dog"} == store.of("Anna")
    assert [path.name for path in store.folder.iterdir()].count(".page_anna.csv.tmp") == 0
    give(store)
    assert again(store).of("Anna") == {DOG: "dog", CAT: "cat"}


def test_times_grow_even_where_the_clock_goes_back(store, monkeypatch):
    give(store)

    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    class Yesterday(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return yesterday

    monkeypatch.setattr(answer_files.datetime, "datetime", Yesterday)
    later = again(store)
    give(later, label="dog")
    monkeypatch.undo()
    assert verdict(store).label == "dog"


def test_two_names_may_share_a_file_and_nothing_else(store):
    give(store, "A B")
    give(store, "a_b", label="dog")
    assert [path.name for path in store.folder.iterdir()] == ["page_a_b.csv"]
    assert store.of("a b") == {CAT: "cat"}
    assert store.of("A_B") == {CAT: "dog"}
    store.save("a b", [Given(CAT, "a.png", None)])
    assert again(store).of("a_b") == {CAT: "dog"}


@pytest.mark.parametrize("who", ["", " ", "x" * 101, "a\nb", "../../etc/passwd", "a/b", "\x00"])
def test_names_never_leave_the_folder(store, who):
    try:
        give(store, who)
    except UserError:
        assert list(store.folder.iterdir()) == []
    else:
        assert [path.parent for path in store.folder.rglob("*")] == [store.folder]
        assert again(store).of(who) == {CAT: "cat"}


def test_a_file_saved_in_another_shape_is_left_as_it_is(store):
    give(store)
    path = store.folder / "page_anna.csv"
    path.write_text(path.read_text("utf-8-sig").replace(",", ";"), "utf-8")
    before = path.read_bytes()
    give(store, label="dog")
    assert path.read_bytes() == before
    assert saved(store.folder / "page_anna_002.csv") == [(CAT, "dog", "Anna")]
    assert verdict(store).label == "dog"


def test_a_row_goes_on_behind_a_line_without_an_end(store):
    give(store)
    path = store.folder / "page_anna.csv"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    give(store, name=DOG, label="dog")
    assert saved(path) == [(CAT, "cat", "Anna"), (DOG, "dog", "Anna")]


def test_links_are_not_followed(store, tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text("mine")
    (store.folder / "page_anna.csv").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic"):
        give(store)
    assert outside.read_text() == "mine"


def test_a_full_disk_leaves_the_file_as_it_was(store, monkeypatch):
    give(store)
    path = store.folder / "page_anna.csv"
    before = path.read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        give(store, label="dog")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert store.of("Anna") == {CAT: "cat"} == again(store).of("Anna")


def test_every_cut_is_mended_and_what_was_whole_stays(store):
    give(store)
    path = store.folder / "page_anna.csv"
    first = path.read_bytes()
    give(store, name=DOG, label="dog")
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        said = answer_files.mend(store.folder)
        text = path.read_bytes() if path.exists() else b""
        assert text in (b"", first[: first.index(b"\n") + 1], first, whole)
        if end >= len(first) - 1:
            assert text.startswith(first)
        assert bool(said) == (0 < len(text) < end)
        if text.count(b"\n") > 1:
            answers.read(store.folder)
    assert path.read_bytes() == whole


def test_files_of_others_are_not_mended(store):
    path = store.folder / "page_3.csv"
    path.write_text("file,label\na.png,cat")
    assert answer_files.mend(store.folder) == []
    assert path.read_text() == "file,label\na.png,cat"


def test_a_reader_with_the_lock_sees_whole_rows_while_people_answer(store):
    count, faults = 60, []
    people = ["Anna", "Bob", "Cem"]

    def work(who):
        for number in range(count):
            store.save(who, [Given(f"i{number:016x}", "a.png", f"class {number}")])

    threads = [threading.Thread(target=work, args=(who,)) for who in people]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with store.lock:
            read = answers.read(store.folder).answers
        faults += [a for a in read if a.label != f"class {int(a.id[1:], 16)}"]
    for thread in threads:
        thread.join()
    assert faults == []
    for who in people:
        path = store.folder / f"page_{who.lower()}.csv"
        assert [name for name, _, _ in saved(path)] == [f"i{n:016x}" for n in range(count)]


def test_wishes_are_kept_once_and_in_order(tmp_path):
    assert wishes.read(tmp_path) == []
    wishes.add(tmp_path, [DOG, CAT, DOG])
    wishes.add(tmp_path, [CAT])
    assert wishes.read(tmp_path) == [DOG, CAT]
    assert io.StringIO((tmp_path / "ask_next.txt").read_text()).readlines()[0] == f"{DOG}\n"


def test_a_row_that_somebody_has_deleted_meanwhile_is_written_again(store):
    give(store)
    (store.folder / "page_anna.csv").unlink()
    assert store.of("Anna") == {}
    give(store)
    assert saved(store.folder / "page_anna.csv") == [(CAT, "cat", "Anna")]


@pytest.mark.parametrize("changed", [("\n", "\r\n"), (",", ";")])
def test_what_cannot_be_taken_back_from_a_spreadsheets_file_is_told(store, changed):
    give(store)
    path = store.folder / "page_anna.csv"
    path.write_bytes(path.read_bytes().replace(*(part.encode() for part in changed)))
    with pytest.raises(UserError, match="1 of your answers cannot be taken back"):
        give(store, label=None)
    assert store.of("Anna") == {CAT: "cat"}
    give(store, name=DOG, label="dog")  # Goes into a file beside it.
    give(store, name=DOG, label=None)
    assert again(store).of("Anna") == {CAT: "cat"}


def test_a_file_of_other_characters_does_not_keep_others_from_taking_back(store):
    (store.folder / "page_bob.csv").write_bytes("id,label\n1,Bär\n".encode("latin-1"))
    give(store)
    give(store, label=None)
    assert again(store).of("Anna") == {}
