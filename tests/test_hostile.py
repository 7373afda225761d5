"""What people, or others, may put into a workdir: one line each, and nothing else is touched."""

import io
import json
import os
import pathlib
import struct
import zlib

import people
import pytest
from PIL import Image

from tavaal_jax.errors import UserError
from tavaal_jax.report import files


@pytest.fixture
def waiting(tmp_path):
    """A run that waits for answers: workdir, folder of photos, config."""
    photos, work = tmp_path / "a" / "photos", tmp_path / "a" / "work"
    people.folder(photos)
    config = people.config(photos, tmp_path)
    people.run(config, work)
    return work, photos, config


def outside(folder):
    """All that lies in a folder but what a start writes anew: contents and kinds."""
    kept = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.is_symlink():
            kept[str(path)] = os.readlink(path)
        elif path.is_file() and path.name not in {".lock", ".scanned", "status.json"}:
            kept[str(path)] = path.read_bytes() if path.stat().st_size < 10**7 else None
    return kept


def row(text):
    return lambda labels: (labels / "a.csv").write_text(f"file,label\n{text}\n")


def raw(name, content):
    return lambda labels: (labels / name).write_bytes(content)


def linked(labels):
    (labels / "linked").symlink_to("/etc")


def sparse(labels):
    with (labels / "large.csv").open("wb") as file:
        file.truncate(101 * 2**20)


def task(**data):
    return {"data": data, "annotations": [{"result": [], "was_cancelled": True}]}


LABELS = {
    "a path out of the folder": (row("../../../etc/passwd,cat"), "etc/passwd"),
    "an absolute path": (row("/etc/passwd,cat"), "passwd"),
    "an unknown image": (row("nobody.png,cat"), "nobody.png"),
    "an unknown id": (raw("a.csv", b"id,label\ni0123456789abcdef,cat\n"), "i01"),
    "a class that is a path": (row("photo_000.png,../cat"), "cat"),
    "a class that is markup": (row("photo_000.png,<script>"), "script"),
    "a class that is too long": (row(f"photo_000.png,{'x' * 101}"), "100"),
    "two classes one edit apart": (
        lambda x: (x / "a.csv").write_text(
            "file,label\nphoto_000.png,badger\nphoto_002.png,badger\nphoto_001.png,bagder\n"
        ), "bagder",
    ),
    "NUL": (raw("a.csv", b"file,label\nphoto_000.png,c\0at\n"), "a.csv"),
    "no UTF-8": (raw("a.csv", b"file,label\nphoto_000.png,caf\xe9\n"), "a.csv"),
    "UTF-16": (raw("a.csv", "file,label\nphoto_000.png,cat\n".encode("utf-16")), "UTF-16"),
    "no header": (raw("a.csv", b"photo_000.png,cat\n"), "a.csv"),
    "JSON that ends too early": (raw("a.json", b'[{"data": {'), "a.json"),
    "JSON as deep as nothing": (raw("a.json", b"[" * 100_000 + b"]" * 100_000), "a.json"),
    "JSON of something else": (raw("a.json", b'{"hello": 1}'), "a.json"),
    "a task of another project": (
        raw("a.json", json.dumps([task(image="/data/local-files/?d=../../etc/passwd")]).encode()),
        "passwd",
    ),
    "a file of 101 MiB": (sparse, "100"),
    "a link out of the folder": (linked, "linked"),
    "a picture that is no label": (raw("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(64)), "a.csv"),
}  # fmt: skip


@pytest.mark.parametrize("what", LABELS)
def test_label_files(what, waiting, tmp_path):
    work, _, config = waiting
    put, says = LABELS[what]
    put(work / "labels")
    before = outside(tmp_path / "a")
    with pytest.raises(UserError) as error:
        people.run(config, work)
    assert "\n" not in str(error.value)
    assert says in str(error.value)
    assert outside(tmp_path / "a") == before
    for path in (work / "labels").iterdir():
        path.unlink()
    line, _ = people.run(config, work)  # Nothing is lost.
    assert line.startswith("cycle 0: 16 images to label (0 answered)")


def bomb(path):
    """A PNG whose header says 60000 x 60000 pixels."""
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64)))
    )


IMAGES = {
    "bomb.png": (bomb, "too_large"),
    "text.jpg": (lambda path: path.write_text("hello"), "corrupt"),
    "empty.png": (lambda path: path.touch(), "corrupt"),
    "cut.png": (lambda path: path.write_bytes(_png()[:70]), "corrupt"),
    "script.eps.png": (
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "corrupt"
    ),
    "a.heic": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(32)), "unsupported"),
}  # fmt: skip


def _png():
    out = io.BytesIO()
    Image.fromarray(people.picture(999, 0)).save(out, "PNG")
    return out.getvalue()


def test_images(tmp_path):
    photos, work = tmp_path / "photos", tmp_path / "work"
    people.folder(photos)
    for name, (make, _) in IMAGES.items():
        make(photos / name)
    (photos / "away.png").symlink_to("/etc/hostname")
    strange = "<img src=x onerror=alert(1)>.png", "=cmd|calc.png", "line\r\nend.png", "'quote\".png"
    for number, name in enumerate(strange):
        Image.fromarray(people.picture(2000 + number, 0)).save(photos / name)
    before = outside(photos)
    line, said = people.run(people.config(photos, tmp_path), work)
    assert line.startswith("cycle 0: 16 images to label")
    rows = {r["file"]: r for r in files.read_csv(work / "images.csv")}
    found = {name: rows[name]["status"] for name in IMAGES}
    assert found == {name: status for name, (_, status) in IMAGES.items()}
    assert "away.png" not in rows or rows["away.png"]["status"] != "ok"
    assert "'=cmd|calc.png" in rows
    assert len([row for row in rows.values() if row["status"] == "ok"]) == 64
    assert any("bomb.png" in text or "too large" in text for text in said)
    assert outside(photos) == before
    # Read back, and the same again.
    assert people.run(people.config(photos, tmp_path), work)[0] == line
