"""A request to people: a folder with the list, the labelling page and Label Studio's tasks."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import string
import textwrap
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from xml.sax import saxutils

from tavaal_jax.errors import UserError
from tavaal_jax.labelling.page import static
from tavaal_jax.labelling.page.static import RequestItem
from tavaal_jax.report import files

FOLDER = "to_label"
FIELDS = ("rank", "id", "file", "label", "annotator", "note")
_EMBEDDED = 512  # pixels of the longer side of a picture within a task
# One transparent pixel: a task must have a picture.
_NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

Picture = Callable[[pathlib.Path, int], bytes]
"""(file, longest side in pixels) -> JPEG."""


def path_of(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where a request lies in a workdir."""
    return folder / FOLDER / static.name(number)


def write(
    folder: pathlib.Path,
    number: int,
    asked: Sequence[RequestItem],
    *,
    classes: Sequence[str],
    unsure: Sequence[str],
    bad: Sequence[str],
    picture: Picture,
    label_studio_images: str,
    label_studio_root: str | os.PathLike[str],
    images_folder: pathlib.Path,
    parts: int = 1,
    fixed: bool = False,
) -> pathlib.Path:
    """Writes a request into a workdir, whole or not at all, and returns its folder.

    One that is there is left alone: people may have filled its list. Not `fixed`: the classes may
    become more. The same arguments give the same bytes.
    """
    target = path_of(folder, number)
    if target.exists():
        return target
    local = label_studio_images == "local"
    prefix = served(images_folder, label_studio_root) if local else ""
    # Names that are not UTF-8 cannot be written as they are; the id tells the image.
    asked = [one._replace(file=_printable(one.file)) for one in asked]
    parts = max(1, min(parts, len(asked)))
    with _whole(folder, target) as unfinished:

        def put(name: str, text: str, encoding: str = "utf-8") -> None:
            (unfinished / name).write_bytes(text.encode(encoding))

        for name, text in _lists(asked, parts):
            put(name, text, "utf-8-sig")
        thumbnails = _write_tasks(unfinished, number, asked, picture, prefix)
        page = static.html(
            number, asked, thumbnails, classes, fixed=fixed, unsure=unsure, bad=bad, parts=parts
        )
        put("index.html", page)
        put("label_studio.xml", _interface(classes, static.word(unsure), static.word(bad)))
        put("HOWTO.txt", _howto(
            cycle=static.name(number),
            count=static.images(len(asked)),
            classes=_about_classes(classes, fixed),
            unsure=" or ".join(unsure),
            bad=" or ".join(bad),
            parts=_about_parts(parts),
            mode="local" if local else "embed",
            images=images_folder.resolve(),
            root=_root(images_folder, label_studio_root),
        ))  # fmt: skip
    return target


@contextlib.contextmanager
def _whole(workdir: pathlib.Path, target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill that becomes `target` at the end, or nothing."""
    # Not in to_label, which Label Studio may be searching.
    unfinished = workdir / f".{target.name}.tmp"
    with files.named(target):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            target.parent.mkdir(exist_ok=True)
            unfinished.rename(target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def escape_formula(text: str) -> str:
    """A cell of a CSV that no spreadsheet takes for a formula (CWE-1236)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def served(images_folder: pathlib.Path, root: str | os.PathLike[str]) -> str:
    """Label Studio's address of the folder of images, to which a file's quoted path is added.

    `root` is its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT; empty: the folder above the images.
    Raises UserError where it is not above them: Label Studio serves nothing else.
    """
    images, top = images_folder.resolve(), _root(images_folder, root)
    if top not in images.parents:
        raise UserError(
            f"folder.label_studio_root={root} is not above the folder of images {images}: give a"
            " folder above it, or leave it empty for the next one"
        )
    below = os.fsencode(images.relative_to(top))
    return f"/data/local-files/?d={urllib.parse.quote(below)}/"


def _root(images_folder, root):
    images = images_folder.resolve()
    return pathlib.Path(root).expanduser().resolve() if os.fspath(root) else images.parent


def _printable(text):
    return text.encode("utf-8", "replace").decode()


# The list


def _lists(asked: Sequence[RequestItem], parts: int) -> Iterator[tuple[str, str]]:
    """(name, text) of the whole list and of its parts, which take turns so that all are alike."""
    rows = [
        (str(rank), one.id, one.file, "", "", f"guess: {one.guess}" if one.guess else "")
        for rank, one in enumerate(asked)
    ]
    yield "to_label.csv", _as_csv(rows)
    if parts > 1:
        for part in range(parts):
            yield f"to_label_{part + 1}of{parts}.csv", _as_csv(rows[part::parts])


def _as_csv(rows: Iterable[Sequence[str]]) -> str:
    return "".join(",".join(map(_cell, row)) + "\n" for row in [FIELDS, *rows])


def _cell(text):
    text = escape_formula(text)
    # Python 3.11's csv does not quote a lone CR.
    return '"' + text.replace('"', '""') + '"' if re.search('[",;\t\r\n]', text) else text


# Label Studio


def _write_tasks(folder, number, asked, picture, prefix):
    """label_studio.json, picture by picture as they may be many; returns those of the page."""
    side = static.side(len(asked))
    thumbnails = []
    with (folder / "label_studio.json").open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for rank, one in enumerate(asked):
            jpeg = _shown(picture, one.path, side)
            thumbnails.append(jpeg)
            if prefix:
                image = prefix + urllib.parse.quote(one.file)
            else:
                large = jpeg if side == _EMBEDDED else _shown(picture, one.path, _EMBEDDED)
                image = static.uri(large) if large else _NOTHING
            task = _task(number, one, image, (rank + 0.5) / len(asked))
            file.write((",\n" if rank else "\n") + json.dumps(task))
        file.write("\n]\n")
    return thumbnails


def _shown(picture, path, pixels):
    """The picture; b"" where its file has gone since it was picked: people say what it is then."""
    try:
        return picture(path, pixels)
    except OSError:
        return b""


def _task(number: int, one: RequestItem, image: str, score: float) -> dict[str, Any]:
    """One task; Label Studio labels the lowest score first."""
    choice = {
        "from_name": "label", "to_name": "image", "type": "choices",
        "value": {"choices": [one.guess]},
    }  # fmt: skip
    prediction = {
        "model_version": f"tavaal_{static.name(number)}",
        "score": score,
        "result": [choice] if one.guess else [],
    }
    data = {"image": image, "tavaal_id": one.id, "file": one.file}
    data["tavaal_request"] = static.name(number)
    return {"data": data, "predictions": [prediction]}


def _interface(classes: Sequence[str], unsure: str, bad: str) -> str:
    """label_studio.xml: what one sees of a task."""
    quoted = lambda text: '"' + saxutils.escape(text, {'"': "&quot;"}) + '"'
    # A class that is a digit has its own key, as on the page.
    spare = iter([key for key in "123456789" if key not in classes])
    keys = [name if name in [*"0123456789"] else next(spare, "") for name in classes]
    choices = [
        f"    <Choice value={quoted(name)}{f' hotkey={quoted(key)}' if key else ''}/>\n"
        for name, key in zip(classes, keys, strict=True)
    ]
    choices += [f"    <Choice value={quoted(name)}/>\n" for name in (unsure, bad) if name]
    return (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true"/>\n'
        '  <Choices name="label" toName="image" choice="single" showInLine="true">\n'
        f"{''.join(choices)}"
        "  </Choices>\n"
        "</View>\n"
    )


# HOWTO.txt


def _howto(**said: object) -> str:
    frame = string.Template(pathlib.Path(__file__).with_name("howto.txt").read_text("utf-8"))
    return _printable(frame.substitute(said))


def _about_classes(classes, fixed):
    names = ", ".join(classes)
    text = f"Classes so far: {names}. Another name makes a new class."
    if fixed:
        text = f"Classes: {names}. Any other is refused."
    elif not names:
        text = "There are no classes yet: the names that you write become the classes."
    return textwrap.fill(text, 98, subsequent_indent="  ", break_long_words=False)


def _about_parts(parts):
    if parts == 1:
        return (
            "--config.folder.request_parts=3 shares the next list out as to_label_1of3.csv and so"
            " on."
        )
    return (
        f"The list is shared out as to_label_1of{parts}.csv to to_label_{parts}of{parts}.csv; the"
        ' page has a menu "Part".'
    )
