"""A folder of images in people's hands: what stays which image, and what is said of it."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image as Picture

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images import facts, inventory
from tavaal_jax.labelling.images.inventory import Image


def draw(number, size=(8, 6), kind="PNG"):
    """The bytes of a picture of its own."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Picture.fromarray(pixels).save(out, kind)
    return out.getvalue()


class Place:
    """A folder of images, and what is known of it."""

    def __init__(self, root):
        self.folder, self.cache = root / "images", root / "work" / "index.jsonl"
        self.folder.mkdir()
        self.known = ()
        self.said, self.passed = [], []

    def put(self, file, content):
        """Writes a file of the folder."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else draw(content))
        return path

    def scan(self, max_pixels=10**6):
        """Looks, and remembers."""
        found = inventory.scan(self.folder, self.known, self.cache, max_pixels)
        self.said = found.changes(self.known)
        self.passed = [one.line for one in found.passed]
        assert found.folder == self.folder
        old = [image.id for image in self.known]
        assert [image.id for image in found.images[: len(old)]] == old  # An index never changes.
        self.known = found.images
        return found

    def rows(self):
        """File and status of each row."""
        return [(image.file, image.status) for image in self.known]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def identity(content):
    return decode.content_id(io.BytesIO(content))


# What is found


def test_images_are_found_in_all_folders_sorted_by_path(place):
    for number, file in enumerate(("b.png", "a/z.JPG", "a/b/c.Png", "ü ä/ñ.tiff", "a.png")):
        place.put(file, number)
    found = place.scan()
    assert place.rows() == [
        (file, "ok") for file in ("a.png", "a/b/c.Png", "a/z.JPG", "b.png", "ü ä/ñ.tiff")
    ]
    assert found.images[0] == Image(identity(draw(4)), "a.png", "ok", 8, 6, "RGB")
    assert found.ids == {image.id: index for index, image in enumerate(found.images)}
    assert found.readable[3] == (identity(draw(0)), str(place.folder / "b.png"))
    assert place.said == ["5 images found: a.png, a/b/c.Png, a/z.JPG, ..."]


def test_nothing_new_is_nothing_said(place):
    place.put("a.png", 1)
    place.put("b.png", b"broken")
    place.scan()
    assert len(place.said) == 2
    first = place.known
    place.scan()
    assert place.known == first
    assert place.said == []


def test_what_is_no_image_or_hidden_is_not_seen(place):
    place.put("a.png", 1)
    for file in (
        "notes.txt", "Thumbs.db", ".DS_Store", ".hidden.png", "._a.png", "__MACOSX/a.png", "png",
        ".cache/a.png", "a.png.part", "@eaDir/a.png",
    ):  # fmt: skip
        place.put(file, 2)
    place.put("LICENSE", b"text")
    place.put(".photo.jpg.icloud", b"bplist00")
    place.put("scan.dcm", bytes(128) + b"DICM")
    place.put("photo", 3)  # It is a picture all the same.
    place.put("photo.jpg?width=640", draw(4, kind="JPEG"))
    os.mkfifo(place.folder / "pipe.png")
    for _ in range(2):  # The second look reads nothing, and says the same.
        place.scan()
        assert place.rows() == [
            ("a.png", "ok"), ("photo", "ok"), ("photo.jpg?width=640", "ok"), ("png", "ok"),
        ]  # fmt: skip
        assert place.passed == [
            "7 entries hidden or of other programs: .DS_Store, ._a.png, .cache, ...",
            "1 entry neither file nor folder (pipes, devices): pipe.png",
            "1 file with other endings (.txt 1): notes.txt",
            "1 file without an ending and no picture inside: LICENSE",
            "1 image in iCloud only: download them: .photo.jpg.icloud",
            "1 leftover of images (backups, unfinished downloads): a.png.part",
            "1 picture in formats not read (.dcm 1): convert them to PNG: scan.dcm",
        ]


def test_nothing_is_written_into_the_folder(place):
    place.put("a/a.png", 1)
    place.put("b.png", b"broken")
    state = lambda: [(str(p), p.stat().st_mtime_ns) for p in sorted(place.folder.rglob("*"))]
    before = state()
    place.scan()
    place.scan()
    assert state() == before


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>.png", "a\nb.png", 'a"b,c;d.png', "=cmd|' C'!A0.png",
     "日本 🦉.png", "a\\b.png", "\x1b[31mred.png", "%00.png", " .png", "-rf.png"],
)  # fmt: skip
def test_any_name_is_only_a_name(place, name):
    place.put(name, 1)
    assert place.scan().readable == [(identity(draw(1)), str(place.folder / name))]
    assert place.rows() == [(name, "ok")]
    assert all(line.isprintable() for line in place.said)


def test_a_name_that_is_no_utf_8_is_listed_escaped(place):
    place.put("a.png", 1)
    try:
        path = os.fsencode(place.folder) + b"/d\xff"
        os.mkdir(path)
        with open(path + b"/\xe9.png", "wb") as file:
            file.write(draw(2))
    except OSError:
        pytest.skip("this file system takes no such names")
    found = place.scan()
    assert place.rows() == [("a.png", "ok"), (r"d\xff/\xe9.png", "unsupported")]
    assert found.images[1].id == ""
    assert place.said[1] == (
        r"1 file that cannot be used (its name is no UTF-8: rename it): d\xff/\xe9.png"
    )
    "".join(image.file for image in found.images).encode()
    place.scan()
    assert place.said == []
    os.rename(path + b"/\xe9.png", os.fsencode(place.folder / "e.png"))
    place.scan()
    assert place.rows() == [
        ("a.png", "ok"), (r"d\xff/\xe9.png", "missing"), ("e.png", "ok"),
    ]  # fmt: skip


def test_a_name_that_is_no_utf_8_hides_no_other(place):
    place.put(r"\xe9.png", 1)
    try:
        with open(os.fsencode(place.folder) + b"/\xe9.png", "wb") as file:
            file.write(draw(2))
    except OSError:
        pytest.skip("this file system takes no such names")
    place.scan()
    assert place.rows() == [(r"\\xe9.png", "unsupported"), (r"\xe9.png", "ok")]


def test_sides_are_those_after_the_turn(place):
    exif = Picture.Exif()
    exif[0x112] = 6
    Picture.new("L", (8, 6)).save(place.folder / "a.jpg", exif=exif)
    found = place.scan().images[0]
    assert (found.width, found.height, found.mode) == (6, 8, "L")


# What cannot be used


def test_each_that_cannot_be_used_is_listed_with_its_reason(place):
    place.put("a.png", 1)
    place.put("b.png", b"")
    place.put("c.png", b"text")
    place.put("d.heic", b"\0\0\0\x18ftypheic" + bytes(9))
    place.put("e.jpg", b"\0\0\0\x18ftypmif1" + bytes(9))  # As some telephones name it.
    place.put("f.png", draw(2, (99, 99)))
    place.put("g.NEF", draw(3, kind="TIFF"))  # Its small picture in front is not the photograph.
    place.put("h.psd", b"8BPS")
    place.put("i.heif", draw(4, kind="JPEG"))
    found = place.scan(max_pixels=9000)
    assert place.rows() == [
        ("a.png", "ok"), ("b.png", "corrupt"), ("c.png", "corrupt"), ("d.heic", "unsupported"),
        ("e.jpg", "unsupported"), ("f.png", "too_large"), ("g.NEF", "unsupported"),
        ("h.psd", "unsupported"), ("i.heif", "ok"),
    ]  # fmt: skip
    assert found.reasons == {
        "b.png": "empty",
        "c.png": "no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM",
        "d.heic": "HEIC: convert to JPEG",
        "e.jpg": "HEIC: convert to JPEG",
        "f.png": "99x99 pixels, more than max_pixels (9000)",
        "g.NEF": "a raw photograph: convert to JPEG",
        "h.psd": "PSD: convert to JPEG",
    }
    assert all(image.id for image in found.images)
    assert [name for name, _ in found.readable] == [found.images[0].id, found.images[8].id]
    assert place.said[1:] == [
        "2 files that cannot be used (HEIC: convert to JPEG): d.heic, e.jpg",
        "1 file that cannot be used (PSD: convert to JPEG): h.psd",
        "1 file that cannot be used (a raw photograph: convert to JPEG): g.NEF",
        "1 file that cannot be used (empty): b.png",
        "1 file that cannot be used (more than max_pixels (9000)): f.png",
        "1 file that cannot be used (no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM): c.png",
    ]
    # A limit may change, and so does what is known of it.
    place.scan(max_pixels=10**6)
    assert ("f.png", "ok") in place.rows()


def test_links_out_of_the_folder_are_not_followed(place, tmp_path):
    (tmp_path / "images2").mkdir()  # Its path begins as the folder's does.
    (tmp_path / "images2" / "secret.png").write_bytes(draw(1))
    place.put("a/real.png", 2)
    (place.folder / "out.png").symlink_to(tmp_path / "images2" / "secret.png")
    (place.folder / "out").symlink_to(tmp_path / "images2")
    (place.folder / "up.png").symlink_to("../images2/secret.png")
    (place.folder / "in.png").symlink_to("a/real.png")
    (place.folder / "a" / "circle").symlink_to("..")
    (place.folder / "again").symlink_to("a")
    (place.folder / "dangling.png").symlink_to("nowhere.png")
    (place.folder / "itself.png").symlink_to("itself.png")
    found = place.scan()
    assert place.rows() == [
        ("a/real.png", "ok"), ("in.png", f"duplicate_of:{found.images[0].id}"),
    ]  # fmt: skip
    assert place.passed == [
        "2 links leading nowhere: dangling.png, itself.png",
        "3 links out of the folder, not followed (but with follow_links): out, out.png, up.png",
        "2 links to folders searched anyway: a/circle, again",
    ]


def test_links_out_of_the_folder_may_be_followed(place, tmp_path):
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "a.png").write_bytes(draw(1))
    (outside / "back").symlink_to(place.folder)
    (outside / "sub" / "circle").symlink_to(outside)
    place.put("b.png", 2)
    (place.folder / "one").symlink_to(outside)
    (place.folder / "two").symlink_to(outside)
    (place.folder / "c.png").symlink_to(outside / "sub" / "a.png")
    found = inventory.scan(place.folder, (), place.cache, 10**6, follow_links=True)
    copy = f"duplicate_of:{found.images[1].id}"
    assert [(image.file, image.status) for image in found.images] == [
        ("b.png", "ok"), ("c.png", "ok"), ("one/sub/a.png", copy),
    ]  # fmt: skip
    assert [one.line for one in found.passed] == [
        "3 links to folders searched anyway: one/back, one/sub/circle, two"
    ]


def test_the_folder_itself_may_be_a_link(place, tmp_path):
    place.put("a.png", 1)
    (tmp_path / "link").symlink_to(place.folder)
    found = inventory.scan(str(tmp_path / "link"), (), place.cache, 10**6)
    assert found.readable == [(identity(draw(1)), str(tmp_path / "link" / "a.png"))]


def test_what_is_no_file_is_never_opened(place):
    place.put("a.png", 1)
    os.mkfifo(place.folder / "b.png")  # Opening it would wait for ever.
    (place.folder / "c.png").mkdir()
    place.put("c.png/d.png", 2)
    place.scan()
    assert place.rows() == [("a.png", "ok"), ("c.png/d.png", "ok")]


# What changes


def test_added_images_come_last(place):
    place.put("m.png", 1)
    place.scan()
    place.put("z.png", 2)
    place.put("a.png", 3)
    place.scan()
    assert place.rows() == [("m.png", "ok"), ("a.png", "ok"), ("z.png", "ok")]
    assert place.said == ["2 images added: a.png, z.png"]


def test_a_renamed_or_moved_image_is_the_same(place):
    place.put("a.png", 1)
    place.put("b.png", 2)
    place.scan()
    (place.folder / "sub").mkdir()
    (place.folder / "a.png").rename(place.folder / "sub" / "x.png")
    place.scan()
    assert place.rows() == [("sub/x.png", "ok"), ("b.png", "ok")]
    assert place.said == ["1 image renamed or moved: a.png -> sub/x.png"]


def test_two_that_change_names_stay_what_they_are(place):
    # Of one size and one time, as from an archive.
    for number, file in enumerate(("a.bmp", "b.bmp")):
        os.utime(place.put(file, draw(number, kind="BMP")), ns=(10**18, 10**18))
    place.scan()
    first, second = (image.id for image in place.known)
    (place.folder / "a.bmp").rename(place.folder / "c")
    (place.folder / "b.bmp").rename(place.folder / "a.bmp")
    (place.folder / "c").rename(place.folder / "b.bmp")
    place.scan()
    assert [(i.id, i.file) for i in place.known] == [(first, "b.bmp"), (second, "a.bmp")]


def test_a_deleted_image_is_missing_and_may_come_back(place):
    path = place.put("a.png", 1)
    place.put("b.png", 2)
    place.scan()
    path.unlink()
    found = place.scan()
    assert place.rows() == [("a.png", "missing"), ("b.png", "ok")]
    assert (found.images[0].width, found.images[0].mode) == (8, "RGB")
    assert place.said == ["1 image gone; labels are kept: a.png"]
    place.scan()
    assert place.said == []
    place.put("elsewhere.png", 1)
    place.scan()
    assert place.rows() == [("elsewhere.png", "ok"), ("b.png", "ok")]
    assert place.said == ["1 image back: elsewhere.png"]


def test_replaced_content_is_another_image(place):
    path = place.put("a.png", 1)
    place.put("b.png", 2)
    place.scan()
    path.write_bytes(draw(3))
    found = place.scan()
    assert place.rows() == [("a.png", "missing"), ("b.png", "ok"), ("a.png", "ok")]
    assert found.images[2].id == identity(draw(3))
    assert place.said == ["1 image with other content: new, without label: a.png"]
    place.scan()
    assert place.said == []
    # The old content comes back, and is known again.
    path.write_bytes(draw(1))
    place.scan()
    assert place.rows() == [("a.png", "ok"), ("b.png", "ok"), ("a.png", "missing")]
    assert place.said == ["1 image back: a.png"]
    # A copy of another image takes its place.
    path.write_bytes(draw(2))
    found = place.scan()
    copy = f"duplicate_of:{found.images[1].id}"
    assert place.rows() == [
        ("a.png", "missing"), ("b.png", "ok"), ("a.png", "missing"), ("a.png", copy),
    ]  # fmt: skip
    assert place.said == ["1 copy of them, left out: a.png"]


def test_the_same_bytes_are_one_image(place):
    for file in ("b.png", "a.png", "c/a.png"):
        place.put(file, 1)
    found = place.scan()
    name = identity(draw(1))
    copy = f"duplicate_of:{name}"
    assert place.rows() == [("a.png", "ok"), ("b.png", copy), ("c/a.png", copy)]
    assert {image.id for image in found.images} == {name}
    assert found.ids == {name: 0}
    assert found.readable == [(name, str(place.folder / "a.png"))]
    assert place.said[1] == "2 copies of them, left out: b.png, c/a.png"


def test_a_copy_that_sorts_first_does_not_take_the_place(place):
    place.put("b.png", 1)
    place.scan()
    place.put("a.png", 1)
    found = place.scan()
    assert place.rows() == [("b.png", "ok"), ("a.png", f"duplicate_of:{found.images[0].id}")]


def test_a_copy_stands_in_for_an_image_that_is_gone(place):
    path = place.put("a.png", 1)
    place.put("b.png", 1)
    place.scan()
    path.unlink()
    place.scan()
    assert place.rows() == [("b.png", "ok"), ("b.png", "missing")]
    assert place.said == ["1 image renamed or moved: a.png -> b.png"]
    place.put("a.png", 1)
    found = place.scan()
    assert place.rows() == [("b.png", "ok"), ("a.png", f"duplicate_of:{found.images[0].id}")]


def test_copies_may_be_renamed_all_at_once(place):
    place.put("a.png", 1)
    place.put("b.png", 1)
    place.scan()
    (place.folder / "a.png").rename(place.folder / "x.png")
    (place.folder / "b.png").rename(place.folder / "y.png")
    place.scan()
    assert [image.file for image in place.known] == ["x.png", "y.png"]


def test_broken_copies_and_empty_files_are_one_as_well(place):
    place.put("a.png", 1)
    place.put("b.png", b"")
    place.put("c.jpg", b"")
    found = place.scan()
    assert [i.status for i in found.images[1:]] == ["corrupt", f"duplicate_of:{found.images[1].id}"]


def test_any_history_leaves_every_index_where_it_was(place):
    random = np.random.default_rng(0)
    files = [f"{folder}{name}.png" for folder in ("", "s/") for name in "abcd"]
    place.put("keep.png", 99)
    for _ in range(60):
        for file in random.choice(files, 3):
            if random.random() < 0.4:
                (place.folder / file).unlink(missing_ok=True)
            else:
                place.put(file, int(random.integers(5)))
        found = place.scan()  # Asserts that ids stay.
        there = {f: identity(p.read_bytes()) for f in files if (p := place.folder / f).exists()}
        there["keep.png"] = identity(draw(99))
        shown = [image for image in found.images if image.status != "missing"]
        assert {image.file: image.id for image in shown} == there
        assert len(shown) == len(there)
        firsts = [image for image in found.images if image.status == "ok"]
        assert sorted(image.id for image in firsts) == sorted(set(there.values()))
        for image in firsts:
            assert found.images[found.ids[image.id]] is image


# What happens between the look and the decoding


def test_what_decoding_finds_is_put_into_the_rows(place):
    for number, file in enumerate(("a.png", "b.png", "c.png", "d.png")):
        place.put(file, number)
    place.put("e.png", 0)
    found = place.scan()
    first, second, third = (image.id for image in found.images[:3])
    faults = {first: "cut short", second: decode.GONE, third: decode.CHANGED, "iunknown": "?"}
    before = place.known
    found = place.scan().with_faults(faults)
    assert found.changes(before) == [
        "1 file that cannot be used (cut short): a.png",
        "1 file that cannot be used (it has changed since it was listed): c.png",
        "1 file that cannot be used (it is no longer there): b.png",
    ]
    assert place.scan().with_faults(faults) == found
    assert found.changes(found.images) == []
    assert [image.status for image in found.images] == [
        "corrupt", "missing", "missing", "ok", f"duplicate_of:{first}",
    ]  # fmt: skip
    assert found.reasons == {"a.png": "cut short", "b.png": decode.GONE, "c.png": decode.CHANGED}
    with pytest.raises(UserError, match=r"none of the \d images in .* can be read"):
        found.with_faults({found.images[3].id: "cut short"})


def test_a_file_that_vanishes_while_it_is_listed(place, monkeypatch):
    place.put("a.png", 1)
    place.put("b.png", 2)
    read_head = inventory.read_head

    def vanish(path):
        (place.folder / "a.png").unlink(missing_ok=True)
        return read_head(path)

    monkeypatch.setattr(inventory, "read_head", vanish)
    place.scan()
    assert place.rows() == [("b.png", "ok")]


def test_a_file_that_is_being_written_waits_for_the_next_look(place, monkeypatch):
    place.put("a.png", 1)
    path = place.put("b.png", 2)
    header = decode.header

    def write(file):
        if file.name == str(path):
            path.write_bytes(path.read_bytes() + b"more")
        return header(file)

    monkeypatch.setattr(decode, "header", write)
    place.scan()
    assert place.rows() == [("a.png", "ok")]
    assert place.passed == ["1 file still being written: b.png"]
    monkeypatch.undo()
    place.scan()
    assert place.rows() == [("a.png", "ok"), ("b.png", "ok")]


def test_a_file_that_may_not_be_read_has_no_id(place, monkeypatch):
    place.put("a.png", 1)
    path = place.put("b.png", 2)
    refuse = lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    monkeypatch.setattr(
        facts, "open", lambda name, *a: (refuse if name == str(path) else open)(name, *a),
        raising=False,
    )  # fmt: skip
    found = place.scan()
    assert found.images[1] == Image("", "b.png", "corrupt", 0, 0, "")
    assert found.reasons == {"b.png": "Permission denied"}
    assert place.said[1] == "1 file that cannot be used (Permission denied): b.png"
    place.scan()
    assert place.said == []
    monkeypatch.undo()
    place.scan()
    assert place.rows() == [("a.png", "ok"), ("b.png", "missing"), ("b.png", "ok")]


def test_progress_counts_files(place):
    for number in range(3):
        place.put(f"{number}.png", number)
    told = []
    inventory.scan(
        place.folder, (), place.cache, 10**6, lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


# Nothing to work with


def refused(place, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        inventory.scan(place.folder, place.known, place.cache, 10**6, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(place):
    place.folder.rmdir()
    refused(place, r"in .*images \(it does not exist\): see to --config\.folder\.images")
    place.folder.write_text("a file")
    refused(
        place, r"\(it is no folder\): see to --config\.folder\.test", key="--config.folder.test"
    )
    with pytest.raises(UserError, match=r"give --config\.folder\.images"):
        inventory.scan("", (), place.cache, 10**6)


def test_a_folder_that_may_not_be_read(place, monkeypatch):
    place.put("a.png", 1)
    place.put("shut/b.png", 2)
    scandir = os.scandir

    def shut(path):
        if os.fsdecode(path).rstrip("/") in barred:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", shut)
    barred = {str(place.folder)}
    refused(place, r"cannot read the images in .*images \(Permission denied\): see to")
    barred = {str(place.folder / "shut")}
    place.scan()
    assert place.rows() == [("a.png", "ok")]
    assert place.passed == ["1 folder unreadable (Permission denied): shut"]


def test_a_folder_without_images(place, tmp_path):
    refused(place, r"holds no images \(\.jpg \.jpeg .*\): see to")
    place.put("notes.txt", b"text")
    (tmp_path / "x").mkdir()
    (place.folder / "out").symlink_to(tmp_path / "x")
    refused(place, r"holds no images .*; 1 link out of the folder, not followed .*: out: see to")


def test_a_folder_of_which_no_image_can_be_read(place):
    place.put("a.heic", b"\0\0\0\x18ftypheic")
    place.put("b.png", b"text")
    refused(place, r"none of the 2 images in .* can be read \(a\.heic: HEIC: convert to JPEG\)")


def test_a_disk_that_is_not_there(place):
    place.put("a.png", 1)
    place.put("b.png", 2)
    place.scan()
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    refused(place, r"none of the 2 known images is left in .*: see whether its disk is there")
