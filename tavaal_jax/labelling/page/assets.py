"""Files of the labelling pages: scripts and styles that the static page and the live one share."""

import pathlib
import string

_SHARED = ("names.js", "state.js", "grid.js", "pad.js", "page.js")
_LIVE = ("outbox.js", "status.js", "suggestions.js", "doubts.js", "map.js", "live.js")
_STYLES = ("page.css", "live.css")


def text(name: str) -> str:
    """Text of one of the page's files."""
    return pathlib.Path(__file__).with_name(name).read_text("utf-8")


def program(own: str) -> str:
    """The shared scripts and a page's own one as a single script."""
    return "".join(map(text, (*_SHARED, own)))


def workspace(beside: str = "", views: str = "") -> str:
    """HTML of what both pages have, with what one has beside the image and as further views."""
    return string.Template(text("workspace.html")).substitute(beside=beside, views=views)


def live_html() -> str:
    """The live page, whose scripts and styles come from /static/NAME."""
    return string.Template(text("live.html")).substitute(
        styles="\n".join(f'<link rel="stylesheet" href="/static/{name}">' for name in _STYLES),
        workspace=workspace(text("live_beside.html"), text("live_views.html")),
        scripts="\n".join(f'<script src="/static/{name}"></script>' for name in _SHARED + _LIVE),
    )


def live_files() -> dict[str, tuple[str, bytes]]:
    """Media type and content of each file that the live page asks for, by name."""
    media = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    return {
        name: (f"{media[name.rsplit('.', 1)[1]]}; charset=utf-8", text(name).encode())
        for name in ("icon.svg", *_STYLES, *_SHARED, *_LIVE)
    }
