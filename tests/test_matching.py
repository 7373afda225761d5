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
