"""Which image a row means."""

import pytest
from label_files import aggregated, answer, image, kinds, number


@pytest.mark.parametrize(
    ("row", "index"),
    [
        ({"id": number(1)}, 1),
        ({"id": number(1), "name": "owls/x.jpg"}, 1),
        ({"id": number(5)}, 5),
        ({"name": "a.jpg"}, 0),
        ({"id": "a.jpg"}, 0),
        ({"id": "17", "name": "a.jpg"}, 0),
        ({"name": "./birds//x.jpg"}, 1),
        ({"name": "owls\\x.jpg"}, 2),
        ({"name": "owls/x"}, 2),
        ({"name": "C:\\Users\\Ann\\zoo\\birds\\x.jpg"}, 1),
        ({"name": "/home/ann/zoo/owls/x.jpg"}, 2),
        ({"name": "elsewhere/y.v2.png"}, 3),
        ({"name": "y.v2"}, 3),
        ({"name": "y.v2.tif"}, 3),
        ({"id": "a"}, 0),
        ({"name": "A/a.PNG"}, 0),
        ({"name": "birds/copy of a.jpg"}, 0),
        ({"name": "copy of a"}, 0),
        ({"name": "gone.jpg"}, 5),
        ({"name": "new.jpg"}, 8),
        ({"name": "else/new"}, 8),
        ({"id": number(7), "name": "new.jpg"}, 7),
        ({"name": "caf\u00e9/z.jpg"}, 9),
        ({"name": "../../etc/a"}, 0),
    ],
)
def test_image_of_a_row(row, index):
    assert kinds(answer(**row)) == {number(index): "cat"}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"name": "x.jpg"}, "x.jpg is in birds/x.jpg and owls/x.jpg: give the id"),
        ({"id": "x"}, "x is in birds/x.jpg and owls/x.jpg: give the id"),
        ({"name": "else/x.png"}, "else/x.png is in birds/x.jpg and owls/x.jpg: give the id"),
        ({"name": "b.jpg"}, "b.jpg is none of the images: mend its name, or delete the row"),
        ({"name": "../../etc/passwd"}, "../../etc/passwd is none of the images"),
        ({"name": "/"}, "/ is none of the images"),
        ({"name": "b\n\x1b[31m.jpg"}, "b\\n\\x1b[31m.jpg is none of the images"),
        ({"name": "\ud800"}, "\\ud800 is none of the images"),
        ({"name": "x/" * 5000 + "a.jpg"}, "x/..."),
        ({"id": number(77)}, f"it is none of the images by its id {number(77)}"),
        ({"id": number(77), "name": "a.jpg"}, "a.jpg is none of the images by its id"),
    ],
)
def test_rows_that_fit_no_image_or_several_are_refused(row, says):
    found = aggregated(answer(**row), answer("a.jpg", line=3))
    assert found.verdicts.keys() == {number(0)}
    (refused,) = found.unmatched
    assert refused.startswith("labels/a.csv line 2: ")
    assert says in refused
    assert refused.isprintable()


def test_an_image_in_a_class_folder_is_known_by_its_content():
    found = aggregated(answer("cat/a.jpg", id=number(77), line=0, source="labels/cat/a.jpg"))
    assert found.unmatched == (
        "labels/cat/a.jpg: none of the images has its content: take it away",
    )  # fmt: skip


def test_many_images_of_one_name():
    images = [image(n, f"{n}/image.jpg") for n in range(9)]
    found = aggregated(answer("image.jpg"), images=images)
    assert "image.jpg is in 0/image.jpg, 1/image.jpg, 2/image.jpg and others: give" in (
        found.unmatched[0]
    )  # fmt: skip
    assert kinds(answer("z/7/image.jpg"), images=images) == {number(7): "cat"}


def test_of_an_image_that_cannot_be_read_nothing_is_known():
    assert kinds(answer("torn.jpg", "bad")) == {}
    assert kinds(answer("torn", "cat")) == {}


def test_a_row_whose_id_and_file_disagree_is_told_of():
    two = answer("owls/x.jpg", id=number(1)), answer("else/a.jpg", id=number(2), line=3)
    fitting = (
        answer("birds/x.jpg", id=number(1), line=4),
        answer("renamed.jpg", id=number(3), line=5),
        answer("x.jpg", id=number(2), line=6, annotator="ann"),  # Of either folder.
        answer("copy of a.jpg", id=number(0), line=7),
        answer("gone.jpg", id=number(9), line=8),
    )
    assert aggregated(*fitting).notes == ()
    found = aggregated(*two, *fitting)
    assert found.notes == (
        "2 rows name one image by id and another by file, and the id counts: labels/a.csv line 2,"
        " labels/a.csv line 3",
    )
    assert found.verdicts[number(1)].label == "cat"
    (line,) = aggregated(two[0]).notes
    assert line.startswith("1 row names one image by id")


# Names that fold to one

NFC, NFD = "caf\u00e9.png", "cafe\u0301.png"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NFC, NFD),
        (" a.png", "a.png"),
        ("a/b.png", "a\\b.png"),
        ("x/a/b.png", "x/a\\b.png"),
        ("./a.png", "a.png"),
    ],
)
def test_the_exact_name_wins(one, other):
    for files in ((one, other), (other, one)):
        images = [image(row, file) for row, file in enumerate(files)]
        for row, file in enumerate(files):
            assert kinds(answer(file), images=images) == {number(row): "cat"}
        # With one of them alone the other one's name fits it.
        assert kinds(answer(files[0]), images=images[1:]) == {number(1): "cat"}


def test_of_folded_names_that_fit_several_the_id_is_asked_for():
    images = [image(0, f"a/{NFC}"), image(1, f"a/{NFD}"), image(2, "b\\c.png"), image(3, "b/c.png")]
    unmatched = aggregated(answer(NFC), answer(f"z/a/{NFD}", line=3), images=images).unmatched
    told = "is in 'a/caf\\xe9.png' and 'a/cafe\\u0301.png': give the id"
    assert unmatched == (
        f"labels/a.csv line 2: {NFC} {told}",
        f"labels/a.csv line 3: z/a/{NFD} {told}",
    )
    (slashes,) = aggregated(answer("./b/c.png"), images=images).unmatched
    assert slashes.endswith("./b/c.png is in 'b\\\\c.png' and 'b/c.png': give the id")
    # Copies are one image, and what is gone does not count.
    same = [images[0], images[1]._replace(id=number(0), status=f"duplicate_of:{number(0)}")]
    assert kinds(answer(NFC), images=same) == {number(0): "cat"}
    gone = [images[0]._replace(status="missing"), images[1]]
    assert kinds(answer(NFC), images=gone) == {number(1): "cat"}


@pytest.mark.parametrize(
    ("file", "url"),
    [
        ("a#1.png", "s3://b/a#1.png"), ("50%25.png", "s3://b/50%25.png"),
        ("50%.png", "s3://b/50%25.png"), ("my photo.png", "my%20photo.png"),
        ("my%20photo.png", "my%20photo.png"), ("p3.png", "https://x.y/p3.png?width=640"),
        ("p3.png?width=640", "https://x.y/p3.png?width=640"), ("birds/x.png", "file:///h/birds/x.png"),
        ("birds/\u00fc.png", "file:///home/ann/birds/%C3%BC.png"),
    ],
)  # fmt: skip
def test_an_address_is_tried_as_it_is_written_first(file, url):
    images = [image(0, "other.png"), image(1, file)]
    assert kinds(answer(url), images=images) == {number(1): "cat"}


def test_between_the_exact_and_the_unquoted_name_the_exact_one_wins():
    images = [image(0, "50%.png"), image(1, "50%25.png"), image(2, "a.png"), image(3, "a.png?b")]
    assert kinds(answer("s3://b/50%25.png"), images=images) == {number(1): "cat"}
    assert kinds(answer("s3://b/a.png?b"), images=images) == {number(3): "cat"}
