"""What lies in a folder of images: names, contents and heads of files; nothing is decoded.

An image is known by what is in it: a file that is renamed or moved stays the image it was, one
whose content is replaced is another. Nothing is ever written into the folder.
"""

import pathlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.files import (
    EXTENSIONS,
    FileFacts,
    Listing,
    Memory,
    list_files,
    read_head,
)

_KEY = "--config.folder.images"
_SHOWN = 3  # names in a line
_IMAGES = ("image", "images")
_UNUSABLE = ("file", "files", "that cannot be used")
_COPY = "duplicate_of:"

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


class Image(NamedTuple):
    """A row of images.csv; its index is its place there and never changes."""

    id: str
    """What `photos.content_id` says; "" where the file could not be read. The first row with an id
    is that image's, the others are copies."""
    file: str
    """Path below the folder with `/`, as found; bytes that are no UTF-8 are escaped."""
    status: str
    """ok, corrupt, too_large, missing, unsupported, duplicate_of:<id>."""
    width: int
    height: int
    """After the turn that EXIF asks for; 0 where unknown."""
    mode: str
    """Pillow's, "" where unknown."""


class Scan(NamedTuple):
    """What a folder holds, known images first."""

    images: tuple[Image, ...]
    folder: pathlib.Path
    reasons: dict[str, str]
    """By file: why it cannot be used."""

    @property
    def ids(self) -> dict[str, int]:
        """Index of each image that has an id; a copy counts as the image."""
        found: dict[str, int] = {}
        for index, image in enumerate(self.images):
            if image.id:
                found.setdefault(image.id, index)
        return found

    @property
    def readable(self) -> list[tuple[str, pathlib.Path]]:
        """Id and path of every image that can be decoded, each content once."""
        return [(i.id, self.folder / i.file) for i in self.images if i.status == "ok"]

    def without(
        self, faults: Mapping[str, str], known: Sequence[Image] = (), say: Say | None = None
    ) -> "Scan":
        """The same where decoding has found `faults`, reasons by id. UserError if none is left.

        `say` is told of those whose status was another in the rows `known` so far.
        """
        lost = lambda image: image.status == "ok" and image.id in faults
        status = lambda reason: "missing" if reason in (decode.GONE, decode.CHANGED) else "corrupt"
        images = tuple(
            image._replace(status=status(faults[image.id])) if lost(image) else image
            for image in self.images
        )
        reasons = {image.file: faults[image.id] for image in self.images if lost(image)}
        scan = self._replace(images=images, reasons={**self.reasons, **reasons})
        _check_some_ok(scan, _KEY)
        before = [image.status for image in known] + ["ok"] * len(images)
        told = [
            f"{old.file} ({faults[old.id]})"
            for old, now, status in zip(self.images, images, before, strict=False)
            if now is not old and now.status != status
        ]
        if say is not None:
            for line in _line(told, *_UNUSABLE):
                say(line)
        return scan


def printable(name: str) -> str:
    """A name for a terminal, where control characters could do harm."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def scan(
    folder: str | pathlib.Path,
    known: Sequence[Image],
    index_file: pathlib.Path,
    max_pixels: int,
    say: Say = print,
    progress: Progress | None = None,
    key: str = _KEY,
) -> Scan:
    """What there is in `folder` now, `known` being the rows of images.csv so far.

    New images come behind them, sorted by path. `index_file` keeps what was found of each file, so
    that only new and changed ones are read. `say` is told what is new, in lines; `progress(done,
    total)` counts files. UserError, which names `key`, where there is no image that can be read.
    """
    if not str(folder):
        raise UserError(f"no folder of images is given: give {key}")
    folder = pathlib.Path(folder).expanduser().absolute()
    there = list_files(folder, key)
    with Memory(index_file) as memory:
        facts = _facts(folder, there, memory, progress)
        memory.tidy(there.files)
    unnamed = FileFacts.unread("unsupported", "its name is no UTF-8: rename it")
    facts |= dict.fromkeys(there.undecodable, unnamed)
    facts = {file: _sized(seen, max_pixels) for file, seen in facts.items()}
    reasons = {file: seen.reason for file, seen in facts.items() if seen.reason}
    found = Scan(_matched(known, facts), folder, reasons)
    notes = list(_notes(there))
    _check_some_ok(found, key, notes)
    news = list(_news(known, found))
    if news or not known:
        for line in [*news, *notes]:
            say(line)
    return found


def _facts(
    folder: pathlib.Path, there: Listing, memory: Memory, progress: Progress | None
) -> dict[str, FileFacts]:
    """What the files say, by path; those that have vanished meanwhile are not among them."""
    found = {}
    for number, file in enumerate(sorted(there.files)):
        facts = memory.get(file, there.files[file])
        if facts is None:
            when_ns, path = time.time_ns(), folder / file
            stamp, facts = read_head(path)
            if stamp is not None and facts is not None and facts.id:
                memory.put(file, stamp, when_ns, facts)
            elif facts is None and path.exists():
                there.closed.append(f"{file} (it is being written)")
        if facts is not None:
            found[file] = facts
        if progress is not None:
            progress(number + 1, len(there.files))
    return found


def _sized(facts: FileFacts, max_pixels: int) -> FileFacts:
    if facts.status != "ok" or facts.width * facts.height <= max_pixels:
        return facts
    reason = str(decode.TooLarge.of(facts.width, facts.height, max_pixels))
    return facts._replace(status="too_large", reason=reason)


# Which file is which image


def _matched(known: Sequence[Image], facts: Mapping[str, FileFacts]) -> tuple[Image, ...]:
    """All rows: the known ones, each with the file that has its content, and new ones."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in sorted(facts):
        files[facts[file].id].append(file)
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for index, image in enumerate(known):
        rows[image.id][index] = image.file
    places: dict[int, str] = {}
    for name, mine in rows.items():
        places |= _placed(mine, files[name], moves=bool(name))
    firsts = {min(mine) for name, mine in rows.items() if name}

    found = []
    for index, image in enumerate(known):
        place = places.get(index)
        if place is None:
            found.append(image._replace(status="missing"))
        else:
            found.append(_image(place, facts[place], bool(image.id) and index not in firsts))
    seen = {image.id for image in known if image.id}
    for file in sorted(facts.keys() - set(places.values())):
        found.append(_image(file, facts[file], facts[file].id in seen))
        seen |= {facts[file].id} - {""}
    return tuple(found)


def _placed(rows: Mapping[int, str], files: Sequence[str], moves: bool) -> dict[int, str]:
    """The file of each row of one content, where there is one; `rows` are their files so far."""
    places: dict[int, str] = {}
    free = list(files)
    for index, file in rows.items():
        if file in free:
            places[index] = file
            free.remove(file)
    if moves:
        places |= zip([index for index in rows if index not in places], free, strict=False)
        first = min(rows)
        if places and first not in places:  # A copy is left, which becomes the image.
            places[first] = places.pop(min(places))
    return places


def _image(file, facts, is_copy):
    status = _COPY + facts.id if is_copy else facts.status
    return Image(facts.id, file, status, facts.width, facts.height, facts.mode)


# What is said of it


def _check_some_ok(scan: Scan, key: str, notes: Sequence[str] = ()) -> None:
    """UserError where no image can be used."""
    if any(image.status == "ok" for image in scan.images):
        return
    also = "".join(f"; {note}" for note in notes)
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


def _notes(there: Listing) -> Iterator[str]:
    """What was left out."""
    yield from _line(there.outside, "link leads", "links lead", "out of the folder, not followed")
    yield from _line(there.closed, "place", "places", "that cannot be read")


def _news(known: Sequence[Image], scan: Scan) -> Iterator[str]:
    """How a folder differs from what was known of it."""
    pairs = list(zip(known, scan.images, strict=False))
    new = scan.images[len(known) :]
    is_copy = lambda image: image.status.startswith(_COPY)
    lost = lambda image: image.status == "missing"

    there = {image.file for image in scan.images if not lost(image)}
    left = [old.file for old, now in pairs if lost(now) and not lost(old) and not is_copy(old)]
    replaced = set(left) & {image.file for image in new if not is_copy(image)}
    differing = [now for old, now in pairs if (now.status, now.file) != (old.status, old.file)]
    differing += new
    moved = [
        f"{old.file} -> {now.file}"
        for old, now in pairs
        if old.file != now.file and not lost(old) and not lost(now)
    ]
    unusable = [
        f"{image.file} ({scan.reasons[image.file]})"
        for image in differing
        if image.status in ("corrupt", "too_large", "unsupported")
    ]
    added = [image.file for image in new if image.status == "ok" and image.file not in replaced]
    back = [now.file for old, now in pairs if lost(old) and not lost(now)]
    copies = [image.file for image in differing if is_copy(image)]
    yield from _line(added, *_IMAGES, "added" if known else "found")
    yield from _line(copies, "copy", "copies", "of them, left out")
    yield from _line(moved, *_IMAGES, "renamed or moved")
    yield from _line(sorted(replaced), *_IMAGES, "with other content: new, without label")
    yield from _line([f for f in left if f not in there], *_IMAGES, "gone; labels are kept")
    yield from _line(back, *_IMAGES, "back")
    yield from _line(unusable, *_UNUSABLE)


def _line(names: Sequence[str], one: str, many: str, what: str) -> Iterator[str]:
    """`3 images gone: a.jpg, b.jpg, c.jpg`; nothing where there are no names."""
    if names:
        shown = ", ".join(printable(name) for name in names[:_SHOWN])
        more = ", ..." if len(names) > _SHOWN else ""
        yield f"{len(names):,} {one if len(names) == 1 else many} {what}: {shown}{more}"
