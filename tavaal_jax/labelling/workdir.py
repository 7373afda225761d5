"""The files of a workdir where people label, beside those of a study.

`images.csv` and `classes.txt` only grow. `cycles/cycle_<c>/` holds what a cycle asked for and what
it is trained on; nobody but the program reads it, so that people may edit everything else.
"""

import contextlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.frozen import Frozen, LabelRow, RequestRow
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.requests import escape_formula
from tavaal_jax.report import files

_LABELS = ("id", "file", "label", "split", "annotator", "source", "cycle", "file_name")


def unescape_formula(text: str) -> str:
    """A cell as it was before it was guarded."""
    return text[1:] if text[:1] == "'" and escape_formula(text[1:]) == text else text


class LabellingWorkdir:
    """A workdir where people label."""

    def __init__(self, folder: pathlib.Path):
        """`folder` is there already."""
        self.folder = folder
        self.answers = folder / "labels"
        """Where people drop what they have labelled."""
        self.model = folder / "model"

    def begin(self) -> None:
        """Makes the folders that people look for."""
        with files.named(self.answers):
            self.answers.mkdir(exist_ok=True)

    # What there is

    def images(self) -> tuple[Image, ...]:
        """Rows of images.csv."""
        path = self.folder / "images.csv"
        rows = files.read_csv(path)
        try:
            return tuple(
                Image(
                    row["id"], unescape_formula(row["file"]), row["status"], int(row["width"]),
                    int(row["height"]), row["mode"],
                )
                for row in rows
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error!r}): put back a copy") from error

    def write_images(self, images: Sequence[Image]) -> None:
        """images.csv, where it has changed."""
        rows = [
            {"index": index, **image._asdict(), "file": escape_formula(image.file)}
            for index, image in enumerate(images)
        ]
        self._write(self.folder / "images.csv", files.as_csv(("index", *Image._fields), rows))

    def classes(self) -> tuple[str, ...]:
        """Names in classes.txt, in the order of their numbers."""
        path = self.folder / "classes.txt"
        try:
            text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
            return tuple(line for line in text.splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read ({error}): put back a copy") from error

    def write_classes(self, classes: Sequence[str]) -> None:
        """classes.txt"""
        self._write(self.folder / "classes.txt", "".join(f"{name}\n" for name in classes))

    # Cycles

    def last(self) -> int:
        """The last cycle that something was asked for; -1 before the first."""
        numbers = [
            int(path.parent.name.removeprefix("cycle_"))
            for path in self.folder.glob("cycles/cycle_*/asked.csv")
        ]
        return max(numbers, default=-1)

    def cycle(self, number: int) -> pathlib.Path:
        """Folder of what a cycle asked for and is trained on."""
        return self.folder / "cycles" / f"cycle_{number:03d}"

    def asked(self, number: int) -> list[RequestRow]:
        """What a cycle has asked for, in the order of the request."""
        path = self.cycle(number) / "asked.csv"
        rows = files.read_csv(path)
        try:
            return [
                RequestRow(
                    row["id"], row["role"], float(row["score"] or "nan"), row.get("said") or ""
                )
                for row in rows
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error!r}): put back a copy") from error

    def write_asked(self, number: int, asked: Sequence[RequestRow]) -> None:
        """asked.csv: from here on the cycle before is done."""
        rows = [
            {"rank": rank, **wish._asdict(), "score": _score(wish.score)}
            for rank, wish in enumerate(asked)
        ]
        path = self.cycle(number) / "asked.csv"
        with files.named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, files.as_csv(("rank", *RequestRow._fields), rows))

    def freeze(self, number: int, frozen: Frozen, config: ConfigDict) -> None:
        """Keeps what a cycle is trained on; config.json comes last and says that it is there."""
        path = self.cycle(number)
        rows = [{**row._asdict(), "label": escape_formula(row.label)} for row in frozen.rows]
        files.write(path / "labels.csv", files.as_csv(LabelRow._fields, rows))
        files.write(path / "images.txt", "".join(f"{name}\n" for name in frozen.images))
        record = {**files.running(config), "classes": list(frozen.classes)}
        files.write(path / "config.json", json.dumps(record, indent=2) + "\n")

    def frozen(self, number: int) -> tuple[Frozen, dict[str, Any]] | None:
        """What a cycle is trained on, and its config; None where people are still answering."""
        path = self.cycle(number)
        record = files.read_config(path)
        if record is None:
            return None
        written = files.read_csv(path / "labels.csv")
        try:
            rows = tuple(
                LabelRow(**{**row, "label": unescape_formula(row["label"])}) for row in written
            )
            images = tuple((path / "images.txt").read_text().splitlines())
            return Frozen(images, tuple(record["classes"]), rows), record
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error!r}): put back a copy") from error

    def thaw(self, number: int) -> None:
        """Takes `freeze` back: the cycle begins anew, with what is known and given then."""
        path = self.cycle(number) / "config.json"
        with files.named(path):
            path.unlink(missing_ok=True)

    def is_trained(self, number: int) -> bool:
        """Whether a cycle has been through, the request that follows aside."""
        return (self.cycle(number) / "trained.json").exists()

    def trained(self, number: int) -> dict[str, Any]:
        """What was said of a cycle that is through."""
        path = self.cycle(number) / "trained.json"
        try:
            record: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}): put back a copy") from error
        return record

    def write_trained(self, number: int, record: Mapping[str, Any]) -> None:
        """Says that a cycle is through."""
        files.write(self.cycle(number) / "trained.json", json.dumps(record, indent=2) + "\n")

    # What people keep

    def write_labels(self, number: int, frozen: Frozen, names: Mapping[str, str]) -> None:
        """labels.csv: what cycle `number` has adopted; `names` are files by id."""
        needed = ("id", "label", "split", "cycle")
        before = {row["id"]: row for row in self.table("labels.csv", needed)}
        rows = []
        for row in frozen.rows:
            if row.split == "reserved" or (row.split == "absent" and not row.label):
                continue
            old = before.get(row.id)
            same = (
                old is not None
                and unescape_formula(old["label"]) == row.label
                and old["split"] == row.split
            )
            file = escape_formula(names.get(row.id, ""))
            rows.append(
                {
                    **row._asdict(),
                    "label": escape_formula(row.label),
                    "file": file,
                    "file_name": file,
                    "annotator": escape_formula(row.annotator),
                    "source": escape_formula(row.source),
                    "cycle": old["cycle"] if old is not None and same else number,
                }
            )
        self._write(self.folder / "labels.csv", files.as_csv(_LABELS, rows))

    def table(self, name: str, needed: Sequence[str]) -> list[dict[str, str]]:
        """Rows of a table that people may have opened and saved; none where it cannot be read."""
        with contextlib.suppress(UserError):
            rows = files.read_csv(self.folder / name)
            if all(row.get(column) is not None for row in rows for column in needed):
                return rows
        return []

    def write_status(self, **record: Any) -> None:
        """status.json"""
        self._write(self.folder / "status.json", json.dumps(record, indent=2) + "\n")

    def status(self) -> dict[str, Any]:
        """What status.json says; nothing where it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            record: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
            return record
        return {}

    def replace_model(self, new: pathlib.Path) -> None:
        """Puts the folder `new` in the place of model/."""
        old = self.folder / ".model.old"
        with files.named(self.model):
            shutil.rmtree(old, ignore_errors=True)
            if self.model.exists():
                os.rename(self.model, old)
            os.rename(new, self.model)
            shutil.rmtree(old, ignore_errors=True)

    def _write(self, path: pathlib.Path, text: str) -> None:
        """A file that people may be reading: left alone where nothing has changed."""
        if not path.exists() or path.read_text() != text:
            files.write(path, text)


def _score(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.9g}"


def differences(
    before: dict[str, Any], config: ConfigDict, keys: Sequence[str] | None = None
) -> list[str]:
    """Keys that differ from a cycle's config: those that change results, or `keys` alone."""
    if keys is None:
        return files.differences(before, config)
    old, new = configs.flat(before["config"]), configs.flat(configs.plain(config))
    return [f"{k} ({old.get(k)} -> {new.get(k)})" for k in keys if old.get(k) != new.get(k)]
