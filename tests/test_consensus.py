"""What all answers together say: whose answer counts, which labels are classes."""

import contextlib
import itertools

import pytest
from label_files import BAD, IMAGES, UNSURE, aggregated, answer, image, kinds, number

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels import class_names
from tavaal_jax.labelling.labels.class_names import MOST_CLASSES
from tavaal_jax.labelling.labels.consensus import (
    Consensus,
    Verdict,
    aggregate,
    changes,
)


def fault(*said, **options):
    with pytest.raises(UserError) as caught:
        aggregated(*said, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_rows_without_an_answer_say_nothing():
    assert aggregated(answer("nowhere.jpg", ""), answer("a.jpg", "")) == Consensus({}, (), ())


def test_entries_are_in_the_order_of_the_images():
    found = aggregated(answer("owls/x.jpg"), answer("a.jpg", line=3), answer("gone.jpg", line=4))
    assert list(found.verdicts) == [number(0), number(2), number(5)]


# Whose answer


def test_one_answer():
    found = aggregated(answer("a.jpg", "cat", annotator="ann"))
    assert found == Consensus(
        {number(0): Verdict("label", "cat", "ann", "labels/a.csv", (("cat", 1),))}, (), ("cat",)
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The later file, whatever is dropped beside requests, the newer one.
        ({"source": "labels/A.csv", "line": 9}, {"source": "labels/a.csv"}),
        ({"source": "labels/a.csv"}, {"source": "labels/b/a.csv"}),
        ({"source": "to_label/cycle_003/to_label.csv"}, {"source": "labels/a.csv"}),
        ({"source": "to_label/cycle_003/to_label.csv"}, {"source": "to_label/cycle_004/b.csv"}),
        ({"source": "folder.images", "line": 0}, {"source": "to_label/cycle_003/to_label.csv"}),
        ({"source": "labels/cat/a.jpg", "line": 0}, {"source": "labels/e.csv"}),
        ({"line": 3, "updated": "2026-01-01T00:00:00Z"},
         {"line": 2, "updated": "2026-01-01T00:00:00.5Z"}),
        ({"updated": "2026-01-01"},
         {"source": "labels/b.csv", "updated": "2026-01-01T00:00:00Z"}),
        ({"source": "labels/a (2).csv"}, {"source": "labels/a (10).csv"}),
        ({"line": 2, "updated": "2026-01-01"}, {"line": 3}),
        ({"line": 2}, {"line": 3, "updated": "2026-01-01"}),
    ],
)  # fmt: skip
def test_one_answer_of_a_person_and_an_image(first, second):
    for person in ("", "ann"):
        said = [answer("a.jpg", "cat", **first), answer("a.jpg", "dog", **second)]
        assert kinds(*(one._replace(annotator=person) for one in said)) == {number(0): "dog"}
    # Of two people both count.
    assert kinds(said[0], said[1]._replace(annotator="bob")) == {number(0): "conflict"}


def test_an_old_answer_does_not_count_whatever_stands_between():
    old, new = "2026-01-01", "2026-01-02"
    said = [answer("a.jpg", "cat", line=2, updated=new), answer("a.jpg", "dog", line=3),
            answer("a.jpg", "fox", line=4, updated=old)]  # fmt: skip
    assert kinds(*said) == {number(0): "dog"}
    assert kinds(said[0], said[2]) == {number(0): "cat"}


@pytest.mark.parametrize(
    ("said", "expected", "votes", "heard"),
    [
        (["cat", "cat", "dog"], "cat", (("cat", 2), ("dog", 1)), "01"),
        (
            ["cat", "cat", "dog", "dog", "owl"],
            "conflict",
            (("cat", 2), ("dog", 2), ("owl", 1)),
            "01234",
        ),
        (["cat", "cat", "dog", "owl"], "cat", (("cat", 2), ("dog", 1), ("owl", 1)), "01"),
        (["?", "SKIP", "cat"], "unsure", (("unsure", 2), ("cat", 1)), "01"),
        (["bad", "Bad Image", "unsure"], "bad", (("bad", 2), ("unsure", 1)), "01"),
        (["cat", "unsure"], "conflict", (("cat", 1), ("unsure", 1)), "01"),
        (["bad", "unsure"], "conflict", (("bad", 1), ("unsure", 1)), "01"),
        (["caf\u00e9", "cafe\u0301"], "caf\u00e9", (("caf\u00e9", 2),), "01"),
    ],
)
def test_people_decide_by_majority(said, expected, votes, heard):
    found = aggregated(
        *(answer("a.jpg", label, annotator=f"p{n}", source=f"labels/{n}.csv")
          for n, label in enumerate(said)),
    )  # fmt: skip
    verdict = found.verdicts[number(0)]
    assert (verdict.label or verdict.kind, verdict.votes) == (expected, votes)
    assert verdict.annotator == "+".join(f"p{n}" for n in heard)
    assert verdict.source == "+".join(f"labels/{n}.csv" for n in heard)
    assert found.classes == ((expected,) if verdict.kind == "label" else ())


def test_skipping_is_being_unsure():
    assert kinds(answer("a.jpg", "", skipped=True)) == {number(0): "unsure"}
    assert aggregated(answer("a.jpg", "", skipped=True), unsure=()).verdicts[number(0)].votes == (
        ("unsure", 1),
    )
    assert kinds(answer("a.jpg", "unsure"), unsure=()) == {number(0): "unsure"}
    votes = aggregated(answer("a.jpg", "B"), bad=("broken", "b")).verdicts[number(0)].votes
    assert votes == (("broken", 1),)


def test_copies_of_an_image_are_one():
    first, copy = answer("a.jpg", "cat"), answer("birds/copy of a.jpg", "cat", line=3)
    assert aggregated(first, copy).verdicts[number(0)].votes == (("cat", 1),)
    # Who says different things of them has a conflict with himself; another file decides.
    other = copy._replace(label="dog")
    assert kinds(first, other) == {number(0): "conflict"}
    again = first._replace(label="dog", line=4, updated="2026-01-01")
    assert kinds(first, other, again) == {number(0): "dog"}
    assert kinds(first, other, first._replace(source="labels/b.csv")) == {number(0): "cat"}
    folders = [answer(f"{c}/a.jpg", c, number(0), 0, f"labels/{c}/a.jpg") for c in ("cat", "dog")]
    assert kinds(*folders) == {number(0): "conflict"}
    assert kinds(*folders, answer("a.jpg", "dog", source="labels/e.csv")) == {number(0): "dog"}
    assert kinds(*folders, first._replace(annotator="ann")) == {number(0): "cat"}


# Which class


def test_new_classes_come_behind_those_that_are_known():
    said = [answer(f"{n}.jpg", label) for n, label in enumerate(["wren", "ox", "wren", "heron"])]
    images = [image(n, f"{n}.jpg") for n in range(4)]
    found = aggregated(*said, images=images, classes=("zebra", "ox"))
    assert found.classes == ("zebra", "ox", "heron", "wren")
    assert aggregated(images=images, classes=("zebra",)).classes == ("zebra",)
    assert aggregated(*said[:3], images=images, classes=("wren", "ox"), fixed=True).classes == (
        "wren", "ox",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("label", "nearest"),
    [("heorn", " (nearest: heron)"), ("HERON", " (nearest: heron)"), ("xyzw", " (nearest: ")],
)
def test_another_label_than_the_given_classes(label, nearest):
    message = fault(answer("a.jpg", label), classes=("wren", "heron"), fixed=True)
    assert message.startswith(f"labels/a.csv line 2: {label} is none of the classes{nearest}")
    fault(answer("a.jpg", label), classes=(), fixed=True)
    # What somebody has taken back is no label any more.
    later = answer("a.jpg", "wren", source="labels/b.csv")
    assert kinds(answer("a.jpg", label), later, classes=("wren",), fixed=True) == {
        number(0): "wren"
    }


def counted(*counts, **options):
    """The aggregated of so many answers of each label."""
    labels = [label for label, count in counts for _ in range(count)]
    images = [image(n, f"{n}.jpg") for n in range(len(labels))]
    said = [answer(f"{n}.jpg", label, line=n + 2) for n, label in enumerate(labels)]
    return lambda: aggregate(images, said, **{"classes": (), "fixed": False, "unsure": UNSURE,
                                           "bad": BAD, **options})  # fmt: skip


@pytest.mark.parametrize("typo", ["hero", "herons", "herom", "ehron", "heorn", "heron."])
def test_a_class_that_is_said_once_and_looks_like_another(typo):
    with pytest.raises(UserError, match=r"^labels/a.csv line 5: .* is nearly heron: mend it") as e:
        counted(("heron", 3), (typo, 1))()
    assert f" {typo}, which occurs only once" in str(e.value)
    counted(("heron", 3), (typo, 2))()
    counted(("heron", 3), (typo, 1), classes=(typo,))()
    counted(("heron", 3), (typo, 1), classes=(typo, "heron"), fixed=True)()
    with pytest.raises(UserError, match="is nearly"):
        counted((typo, 1), classes=("heron",))()
    with pytest.raises(UserError, match="is nearly"):
        counted((typo, 1), ("heron", 1))()


def test_the_live_page_has_asked_before_a_class_that_looks_like_another():
    images = [image(n, f"{n}.jpg") for n in range(4)]
    known = [answer(f"{n}.jpg", "skirt", line=n + 2) for n in range(3)]
    for source, is_doubted in (("labels/page_ann.csv", False), ("labels/ann.csv", True)):
        said = [*known, answer("3.jpg", "shirt", source=source)]
        options = {"classes": (), "fixed": False, "unsure": UNSURE, "bad": BAD}
        context = pytest.raises(UserError, match="is nearly skirt")
        with context if is_doubted else contextlib.nullcontext():
            assert "shirt" in aggregate(images, said, **options).classes


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "2"), ("10", "11"), ("class 1", "class 2"), ("ox", "fox"), ("heron", "hornet"),
     ("heron", "hreno"), ("cat", "tac"), ("abcd", "badc")],
)  # fmt: skip
def test_classes_that_do_not_look_alike(one, other):
    assert counted((one, 1), (other, 1))().classes == tuple(sorted((one, other)))


def near(one, other):
    """One edit by its definition: all texts that one edit makes of another."""
    letters = set(one + other)
    made = {one[:k] + one[k + 1 :] for k in range(len(one))}
    made |= {one[:k] + c + one[k:] for k in range(len(one) + 1) for c in letters}
    made |= {one[:k] + c + one[k + 1 :] for k in range(len(one)) for c in letters}
    made |= {one[:k] + one[k + 1] + one[k] + one[k + 2 :] for k in range(len(one) - 1)}
    return one != other and other in made


def test_one_edit():
    names = ["".join(p) for n in (3, 4, 5) for p in itertools.product("ab", repeat=n)]
    for one, other in itertools.combinations(names, 2):
        ok = True
        try:
            counted((one, 1), (other, 1))()
        except UserError:
            ok = False
        assert ok != near(one, other), (one, other)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("a/b", "has the character /"), ("a\\b", "has the character \\"),
        ("<b>", "has the character <"), ("a>b", "has the character >"),
        ('"a"', 'has the character "'), ("a\nb", "cannot be printed"),
        ("a\u202eb", "cannot be printed"), ("\ud800", "cannot be printed"),
        ("a" * 101, "has 101 characters"), ("..", "is the name of a folder"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fixed", [True, False])
def test_names_that_no_class_can_have(label, says, fixed):
    message = fault(answer("a.jpg", label), classes=("wren",), fixed=fixed)
    assert message.startswith('labels/a.csv line 2: the class "')
    assert says in message
    assert says in fault(classes=(label,))


def test_names_that_a_class_can_have():
    for label in ("a" * 100, "=1+1", "Zaunkönig, weiß", "it's", "鷺", "a.b", "'x"):
        assert kinds(answer("a.jpg", label)) == {number(0): label}


def test_classes_and_words_that_cannot_be():
    assert "folder.unsure and folder.exclude_answers both have ?" in fault(
        unsure=("?",), bad=("x", "?")
    )
    assert 'the class "cat" is there twice' in fault(classes=("cat", "dog", "cat"))
    assert "has 0 characters" in fault(classes=("",))


def test_number_of_classes():
    assert len(counted(*((f"name {n}", 2) for n in range(MOST_CLASSES)))().classes) == 1000
    with pytest.raises(UserError, match="the labels name 1,001 classes, at most 1,000"):
        counted(*((f"name {n}", 1) for n in range(1001)))()
    assert "1,001 classes, at most 1,000" in fault(classes=[f"name {n}" for n in range(1001)])


def test_a_column_that_is_none_of_labels():
    comments = [(f"seen at {n} o'clock", 1) for n in range(30)]
    line = (
        r"^labels/a.csv line 2: 30 of 37 labels occur only once, seen at 0 o'clock and seen at 1"
        r" o'clock among them: is the column of labels the right one\? If so, name the classes in"
    )
    with pytest.raises(UserError, match=line):
        counted(*comments, ("nothing", 7))()
    names = tuple(name for name, _ in comments)
    assert len(counted(*comments, classes=names, fixed=True)().classes) == 30
    assert len(counted(*comments, ("nothing", 8))().classes) == 31  # Four in five may be rare.
    assert len(counted(*comments[:20])().classes) == 20


# What has changed


def test_changes():
    before = aggregated(
        answer("a.jpg", "cat"), answer("gone.jpg", "cat"), answer("owls/x.jpg", "owl"),
        answer("birds/x.jpg", "?"),
    )  # fmt: skip
    after = aggregated(
        answer("a.jpg", "dog"), answer("owls/x.jpg", "owl"), answer("new.jpg", "owl"),
        answer("birds/x.jpg", "bad"), answer("y.v2", "owl"),
    )  # fmt: skip
    files = {image.id: image.file for image in reversed(IMAGES)}
    lines = ["a.jpg cat -> dog", "birds/x.jpg unsure -> bad", "2 new labels", "1 deleted label"]
    assert changes(before.verdicts, after.verdicts, files) == lines
    assert changes(before.verdicts, after.verdicts)[0] == f"{number(0)} cat -> dog"
    assert changes({}, after.verdicts) == ["5 new labels"]
    assert changes(after.verdicts, after.verdicts) == []


# Words for answers that are no class


def of_folder(word, number_, place="labels"):
    """An image in a class folder of that name."""
    source = place if "." in place else f"labels/{word}/{number_}.jpg"
    name = f"{word}/{number_}.jpg"
    return answer(name, word, number(number_), 0, source)._replace(is_name=True)


POOL = [image(n, f"{n}.jpg") for n in range(60)]
WORDS = ("bad", "Bad", "bad image", "unsure", "skip", "?")


@pytest.mark.parametrize("place", ["labels", "folder.images", "folder.test"])
@pytest.mark.parametrize("word", WORDS)
def test_names_of_folders_are_classes_whatever_they_mean_otherwise(word, place):
    said = [of_folder(word, n, place) for n in range(3)] + [of_folder("good", 4, place)]
    found = aggregated(*said, images=POOL)
    assert found.classes == tuple(sorted([word, "good"]))
    assert [found.verdicts[number(n)].label for n in range(3)] == [word] * 3
    # From a table, too, of which the folder tells the meaning; and in the next cycle.
    row = answer("5.jpg", word)
    assert kinds(*said, row, images=POOL)[number(5)] == word
    assert kinds(row, images=POOL, named=(word,)) == {number(5): word}
    assert kinds(row, images=POOL, classes=(word, "good")) == {number(5): word}
    assert kinds(row, images=POOL, classes=(word, "good"), fixed=True) == {number(5): word}
    # Where the classes are given and it is none of them, it means what it means.
    meant = "bad" if "bad" in word.casefold() else "unsure"
    given = kinds(*said, images=POOL, classes=("good", "scratched"), fixed=True)
    assert given == {**{number(n): meant for n in range(3)}, number(4): "good"}


@pytest.mark.parametrize(
    ("classes", "unsure", "bad", "dropped"),
    [
        ((), UNSURE, BAD, ()),
        (("bad",), UNSURE, ("bad image",), ("bad",)),
        (("BAD", "bad image"), UNSURE, ("not for training",), ("bad", "bad image")),
        (("unsure", "skip", "?"), ("cannot say",), BAD, UNSURE),
    ],
)
def test_words_in_force(classes, unsure, bad, dropped):
    words = class_names.words_in_force(classes, UNSURE, BAD)
    assert words == class_names.Words(unsure, bad, dropped)
    assert class_names.words_in_force(classes, (), ()) == class_names.Words((), ())


def rows_of(word, count, total=42, **changes):
    label = lambda n: word if n < count else ("good", "scratched")[n % 2]
    return [answer(f"{n}.jpg", label(n), line=n + 2, **changes) for n in range(total)]


@pytest.mark.parametrize(
    ("word", "flag"),
    [("bad", "exclude_answers=\"('bad image',)\""), ("skip", "unsure=\"('unsure'")],
)
def test_a_word_that_many_images_have_is_asked_about_once(word, flag):
    ask = {"images": POOL, "ask": ("unsure", "bad")}
    message = fault(*rows_of(word, 14), **ask)
    assert message.startswith(f"labels/a.csv line 2: {word} is said of 14 of 42 images, and means")
    assert f"if it is a class, give --config.folder.{flag}" in message
    assert "--config.folder.classes=\"('good','scratched',)\"" in message
    # What is said of few is meant so, and what was a button beside the classes.
    kind = "bad" if word == "bad" else "unsure"
    assert kinds(*rows_of(word, 4), **ask)[number(0)] == kind
    assert kinds(*rows_of(word, 5, 51), **ask)[number(0)] == kind
    meaning = {"bad": "not for training", "skip": "nobody can say"}[word]
    assert aggregated(*rows_of(word, 4), **ask).notes == (
        f'"{word}" is said of 4 images, and means "{meaning}" here, not a class',
    )
    offered = [one._replace(is_offered=True) for one in rows_of(word, 14)]
    assert kinds(*offered, **ask)[number(0)] == kind
    assert not aggregated(*offered, **ask).notes
    skipped = [one._replace(label="", skipped=True) for one in rows_of(word, 14)]
    assert kinds(*skipped, **ask)[number(0)] == "unsure"
    # Each of the two flags ends it.
    assert kinds(*rows_of(word, 14), images=POOL)[number(0)] == kind
    other = {"bad": {"bad": ("bad image",)}, "skip": {"unsure": ("unsure",)}}[word]
    assert kinds(*rows_of(word, 14), **ask, **other)[number(0)] == word


# Spellings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("true", "TRUE"), ("007", "7"), ("1", "1.0"), ("1", "+1"), ("hot dog", "Hot  Dog"),
        ("cat1", "cat\uff11"), ("fish", "\ufb01sh"), ("a", "A"), ("x\u00b2", "x2"), ("0", "00.0"),
    ],
)  # fmt: skip
def test_spellings_of_one_name_are_asked_about(one, other):
    for known, new in ((one, other), (other, one)):
        with pytest.raises(UserError, match="is spelt otherwise than the class") as caught:
            counted((new, 6), classes=(known,))()
        assert f"line 2: {new} (said 6 times) is" in str(caught.value)
        assert f"write {known}, or name both in folder.classes" in str(caught.value)
        with pytest.raises(UserError, match="spelt otherwise"):
            counted((known, 9), (new, 6))()
        assert len(counted((known, 9), (new, 6), classes=(one, other))().classes) == 2
        assert len(counted((known, 9), (new, 6), classes=(one, other), fixed=True)().classes) == 2
        if len({one.strip(), other.strip()}) == 2:
            fault(of_folder(known, 0), of_folder(new, 1), images=POOL)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "-1"), ("1.5", "15"), ("10", "1"), ("a 1", "a 01")]
)
def test_names_that_are_not_spellings_of_one(one, other):
    assert len(counted((one, 5), (other, 5))().classes) == 2


def test_spellings_of_a_person_are_one_person():
    people = ("Anna", "anna", "ANNA ", "Bob", "bob")
    said = [
        answer("a.jpg", "dog" if "n" in person.lower() else "cat", annotator=person,
               source=f"labels/{row}.csv")
        for row, person in enumerate(people)
    ]  # fmt: skip
    assert aggregated(*said).verdicts[number(0)].votes == (("cat", 1), ("dog", 1))


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "NaT", "NULL", "#N/A"])
def test_what_programs_write_for_an_empty_cell_is_no_answer(word):
    said = rows_of(word, 4, 8)
    found = aggregated(*said, images=POOL)
    assert found.classes == ("good", "scratched")
    assert number(0) not in found.verdicts
    (kind,) = found.passed
    assert kind.line == (
        f"4 rows saying {word.casefold()}, which is no answer: labels/a.csv line 2, labels/a.csv"
        " line 3, labels/a.csv line 4, ..."
    )
    if "/" not in word and "<" not in word:
        assert kinds(*said, images=POOL, classes=(word,))[number(0)] == word
        assert kinds(of_folder(word, 0), images=POOL) == {number(0): word}


@pytest.mark.parametrize("word", ["none", "None", "NA", "n/a", "-"])
def test_what_may_be_an_empty_cell_is_asked_about(word):
    message = fault(*rows_of(word, 4, 8), images=POOL)
    assert message == (
        f"labels/a.csv line 2: {word} is said of 4 images: name it in folder.classes if it is a"
        " class, or empty these cells"
    )
    if "/" not in word:
        assert kinds(*rows_of(word, 4, 8), images=POOL, classes=(word,))[number(0)] == word
        offered = [one._replace(is_offered=True) for one in rows_of(word, 4, 8)]
        assert kinds(*offered, images=POOL)[number(0)] == word


@pytest.mark.parametrize("date", ["2-Jan", "01-feb", "Mar-01", "1. Mrz", "02.Jan"])
def test_what_a_spreadsheet_may_have_made_of_a_name_is_asked_about(date):
    said = rows_of(date, 4, 8)
    assert fault(*said, images=POOL) == (
        f"labels/a.csv line 2: {date} is said of 4 images, and may be what a spreadsheet made of a"
        " name such as 1-2: name it in folder.classes if it is a class, or write that name"
    )
    assert kinds(*said, images=POOL, classes=(date,))[number(0)] == date
    assert kinds(of_folder(date, 0), images=POOL) == {number(0): date}
    offered = [one._replace(is_offered=True) for one in said]
    assert kinds(*offered, images=POOL)[number(0)] == date


def test_names_that_are_no_dates_are_not_asked_about():
    for name in ("1-2", "2-January", "jan", "mar1", "3-mars-red", "janet 10"):
        assert kinds(*rows_of(name, 4, 8), images=POOL)[number(0)] == name


# Rows that contradict each other


def test_rows_of_one_file_that_contradict_each_other():
    said = [answer("a.jpg", "cat"), answer("a.jpg", "dog", line=4), answer("owls/x.jpg", line=5)]
    assert fault(*said) == (
        "labels/a.csv says different things of 1 image: a.jpg is cat in line 2 and dog in line 4:"
        " leave one row of each, or say who in a column annotator"
    )
    same_time = [one._replace(updated="2026-01-01T00:00:00Z") for one in said]
    assert "says different things" in fault(*same_time)
    assert "cat in line 2 and bad in line 4" in fault(said[0], said[1]._replace(label="bad"))
    # The same twice, people, times, and a file that corrects all of it.
    assert kinds(said[0], said[1]._replace(label="cat"), said[2])
    people = [one._replace(annotator=f"p{row}") for row, one in enumerate(said)]
    assert kinds(*people)[number(0)] == "conflict"
    assert kinds(said[0], said[1]._replace(updated="2026-01-01"))[number(0)] == "dog"
    assert kinds(*said, answer("a.jpg", "owl", source="labels/b.csv"))[number(0)] == "owl"
