"""The labelling page of a request: one HTML file that needs no network.

It is page.html with its style and scripts within. File names and classes are passed as JSON that
the script shows as text.
"""

import base64
import hashlib
import json
import pathlib
import string
from collections.abc import Sequence
from typing import NamedTuple

from tavaal_jax.labelling.page import assets


class RequestItem(NamedTuple):
    """An image of a request, as people see it."""

    id: str
    file: str
    """Below the folder of images."""
    path: pathlib.Path
    guess: str
    """The model's prediction, where it is to be shown; else empty."""


def request_name(number: int) -> str:
    """Name of a cycle's request in folders and files."""
    return f"cycle_{number:03d}"


def shown_word(words: Sequence[str]) -> str:
    """The longest of several words for an answer, as the clearest one; "" if there are none."""
    return max(words, key=len, default="")


def image_count(count: int) -> str:
    """A number of images in words, as in "1 image"."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def thumbnail_pixels(count: int) -> int:
    """Longer side of each of `count` pictures in pixels, for a page of about 20 MB at most."""
    return 512 if count <= 300 else 256 if count <= 1500 else 128


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def page_html(
    number: int,
    items: Sequence[RequestItem],
    thumbnails: Sequence[bytes],
    classes: Sequence[str],
    *,
    fixed: bool = False,
    unsure: Sequence[str] = ("unsure",),
    bad: Sequence[str] = ("bad image",),
    part_count: int = 1,
    order: Sequence[int] | None = None,
) -> str:
    """The labelling page of a request as HTML.

    `thumbnails` are JPEGs, b"" for a picture that cannot be shown. Unless `fixed`, people may add
    classes. With `part_count` above 1 each annotator may choose one part of the request. `order`
    is a permutation of the items in which similar ones lie together: the page shows them so, and
    saves the answers in the order of `items`.
    """
    if order is not None and sorted(order) != list(range(len(items))):
        raise ValueError(f"order is no permutation of {len(items)} items")
    ids = "\n".join(item.id for item in items)
    request = {
        "name": request_name(number),
        # The browser stores answers by this digest: those of another request must not show here.
        "digest": hashlib.sha256(ids.encode()).hexdigest()[:16],
        "images": [{"id": item.id, "file": item.file, "guess": item.guess} for item in items],
        "classes": list(classes),
        "fixed": fixed,
        "unsure": {"shown": shown_word(unsure), "also": list(unsure)},
        "bad": {"shown": shown_word(bad), "also": list(bad)},
        "parts": part_count,
        "order": None if order is None else [int(place) for place in order],
    }
    pictures = {
        item.id: base64.b64encode(jpeg).decode()
        for item, jpeg in zip(items, thumbnails, strict=True)
        if jpeg
    }
    return string.Template(assets.text("page.html")).substitute(
        title=f"Cycle {number}: {image_count(len(items))} to label",
        style=assets.text("page.css"),
        program=assets.program("static.js"),
        workspace=assets.workspace(),
        # Only the tiles that are seen are in the document, which holds 10,000 as well as 10.
        thumbnails=_json(pictures),
        request=_json(request),
    )


def _json(value: object) -> str:
    """JSON within a script element, which only "<" could end."""
    return json.dumps(value).replace("<", "\\u003c")
