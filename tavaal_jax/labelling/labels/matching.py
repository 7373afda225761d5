"""Finds the image that an answer names by id, path or file name; no such path is ever opened."""

import functools
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from tavaal_jax.labelling.images.inventory import EXTENSIONS, Image
from tavaal_jax.labelling.labels.rows import Answer, names, shown

_ID = re.compile(r"i[0-9a-f]{16}")
_LONGEST = 4096  # characters of a path
_MOST = 4  # images kept of those that share a name


class Index:
    """Index of images by id, path, name and stem; a row is an image's place among them."""

    def __init__(self, images: Sequence[Image]):
        self._images = images
        self._by_id: dict[str, int] = {}
        self._by_file: dict[str, int] = {}
        for row, image in enumerate(images):
            if image.id:
                self._by_id.setdefault(image.id, row)
            before = self._by_file.get(image.file)
            # A path means the content that is there now, or else the last that was.
            if before is None or image.status != "missing" or images[before].status == "missing":
                self._by_file[image.file] = row
        # Of the files that one path may mean, those that are there.
        self._by_path: dict[str, list[int]] = {}
        for file, row in self._by_file.items():
            same = self._by_path.setdefault(_normalised(file), [])
            missing = [images[one].status == "missing" for one in (*same, row)]
            if all(missing[:-1]) and not missing[-1]:
                same.clear()
            if all(missing) or not missing[-1]:
                same.append(row)

    def find(self, answer: Answer) -> tuple[int, str]:
        """Row of the image that an answer names; -1 and the reason where there is none."""
        if answer.id in self._by_id:
            return self._by_id[answer.id], ""
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
        if len({_normalised(file) for file in files}) < len(files):
            files = [shown(ascii(self._images[row].file)) for row in rows]
        last = files[-1] if len(files) < _MOST else "others"
        return -1, f"{shown(text)} is in {', '.join(files[:-1])} and {last}: give the id"

    def names_another(self, answer: Answer) -> bool:
        """Whether an answer's file is there and is another image than that of its id."""
        if answer.id not in self._by_id or not answer.name or len(answer.name) > _LONGEST:
            return False
        images = [self._images[row] for row in self._named(answer.name)]
        is_there = any(image.status != "missing" for image in images)
        return is_there and all(image.id != answer.id for image in images)

    def _named(self, text: str) -> list[int]:
        """Rows of different content that a path or name may mean: one where it is clear."""
        paths = []
        for form in names(text):
            if form in self._by_file:
                return [self._by_file[form]]
            paths.append(_normalised(form))
            if rows := self._different(paths[-1]) or self._longest(paths[-1], self._names):
                return rows
        for path in (*paths, *map(_stem, paths)):
            if rows := self._longest(path, self._stems):
                return rows
        return []

    def _different(self, path: str) -> list[int]:
        """Rows of different content whose whole path this may be."""
        rows: dict[str | int, int] = {}
        for row in self._by_path.get(path, []):
            rows.setdefault(self._images[row].id or row, row)
        return list(rows.values())

    def _longest(self, path: str, known: Mapping[str, list[int]]) -> list[int]:
        """Rows of the longest known end of a path, which may begin in another folder."""
        parts = path.split("/")
        starts = range(max(0, len(parts) - self._depth), len(parts))
        ends = ("/".join(parts[start:]) for start in starts)
        return next((known[end] for end in ends if end in known), [])

    @functools.cached_property
    def _depth(self) -> int:
        return max((path.count("/") + 1 for path in self._by_path), default=0)

    @functools.cached_property
    def _names(self) -> dict[str, list[int]]:
        return self._ends(lambda path: path)

    @functools.cached_property
    def _stems(self) -> dict[str, list[int]]:
        return self._ends(_stem)

    def _ends(self, change: Callable[[str], str]) -> dict[str, list[int]]:
        """Rows by every end of the images' paths, which go through `change` before."""
        found: dict[str, dict[str | int, int]] = {}
        for path, same in self._by_path.items():
            parts = change(path).split("/")
            for start in range(len(parts)):
                rows = found.setdefault("/".join(parts[start:]), {})
                for row in same:
                    if len(rows) < _MOST:
                        rows.setdefault(self._images[row].id or row, row)
        return {end: list(rows.values()) for end, rows in found.items()}


def _normalised(text: str) -> str:
    """A path with `/`, in Unicode's form NFC, without blanks around names, however written."""
    text = unicodedata.normalize("NFC", text).replace("\\", "/")
    parts = [part.strip() for part in text.split("/")]
    return "/".join(part for part in parts if part not in ("", "."))


def _stem(path: str) -> str:
    """A path without an image's extension."""
    start, _, ending = path.rpartition(".")
    return start if f".{ending.casefold()}" in EXTENSIONS else path
