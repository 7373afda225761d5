"""Every file format gives the same consensus; a crowd's answers agree with a brute-force model."""

import pathlib
import random
import shutil

import pytest
from label_files import BAD, SAMPLES, TABLES, UNSURE, aggregated, image, kinds, number, put, write

from tavaal_jax.labelling.labels import answers
from tavaal_jax.labelling.labels.consensus import Verdict, aggregate

SHOWN = tuple(image(n, f"img 0{n} ü.png") for n in range(6))


def test_samples(tmp_path):
    expected = {number(0): "red", number(1): "red", number(2): "unsure"}
    for name in ("export.json", "export_min.json", "export.csv"):
        put(tmp_path, f"{name}/{name}", (SAMPLES / name).read_bytes())
        # The same person has given two answers; the newer one is the other's.
        skipped = {number(3): "unsure"} if name == "export.json" else {}
        assert kinds(*answers.read(tmp_path / name).answers, images=SHOWN) == {
            **expected, **skipped, number(4): "blue"
        }  # fmt: skip
    storage = answers.read(SAMPLES / "target_storage").answers
    assert kinds(*storage, images=SHOWN) == {
        number(0): "blue", number(1): "red", number(2): "unsure",
    }  # fmt: skip
    # All of them together: what is newest.
    shutil.copytree(SAMPLES, tmp_path / "all")
    assert kinds(*answers.read(tmp_path / "all").answers, images=SHOWN) == {
        **expected, number(0): "blue", number(3): "unsure", number(4): "blue"
    }  # fmt: skip


def content(index):
    return f"image {index}".encode()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Images with contents, and these by id; some share names, one is a copy."""
    folder = tmp_path_factory.mktemp("contents")
    ids = [answers.content_id(put(folder, f"{n}.png", content(n))) for n in range(7)]
    files = ["a.png", "birds/x.png", "owls/x.png", "birds/y.png", "ü.png", "gone.png", "b.png"]
    images = [image(n, file, id=ids[n]) for n, file in enumerate(files)]
    images[5] = images[5]._replace(status="missing")
    images.append(image(0, "birds/copy.png", f"duplicate_of:{ids[0]}", ids[0]))
    return images, {name: content(n) for n, name in enumerate(ids)}


@pytest.mark.parametrize("form", [*TABLES, "storage", "folders"])
def test_the_same_answers_in_every_form_are_the_same_ledger(pool, tmp_path, form):
    images, contents = pool
    person, when = ("", "") if form == "folders" else ("7", "2026-01-01T00:00:00+00:00")
    said = ["wren", "heron", "unsure", "wren", "bad image"]
    rows = [(i.id, i.file, label, person, when) for i, label in zip(images, said, strict=False)]
    write(tmp_path / "labels", "x", form, rows, contents)
    known = {"classes": ("heron", "wren"), "fixed": True}
    found = aggregated(*answers.read(tmp_path / "labels").answers, images=images, **known)
    assert not found.unmatched
    kinds = ["label", "label", "unsure", "label", "bad"]
    texts = ["wren", "heron", "unsure", "wren", "bad"]
    for i, kind, text in zip(images, kinds, texts, strict=False):
        verdict = found.verdicts[i.id]
        expected = Verdict(
            kind, text if kind == "label" else "", person, verdict.source, ((text, 1),)
        )
        assert verdict == expected
        assert verdict.source.startswith("labels/x")


# A crowd

PEOPLE = ("", "1", "2", "3")
WORDS = ("wren", "heron", "flamingo", "unsure", "bad")
FORMS = (*TABLES, "storage", "folders")


def written_round(rng, folder, name, images, contents, clock):
    """What one or several people hand in: a file of some of the images, in some form."""
    form = rng.choice(FORMS)
    rows = []
    for _ in range(rng.randrange(1, 8)):
        shot = rng.choice(images)
        knows_id = form == "folders" or rng.random() < 0.5
        plain = form == "folders"
        row = (
                shot.id if knows_id else "", shot.file, rng.choice(WORDS),
                "" if plain else rng.choice(PEOPLE),
                "" if plain or rng.random() < 0.3
                else f"2026-01-{clock + rng.randrange(3):02}T00:00:00Z",
        )  # fmt: skip
        # Rows of one file without an order that disagree stop the run.
        meant = lambda row: next(i.file for i in images if (row[0] or row[1]) in i)
        if form in ("folders", "storage") or not any(
            (meant(row), row[3:]) == (meant(old), old[3:]) and row[2] != old[2] for old in rows
        ):
            rows.append(row)
    if form in ("csv", "json_min", "jsonl") and rng.random() < 0.1:
        rows.append(("", rng.choice(["x.png", "none.png"]), "wren", "", ""))
    return write(folder, name, form, rows, contents)


def later(a, b):
    """Whether the second of two answers of one person on one image replaces the first."""
    if a[2][4] and b[2][4] and a[2][4] != b[2][4]:
        return a[2][4] < b[2][4]
    return a[:2] < b[:2]


def brute_force(images, facts):
    """What the answers `(source, line, (id, file, label, person, time))` say, word by word."""
    result, refused = {}, 0
    about = {}
    for fact in facts:
        name, file = fact[2][:2]
        if not name and file in ("x.png", "none.png"):
            refused += 1
            continue
        meant = next(i for i in images if (i.id == name if name else i.file == file))
        # Of two files with the same content each may be given a label of its own.
        which = meant.file if fact[1] else fact[0]
        about.setdefault(meant.id, []).append((fact, which))
    for name, all_said in about.items():
        verdicts = []
        for person in PEOPLE:
            mine = [(fact, which) for fact, which in all_said if fact[2][3] == person]
            if not mine:
                continue
            last = standing([fact for fact, _ in mine])
            place = lambda fact: fact[0] if fact[1] else "folders"
            here = [pair for pair in mine if place(pair[0]) == place(last)]
            each = {standing([f for f, w in here if w == which])[2][2] for _, which in here}
            verdicts += sorted(each)
        ranking = sorted(((verdicts.count(word), word) for word in set(verdicts)), reverse=True)
        tie = len(ranking) > 1 and ranking[0][0] == ranking[1][0]
        result[name] = (
            "conflict" if tie else ranking[0][1],
            {word: count for count, word in ranking},
        )
    return result, refused


def standing(facts):
    """The fact that is left when every replaced one with a time has gone, and comes last."""
    left = [
        fact for fact in facts
        if not (fact[2][4] and any(o[2][4] and later(fact, o) for o in facts))
    ]  # fmt: skip
    return max(left, key=lambda fact: fact[:2])


def test_a_crowd_is_understood_as_by_a_brute_force_model(pool, tmp_path):
    images, contents = pool
    outcomes = set()
    for seed in range(300):
        rng = random.Random(seed)
        folder = tmp_path / str(seed) / "labels"
        folder.mkdir(parents=True)
        live = {}
        for clock in range(1, rng.randrange(2, 6)):
            if live and rng.random() < 0.3:  # Somebody takes everything back, or begins anew.
                gone = rng.choice(sorted(live))
                remove(folder, gone)
                del live[gone]
            for _ in range(rng.randrange(1, 3)):
                name = rng.choice("abcdefgh")
                if name in live:  # Changed: written anew.
                    remove(folder, name)
                live[name] = written_round(rng, folder, name, images, contents, clock)
            facts = [fact for facts in live.values() for fact in facts]
            expected, refused = brute_force(images, facts)
            said = answers.read(folder).answers
            found = aggregate(images, said, classes=WORDS[:3], fixed=True, unsure=UNSURE, bad=BAD)
            got = {
                name: (verdict.label or verdict.kind, dict(verdict.votes))
                for name, verdict in found.verdicts.items()
            }
            assert got == expected, seed
            assert len(found.unmatched) == refused
            assert answers.read(folder).answers == said
            rng.shuffle(said)
            assert (
                aggregate(images, said, classes=WORDS[:3], fixed=True, unsure=UNSURE, bad=BAD)
                == found
            )
            outcomes |= {verdict for verdict, _ in got.values()}
    assert outcomes == {*WORDS, "conflict"}


def remove(folder: pathlib.Path, name: str):
    for path in folder.glob(f"{name}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
