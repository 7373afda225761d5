"""Files of the labelling pages: scripts and styles that the static page and the live one share."""

import pathlib

SHARED = ("names.js", "state.js", "grid.js", "pad.js", "page.js")
"""Scripts of both pages, in the order in which they are loaded."""


def text(name: str) -> str:
    """Text of one of the page's files."""
    return pathlib.Path(__file__).with_name(name).read_text("utf-8")


def program(own: str) -> str:
    """The shared scripts and a page's own one as a single script."""
    return "".join(map(text, (*SHARED, own)))
