"""Which image a row of a file of labels is about. Rows only match: no path of theirs is opened."""

import functools
import re
import unicodedata
from collections.abc import Sequence

from tavaal_jax.labelling.images.inventory import EXTENSIONS, Image
from tavaal_jax.labelling.labels.rows import Answer, shown

_ID = re.compile(r"i[0-9a-f]{16}")
_LONGEST = 4096  # characters of a path
_MOST = 4  # images that are remembered of those that have a name in common


class Index:
    """The images of a scan by id, path, name and stem."""

    def __init__(self, images: Sequence[Image]):
        self._images = images
        self._of_id: dict[str, int] = {}
        self._of_path: dict[str, int] = {}
        for row, image in enumerate(images):
            if image.id:
                self._of_id.setdefault(image.id, row)
            path = "/".join(_parts(image.file))
            before = self._of_path.get(path)
            # A path is that of the content which lies there now, else of what lay there last.
            if before is None or image.status != "missing" or images[before].status == "missing":
                self._of_path[path] = row

    def find(self, answer: Answer) -> tuple[int, str]:
        """The row of the image that is meant, and where there is none, -1 and why."""
        if answer.id in self._of_id:
            return self._of_id[answer.id], ""
        if _ID.fullmatch(answer.id):
            if not answer.line:
                return -1, "none of the images has its content: take it away"
            named = f"{shown(answer.name)} is" if answer.name else "it is"
            return -1, (
                f"{named} none of the images by its id {answer.id}, which stands for the content:"
                " mend the id, or delete the row"
            )
        text = answer.name or answer.id
        rows = self._named(text) if len(text) <= _LONGEST else []
        if not rows:
            return -1, f"{shown(text)} is none of the images: mend its name, or delete the row"
        if len(rows) == 1:
            return rows[0], ""
        files = [shown(self._images[row].file) for row in rows]
        last = files[-1] if len(files) < _MOST else "others"
        return -1, f"{shown(text)} is in {', '.join(files[:-1])} and {last}: give the id"

    def entry(self, row: int) -> str:
        """The id under which the image of a row is known; "" where it could not be read."""
        return self._images[row].id

    def _named(self, text):
        """Rows of different content that may be meant: one where it is clear."""
        path = "/".join(_parts(text))
        if path in self._of_path:
            return [self._of_path[path]]
        return (
            self._longest(path, self._names)
            or self._longest(path, self._stems)
            or self._longest(_stem(path), self._stems)
        )

    def _longest(self, path, known):
        """The more of a path agrees the better: people's may begin elsewhere."""
        parts = path.split("/")
        starts = range(max(0, len(parts) - self._depth), len(parts))
        ends = ("/".join(parts[start:]) for start in starts)
        return next((known[end] for end in ends if end in known), [])

    @functools.cached_property
    def _depth(self):
        return max((path.count("/") + 1 for path in self._of_path), default=0)

    @functools.cached_property
    def _names(self):
        return self._ends(lambda path: path)

    @functools.cached_property
    def _stems(self):
        return self._ends(_stem)

    def _ends(self, change):
        """Ends of the images' changed paths, and whose they are."""
        found: dict[str, dict[str | int, int]] = {}
        for path, row in self._of_path.items():
            parts = change(path).split("/")
            for start in range(len(parts)):
                rows = found.setdefault("/".join(parts[start:]), {})
                if len(rows) < _MOST:
                    rows.setdefault(self.entry(row) or row, row)
        return {end: list(rows.values()) for end, rows in found.items()}


def _parts(text):
    """Of a path in whichever way it is written."""
    text = unicodedata.normalize("NFC", text).replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".")]


def _stem(path):
    """Without the ending of an image."""
    start, _, ending = path.rpartition(".")
    return start if f".{ending.casefold()}" in EXTENSIONS else path
