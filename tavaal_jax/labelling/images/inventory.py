"""Inventory of a folder of images: names, content ids and sizes; nothing is decoded.

An image is identified by its content: a file that is renamed or moved stays the same image, one
whose content is replaced becomes another. Nothing is ever written into the folder.
"""

import os
import pathlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.facts import FactsCache, FileFacts, read_head
from tavaal_jax.labelling.images.files import (
    EXTENSIONS,
    NO_PICTURE,
    Listing,
    list_files,
    path_of,
)
from tavaal_jax.labelling.passed_over import PassedOver, collected, printable, summary

_KEY = "--config.folder.images"
_REASONS = 12  # that have a line of their own
_COPY = "duplicate_of:"
_PASSING = (decode.GONE, decode.CHANGED)
_SIZE = re.compile(r"^\d+x\d+ pixels, ")

Log = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with how many of how many files are done."""


class Image(NamedTuple):
    """A row of images.csv; its index there never changes."""

    id: str
    """Content id, see `decode.content_id`; "" where the file could not be read. The first row with
    an id is the image, later ones are copies."""
    file: str
    """Path below the folder with `/`, as found; bytes that are not UTF-8 are escaped."""
    status: str
    """ok, corrupt, too_large, missing, unsupported, no_features, duplicate_of:<id>."""
    width: int
    height: int
    """After the turn that EXIF asks for; 0 where unknown."""
    mode: str
    """Pillow's mode, "" where unknown."""


class Scan(NamedTuple):
    """All images of a folder, those known before first."""

    images: tuple[Image, ...]
    folder: pathlib.Path
    reasons: dict[str, str]
    """By file: why it cannot be used."""
    passed: tuple[PassedOver, ...] = ()
    """All else that is in the folder."""

    @property
    def ids(self) -> dict[str, int]:
        """Index of each image that has an id; copies have the index of their image."""
        found: dict[str, int] = {}
        for index, image in enumerate(self.images):
            if image.id:
                found.setdefault(image.id, index)
        return found

    @property
    def readable(self) -> list[tuple[str, str]]:
        """Id and path of every image that is ok, each content once."""
        return [(i.id, path_of(self.folder, i.file)) for i in self.images if i.status == "ok"]

    def with_faults(
        self, faults: Mapping[str, str], key: str = _KEY, lasting: str = "corrupt"
    ) -> "Scan":
        """A copy in which the images with faults, reasons by id, are `lasting` or missing, not ok.

        Raises UserError, which names the config's `key`, if no image is left.
        """
        lost = lambda image: image.status == "ok" and image.id in faults
        status = lambda reason: "missing" if reason in _PASSING else lasting
        images = tuple(
            image._replace(status=status(faults[image.id])) if lost(image) else image
            for image in self.images
        )
        reasons = {image.file: faults[image.id] for image in self.images if lost(image)}
        scan = self._replace(images=images, reasons={**self.reasons, **reasons})
        _check_some_ok(scan, key)
        return scan

    def changes(self, known: Sequence[Image]) -> list[str]:
        """Lines about what has changed in the folder since the rows `known`."""
        return list(_changes(known, self))


def scan(
    folder: str | pathlib.Path,
    known: Sequence[Image],
    index_file: pathlib.Path,
    max_pixels: int,
    progress: Progress | None = None,
    key: str = _KEY,
    follow_links: bool = False,
) -> Scan:
    """Scans a folder of images, of which `known` are the rows of images.csv so far.

    New images follow these, sorted by path. `index_file` caches the facts of each file, so that
    only new and changed ones are read. Raises UserError, which names the config's `key`, where no
    image can be read.
    """
    if not str(folder):
        raise UserError(f"no folder of images is given: give {key}")
    folder = user_path(folder, "folder.images").absolute()
    listing = list_files(folder, key, follow_links)
    with FactsCache(index_file) as cache:
        facts = _facts(folder, listing, cache, progress)
        cache.compact(listing.files)
    unnamed = FileFacts.unread("unsupported", "its name is no UTF-8: rename it")
    facts |= dict.fromkeys(listing.undecodable, unnamed)
    facts = {file: _limited(one, max_pixels) for file, one in facts.items()}
    reasons = {file: one.reason for file, one in facts.items() if one.reason}
    found = Scan(_matched(known, facts), folder, reasons, collected(listing.passed))
    _check_some_ok(found, key)
    return found


def _facts(
    folder: pathlib.Path, listing: Listing, cache: FactsCache, progress: Progress | None
) -> dict[str, FileFacts]:
    """Facts of the listed images by path, without those that have vanished meanwhile."""
    found = {}
    for number, file in enumerate(sorted(listing.files)):
        facts = cache.get(file, listing.files[file])
        if facts is None:
            when_ns, path = time.time_ns(), path_of(folder, file)
            stamp, facts = read_head(path)
            if stamp is not None and facts is not None and (facts.id or facts.status == "other"):
                cache.put(file, stamp, when_ns, facts)
            elif facts is None and os.path.exists(path):
                listing.passed.append(("files still being written", file))
        if facts is not None and facts.status == "other":
            listing.passed.append((NO_PICTURE, file))
        elif facts is not None:
            found[file] = facts
        if progress is not None:
            progress(number + 1, len(listing.files))
    return found


def _limited(facts: FileFacts, max_pixels: int) -> FileFacts:
    """A file's facts, whose status is too_large above `max_pixels`."""
    if facts.status != "ok" or facts.width * facts.height <= max_pixels:
        return facts
    reason = str(decode.TooLarge.from_size(facts.width, facts.height, max_pixels))
    return facts._replace(status="too_large", reason=reason)


# Which file is which image


def _matched(known: Sequence[Image], facts: Mapping[str, FileFacts]) -> tuple[Image, ...]:
    """All rows of images.csv: known ones, each with the file of its content, then new ones."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in sorted(facts):
        files[facts[file].id].append(file)
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for index, image in enumerate(known):
        rows[image.id][index] = image.file
    places: dict[int, str] = {}
    for name, same in rows.items():
        there = files.get(name, [])
        if len(same) == 1 and there == list(same.values()):
            places |= zip(same, there, strict=True)
        else:
            places |= _placed(same, there, moves=bool(name))
    firsts = {min(same) for name, same in rows.items() if name}

    found = []
    for index, image in enumerate(known):
        place = places.get(index)
        if place is None:
            found.append(image._replace(status="missing"))
        else:
            found.append(_image(place, facts[place], bool(image.id) and index not in firsts))
    ids = {image.id for image in known if image.id}
    for file in sorted(facts.keys() - set(places.values())):
        found.append(_image(file, facts[file], facts[file].id in ids))
        ids |= {facts[file].id} - {""}
    return tuple(found)


def _placed(rows: Mapping[int, str], files: Sequence[str], moves: bool) -> dict[int, str]:
    """The present file, if any, of each row with one content; `rows` are their files so far."""
    places: dict[int, str] = {}
    free = list(files)
    for index, file in rows.items():
        if file in free:
            places[index] = file
            free.remove(file)
    if moves:
        places |= zip([index for index in rows if index not in places], free, strict=False)
        first = min(rows)
        if places and first not in places:  # Only a copy is left: it becomes the image.
            places[first] = places.pop(min(places))
    return places


def _image(file: str, facts: FileFacts, is_copy: bool) -> Image:
    status = _COPY + facts.id if is_copy else facts.status
    return Image(facts.id, file, status, facts.width, facts.height, facts.mode)


# Messages


def _check_some_ok(scan: Scan, key: str) -> None:
    """Raises UserError where no image can be used."""
    if any(image.status == "ok" for image in scan.images):
        return
    also = "".join(f"; {one.line}" for one in scan.passed)
    left = [image for image in scan.images if image.status != "missing"]
    if left:
        first = printable(f"{left[0].file}: {scan.reasons.get(left[0].file, left[0].status)}")
        raise UserError(
            f"none of the {len(left):,} images in {scan.folder} can be read ({first}{also}): see to"
            f" {key}"
        )
    if scan.images:
        raise UserError(
            f"none of the {len(scan.images):,} known images is left in {scan.folder}{also}: see"
            f" whether its disk is there, or to {key}"
        )
    raise UserError(f"{scan.folder} holds no images ({' '.join(EXTENSIONS)}){also}: see to {key}")


def _changes(known: Sequence[Image], scan: Scan) -> Iterator[str]:
    """Lines about what has changed in a folder since the rows `known`."""
    pairs = list(zip(known, scan.images, strict=False))
    new = scan.images[len(known) :]
    # A copy of what cannot be used has the reason, too.
    is_copy = lambda image: image.status.startswith(_COPY) and image.file not in scan.reasons
    lost = lambda image: image.status == "missing"

    there = {image.file for image in scan.images if not lost(image)}
    passing = {file for file, reason in scan.reasons.items() if reason in _PASSING}
    left = [old.file for old, now in pairs if lost(now) and not lost(old) and not is_copy(old)]
    left = [file for file in left if file not in passing]
    replaced = set(left) & {image.file for image in new if not is_copy(image)}
    differing = [now for old, now in pairs if (now.status, now.file) != (old.status, old.file)]
    differing += new
    added = [image.file for image in new if image.status == "ok" and image.file not in replaced]
    changes = {
        "added" if known else "found": added,
        "copied": [image.file for image in differing if is_copy(image)],
        "renamed or moved": [
            f"{old.file} -> {now.file}"
            for old, now in pairs
            if old.file != now.file and not lost(old) and not lost(now)
        ],
        "with other content: new, without label": sorted(replaced),
        "gone; labels are kept": [file for file in left if file not in there],
        "back": [now.file for old, now in pairs if lost(old) and not lost(now)],
    }
    for what, names in changes.items():
        if names and what == "copied":
            yield summary(names, "copies of them, left out", "copy of them, left out")
        elif names:
            yield summary(names, f"images {what}", f"image {what}")
    yield from _unusable(differing, scan.reasons)


def _unusable(images: Sequence[Image], reasons: Mapping[str, str]) -> Iterator[str]:
    """A line for each reason why some of the images cannot be used."""
    lost = [image for image in images if image.status != "ok" and image.file in reasons]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for image in lost:
        by_reason[_SIZE.sub("", reasons[image.file])].append(image.file)
    counts = Counter({reason: len(files) for reason, files in by_reason.items()})
    shown = [reason for reason, _ in counts.most_common(_REASONS)]
    for reason in sorted(shown):
        words = f"that cannot be used ({printable(reason)})"
        yield summary(by_reason[reason], f"files {words}", f"file {words}")
    others = [
        f"{file} ({reason})" for reason in by_reason.keys() - shown for file in by_reason[reason]
    ]
    if others:
        yield summary(sorted(others), "other files that cannot be used")
