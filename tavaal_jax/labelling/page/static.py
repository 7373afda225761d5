"""The page on which people label a request: one file that needs no network.

Its frame is page.html, with page.css; its program answers.js and page.js. Whatever comes
from files is escaped here, or is JSON that the program shows as text.
"""

import base64
import hashlib
import json
import pathlib
import string
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class RequestItem(NamedTuple):
    """One image of a request, in the order in which it is to be labelled."""

    id: str
    file: str
    """Below the folder of images."""
    path: pathlib.Path
    guess: str
    """The model's, where it is to be shown; else empty."""


def name(number: int) -> str:
    """What a request is called in folders and files."""
    return f"cycle_{number:03d}"


def word(words: Sequence[str]) -> str:
    """The one that people see of several words for an answer: the longest says most."""
    return max(words, key=len, default="")


def images(count: int) -> str:
    """How many, in words."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def side(count: int) -> int:
    """Pixels of the longer side of each of `count` pictures: a page of many stays some 20 MB."""
    return 512 if count <= 300 else 256 if count <= 1500 else 128


def uri(jpeg: bytes) -> str:
    """A JPEG that is its own address."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def html(
    number: int,
    asked: Sequence[RequestItem],
    thumbnails: Sequence[bytes],
    classes: Sequence[str],
    *,
    fixed: bool = False,
    unsure: Sequence[str] = ("unsure",),
    bad: Sequence[str] = ("bad image",),
    parts: int = 1,
) -> str:
    """The page. `thumbnails` are JPEGs, b"" for a picture that cannot be shown.

    Not `fixed`: people may add classes. Of `parts`, everybody may choose one to label.
    """
    ids = "\n".join(one.id for one in asked)
    request = {
        "name": name(number),
        # What is kept of another request, or of another run's, must not come up here.
        "digest": hashlib.sha256(ids.encode()).hexdigest()[:16],
        "images": [{"id": one.id, "file": one.file, "guess": one.guess} for one in asked],
        "classes": list(classes),
        "fixed": fixed,
        "unsure": {"shown": word(unsure), "also": list(unsure)},
        "bad": {"shown": word(bad), "also": list(bad)},
        "parts": parts,
    }
    return string.Template(_part("page.html")).substitute(
        title=f"Cycle {number}: {images(len(asked))} to label",
        style=_part("page.css"),
        program=_part("answers.js") + _part("page.js"),
        tiles="\n".join(map(_tile, range(len(asked)), asked, thumbnails)),
        # Within a script element only "<" could end it.
        request=json.dumps(request).replace("<", "\\u003c"),
    )


def _part(file):
    return pathlib.Path(__file__).with_name(file).read_text("utf-8")


def _tile(place, one, jpeg):
    picture = (
        f'<img alt="" decoding="async" src="{uri(jpeg)}">'
        if jpeg
        else '<span class="none">cannot be shown</span>'
    )
    about = escape(f"Image {place + 1}: {one.file}")
    return (
        f'<li><button type="button" class="tile" aria-label="{about}" title="{escape(one.file)}">'
        f'{picture}<span class="number">{place + 1}</span><span class="answer"></span>'
        "</button></li>"
    )
