"""Writes a request: a folder with a list, the labelling page and Label Studio's tasks."""

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
from typing import TypedDict
from xml.sax import saxutils

from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.labels.cells import escape_formula
from tavaal_jax.labelling.page import static
from tavaal_jax.labelling.page.static import RequestItem
from tavaal_jax.report import files

FOLDER = "to_label"
FIELDS = ("rank", "id", "file", "label", "annotator", "note")
_EMBEDDED = 512  # pixels of the longer side of a picture within a task
# One transparent pixel: a task must have a picture.
_NO_PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

Preview = Callable[[pathlib.Path, int], bytes]
"""(file, longest side in pixels) -> JPEG; raises OSError where the file cannot be shown."""


def request_folder(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """Folder of a cycle's request in a workdir."""
    return workdir / FOLDER / static.request_name(number)


def write(
    workdir: pathlib.Path,
    number: int,
    items: Sequence[RequestItem],
    *,
    classes: Sequence[str],
    unsure: Sequence[str],
    bad: Sequence[str],
    preview: Preview,
    label_studio_images: str,
    label_studio_root: str | os.PathLike[str],
    images_folder: pathlib.Path,
    part_count: int = 1,
    fixed: bool = False,
    order: Sequence[int] | None = None,
) -> pathlib.Path:
    """Writes a request into a workdir, whole or not at all, and returns its folder.

    An existing request is not touched: people may have filled in its list. Unless `fixed`, people
    may add classes. The page shows the items in `order`. The same arguments give the same bytes.
    """
    target = request_folder(workdir, number)
    if target.exists():
        return target
    is_local = label_studio_images == "local"
    prefix = local_files_prefix(images_folder, label_studio_root) if is_local else ""
    # Names that are not UTF-8 cannot be written as they are; the id identifies the image.
    items = [item._replace(file=_printable(item.file)) for item in items]
    part_count = max(1, min(part_count, len(items)))
    with _new_folder(workdir, target) as unfinished:

        def put(name: str, text: str, encoding: str = "utf-8") -> None:
            (unfinished / name).write_bytes(text.encode(encoding))

        for name, text in _lists(items, part_count):
            put(name, text, "utf-8-sig")
        thumbnails = _write_tasks(unfinished, number, items, preview, prefix)
        page = static.page_html(
            number, items, thumbnails, classes, fixed=fixed, unsure=unsure, bad=bad,
            part_count=part_count, order=order,
        )  # fmt: skip
        put("index.html", page)
        shown = static.shown_word(unsure), static.shown_word(bad)
        put("label_studio.xml", _interface(classes, *shown))
        put("HOWTO.txt", _howto(
            cycle=static.request_name(number),
            count=static.image_count(len(items)),
            classes=_about_classes(classes, fixed),
            unsure=" or ".join(unsure),
            bad=" or ".join(bad),
            parts=_about_parts(part_count),
            mode="local" if is_local else "embed",
            images=_utf8(images_folder.resolve()),
            root=_utf8(_root(images_folder, label_studio_root)),
        ))  # fmt: skip
    return target


@contextlib.contextmanager
def _new_folder(workdir: pathlib.Path, target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that becomes `target` at the end of the context, unless it raises."""
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


def local_files_prefix(images_folder: pathlib.Path, root: str | os.PathLike[str]) -> str:
    """URL of the folder of images in Label Studio, which a file's quoted path completes.

    `root` is LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT; empty: the folder above the images. Raises
    UserError where it is not above them: Label Studio serves only what is below it.
    """
    images, top = images_folder.resolve(), _root(images_folder, root)
    if top not in images.parents:
        raise UserError(
            f"folder.label_studio_root={root} is not above the folder of images {images}: give a"
            " folder above it, or leave it empty for the next one"
        )
    below = os.fsencode(images.relative_to(top))
    return f"/data/local-files/?d={urllib.parse.quote(below)}/"


def _root(images_folder: pathlib.Path, root: str | os.PathLike[str]) -> pathlib.Path:
    images = images_folder.resolve()
    if not os.fspath(root):
        return images.parent
    return user_path(root, "folder.label_studio_root").resolve()


def _utf8(path: pathlib.Path) -> str:
    """A path for a text file, whatever the locale."""
    return os.fsencode(path).decode("utf-8", "replace")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


# The list


def _lists(items: Sequence[RequestItem], part_count: int) -> Iterator[tuple[str, str]]:
    """Name and text of the whole list, and of its parts, which take every n-th row."""
    rows = [
        (str(rank), item.id, item.file, "", "", f"guess: {item.guess}" if item.guess else "")
        for rank, item in enumerate(items)
    ]
    yield "to_label.csv", _as_csv(rows)
    if part_count > 1:
        for part in range(part_count):
            yield f"to_label_{part + 1}of{part_count}.csv", _as_csv(rows[part::part_count])


def _as_csv(rows: Iterable[Sequence[str]]) -> str:
    return "".join(",".join(map(_cell, row)) + "\n" for row in [FIELDS, *rows])


def _cell(text: str) -> str:
    text = escape_formula(text)
    # Python 3.11's csv does not quote a lone CR, and blanks at an end would be lost.
    is_quoted = re.search('[",;\t\r\n]', text) or text != text.strip()
    return '"' + text.replace('"', '""') + '"' if is_quoted else text


# Label Studio


def _write_tasks(
    folder: pathlib.Path,
    number: int,
    items: Sequence[RequestItem],
    preview: Preview,
    prefix: str,
) -> list[bytes]:
    """Writes label_studio.json image by image, to save memory; returns the page's thumbnails."""
    pixels = static.thumbnail_pixels(len(items))
    thumbnails = []
    with (folder / "label_studio.json").open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for rank, item in enumerate(items):
            jpeg = _jpeg(preview, item.path, pixels)
            thumbnails.append(jpeg)
            if prefix:
                image = prefix + urllib.parse.quote(item.file)
            else:
                large = jpeg if pixels == _EMBEDDED else _jpeg(preview, item.path, _EMBEDDED)
                image = static.data_uri(large) if large else _NO_PICTURE
            task = _task(number, item, image, (rank + 0.5) / len(items))
            file.write((",\n" if rank else "\n") + json.dumps(task))
        file.write("\n]\n")
    return thumbnails


def _jpeg(preview: Preview, path: pathlib.Path, pixels: int) -> bytes:
    """Preview of an image; b"" where its file has gone since it was picked."""
    try:
        return preview(path, pixels)
    except OSError:
        return b""


class _Task(TypedDict):
    """A task of Label Studio with the model's prediction."""

    data: dict[str, str]
    predictions: list[dict[str, object]]


def _task(number: int, item: RequestItem, image: str, score: float) -> _Task:
    """A task of Label Studio, which shows the lowest score first."""
    choice = {
        "from_name": "label", "to_name": "image", "type": "choices",
        "value": {"choices": [item.guess]},
    }  # fmt: skip
    prediction: dict[str, object] = {
        "model_version": f"tavaal_{static.request_name(number)}",
        "score": score,
        "result": [choice] if item.guess else [],
    }
    data = {"image": image, "tavaal_id": item.id, "file": item.file}
    data["tavaal_request"] = static.request_name(number)
    return {"data": data, "predictions": [prediction]}


def _interface(classes: Sequence[str], unsure: str, bad: str) -> str:
    """Text of label_studio.xml, Label Studio's labelling interface."""
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


def _howto(**values: object) -> str:
    template = string.Template(pathlib.Path(__file__).with_name("howto.txt").read_text("utf-8"))
    return _printable(template.substitute(values))


def _about_classes(classes: Sequence[str], fixed: bool) -> str:
    names = ", ".join(classes)
    text = f"Classes so far: {names}. Another name makes a new class."
    if fixed:
        text = f"Classes: {names}. Any other is refused."
    elif not names:
        text = "There are no classes yet: the names that you write become the classes."
    return textwrap.fill(text, 98, subsequent_indent="  ", break_long_words=False)


def _about_parts(part_count: int) -> str:
    if part_count == 1:
        return (
            "--config.folder.request_parts=3 shares the next list out as to_label_1of3.csv and so"
            " on."
        )
    return (
        f"The list is shared out as to_label_1of{part_count}.csv to"
        f' to_label_{part_count}of{part_count}.csv; the page has a menu "Part".'
    )
