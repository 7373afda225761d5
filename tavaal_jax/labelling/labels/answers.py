"""Reads the answers in a folder of label files, and in folders named like classes."""

import errno
import io
import os
import pathlib
import re
import stat
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tavaal_jax.data.pictures import decode
from tavaal_jax.errors import UserError
from tavaal_jax.labelling import passed_over
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.formats import MOST_ROWS, is_table, parse
from tavaal_jax.labelling.labels.listing import (
    OTHERS,
    File,
    ending_of,
    files,
    is_image,
    linked,
    order,
    unreadable,
    utf8,
)
from tavaal_jax.labelling.labels.rows import REQUESTS, Answer
from tavaal_jax.labelling.passed_over import PassedOver, shown

__all__ = ["Answer", "Reading", "content_id", "read"]

MOST_BYTES = 100 * 2**20
"""Limit for one file."""
MOST_FILES = 1000
"""Limit for files of several rows; Label Studio's target storage has a file per annotation."""
NO_CLASS = ("_unsorted", "unlabelled", "unlabeled", "no_label")
"""Folders of images without a class; the last is CVAT's."""
PARTS = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "holdout")
)
"""Folders that are parts of a data set, and hardly its classes."""

_UNSORTED = "images in folders that are no class"
_WITHOUT = "files of labels without any answer"
_REJECTED = "rows rejecting a class, which is no answer"
# What programs add to the name of a copy.
_COPY = re.compile(
    r"(?: ?\(\d+\)| - Copy(?: \(\d+\))?| copy(?: \d+)?|\.sync-conflict-[\w-]+|_conflict-[\d-]+"
    r"| \([^()]*(?:conflict|SFConflict)[^()]*\)|-(?:DESKTOP|LAPTOP)-\w+)(?=\.\w+$)",
    re.IGNORECASE,
)
_ENCODINGS = (  # The longer ones first: UTF-32 begins as UTF-16 does.
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip
_AS_UTF_8 = "save it as UTF-8 (in Excel: CSV UTF-8)"


class Reading(NamedTuple):
    """All answers, and what was not read."""

    answers: list[Answer]
    passed: tuple[PassedOver, ...]


def read(
    folder: pathlib.Path | None,
    further: Sequence[pathlib.Path] = (),
    *,
    classes: Sequence[str] = (),
    keep_annotators: bool = False,
) -> Reading:
    """All answers below a folder and in further files and folders.

    `folder` may be missing, the others may not. Folders named like one of the `classes` are that
    class, whatever their name means otherwise. `keep_annotators`: annotators are called by their
    mail addresses instead of Label Studio's numbers, where it gives both. Raises UserError at the
    first fault: nothing is half-read.
    """
    found: list[Answer] = []
    passed: list[tuple[str, str]] = []
    rows = tables = 0
    for file in sorted(files(folder, further, passed), key=order):
        source, path, _, _ = file
        if is_image(path.name):
            answers, count = _from_class_folder(file, classes), 1
            passed += [(_UNSORTED, source)] * (not answers)
        else:
            text = _meant(file)
            if text is None:
                passed.append((OTHERS, source))
                continue
            answers, count, rejected = parse(text, source, keep_annotators)
            passed += [(_REJECTED, place) for place in rejected]
            if count and not answers and not rejected and not source.startswith(REQUESTS):
                passed.append((_WITHOUT, source))
            tables += count != 1
        found += answers
        rows += count
        if rows > MOST_ROWS:
            raise UserError(f"{source}: more than {MOST_ROWS:,} rows of labels: take some away")
        if tables > MOST_FILES:
            raise UserError(
                f"{source}: more than {MOST_FILES:,} files of labels: join some, or take them away"
            )
    _check_copies(found)
    named = {answer.label for answer in found if answer.is_name}
    if named:
        check_parts(named, classes, "labels/", "name them in folder.classes, or take them away")
    return Reading(found, passed_over.collected(passed))


def _check_copies(found: Sequence[Answer]) -> None:
    """Raises UserError where a file and what seems to be a copy of it say different things."""
    said: dict[str, dict[tuple[str, str, str], Answer]] = {}
    for answer in found:
        if answer.line:
            key = (answer.id, answer.name, answer.annotator)
            said.setdefault(answer.source, {})[key] = answer
    for source, answers in said.items():
        original = said.get(_COPY.sub("", source), {})
        if original is answers:
            continue
        other = {
            key: original[key]
            for key in answers.keys() & original.keys()
            if (answers[key].label, answers[key].skipped)
            != (original[key].label, original[key].skipped)
            and not (answers[key].updated and original[key].updated)
        }
        if other:
            first = min(other)
            raise UserError(
                f"{source} and {other[first].source}, of which it seems to be a copy, say different"
                f" things of {len(other):,} images, first {shown(first[1] or first[0])}"
                f" ({shown(answers[first].label) or 'skipped'},"
                f" {shown(other[first].label) or 'skipped'}): take the older one away"
            )


def content_id(path: pathlib.Path) -> str:
    """The content id of an image file, see `decode.content_id`."""
    with _opened(path) as file:
        return decode.content_id(file)


# Folders of labels that are classes


def _from_class_folder(file: File, classes: Sequence[str]) -> list[Answer]:
    """The answer given by an image's folder; none where that is no class."""
    source, path, root, _ = file
    if path.parent == root:
        raise UserError(
            f"{source} lies in no folder that is named like its class: move it into one, or away"
        )
    label = utf8(path.parent.name).strip()
    if label.casefold() in NO_CLASS and label not in classes:
        return []
    try:
        found = content_id(path)
    except OSError as error:
        raise unreadable(source, error) from error
    name = utf8(path.relative_to(root))
    return [Answer(source, 0, found, name, label, False, "", "", is_name=True)]


# From bytes to text


def _meant(file: File) -> str | None:
    """The text of a file of labels; None for notes and such, which are none."""
    is_free = ending_of(file.path.name) == ".txt" and not file.is_named
    try:
        text = _text(_bytes(file.path, file.source), file.source)
    except UserError:
        if is_free:
            return None
        raise
    return None if is_free and not is_table(text) else text


def _bytes(path: pathlib.Path, source: str) -> bytes:
    """Content of a file, read again where it changed meanwhile."""
    for _ in range(3):
        try:
            with _opened(path, os.O_NOFOLLOW) as file:
                before = os.fstat(file.fileno())
                data = file.read(MOST_BYTES + 1)
                after = os.fstat(file.fileno())
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise linked(source) from error
            raise unreadable(source, error) from error
        if max(len(data), after.st_size) > MOST_BYTES:
            raise UserError(
                f"{source} has more than {MOST_BYTES // 2**20} MB: divide it, or save labels only"
            )
        is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if is_same and len(data) == after.st_size:
            return data
        time.sleep(0.1)
    raise UserError(f"{source} is being written: start again when it is whole")


def _opened(path: pathlib.Path, flags: int = 0) -> io.BufferedReader:
    """A regular file, opened; raises OSError for pipes and such, which would block."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(number, "rb")


def _text(data: bytes, source: str) -> str:
    """Decodes UTF-8. Raises UserError for other encodings, workbooks and damaged text."""
    for mark, name in _ENCODINGS:
        if data.startswith(mark):
            raise UserError(f"{source} is {name}: {_AS_UTF_8}")
    if data.startswith(b"PK\x03\x04"):
        raise UserError(f"{source} is a workbook or an archive: save it as CSV, or unpack it")
    null = data.find(0)
    if null >= 0:
        start = data[:4096]
        halves = [part.count(0) / max(len(part), 1) for part in (start[::2], start[1::2])]
        if max(halves) > 0.5 and min(halves) < 0.1:  # Latin letters have an empty half.
            raise UserError(f"{source} is UTF-16: {_AS_UTF_8}")
        raise UserError(
            f"{source} has a NUL at byte {null}: it is no text, or was cut: save it anew"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # That codec does not count the byte-order mark.
        first = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data.count(b"\n", 0, first) + 1
        raise UserError(
            f"{source} is not UTF-8 at byte {first} (0x{data[first]:02x}, line {line}): {_AS_UTF_8}"
        ) from error


# Folders that are classes


def from_class_folders(
    images: Sequence[Image], classes: Sequence[str], class_folders: bool | None, key: str
) -> Reading:
    """Answers given by the sub-folders of the images, where these are classes.

    `class_folders`: whether they are; None: where a class known so far is among them. Raises
    UserError, which names the config's `key` of the folder, where that is unclear.
    """
    images = [i for i in images if i.status == "ok" or i.status.startswith("duplicate_of:")]
    top = {i.file: i.file.partition("/")[0].strip() for i in images if "/" in i.file}
    named = sorted(set(top.values()))
    if class_folders is False:
        return Reading([], ())
    if named and not (class_folders is None and set(named) & set(classes)):
        mend = (
            f"give --config.{key}=.../train and --config.folder.test=.../test, or name them in"
            " folder.classes"
            if key == "folder.images"
            else f"give the one that is meant, --config.{key}=.../test"
        )
        check_parts(named, classes, key, mend)
    if class_folders is None and named and not set(named) & set(classes):
        listed = ", ".join(map(shown, named[:3])) + (", ..." if len(named) > 3 else "")
        raise UserError(
            f"{key} has sub-folders ({listed}): give --config.folder.class_folders=True if they are"
            " classes, or False"
        )
    wanted = set(named) if class_folders else set(named) & set(classes)
    unsorted = {n for n in wanted if n.casefold() in NO_CLASS and n not in classes}
    passed = [(_UNSORTED, file) for file, name in top.items() if name in unsorted]
    found = [
        Answer(key, 0, image.id, image.file, top[image.file], False, "", "", is_name=True)
        for image in images
        if top.get(image.file) in wanted - unsorted
    ]
    return Reading(found, passed_over.collected(passed))


def check_parts(named: Collection[str], classes: Sequence[str], where: str, mend: str) -> None:
    """Raises UserError where all names of class folders are those of a data set's parts."""
    if all(name.casefold() in PARTS for name in named) and not set(named) & set(classes):
        listed = ", ".join(sorted(named))
        are = "is a part of a data set" if len(named) == 1 else "are parts of a data set"
        raise UserError(f"{where} has the folders {listed}, which {are}: {mend}")
