"""Files that the labelling loop keeps in its workdir, beside those of a study.

`images.csv` and `classes.txt` only grow. `cycles/cycle_<c>/` holds what a cycle asked for and is
trained on; only the program reads it, so that people may edit all other files.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.frozen import Frozen, LabelRow, RequestRow
from tavaal_jax.labelling.images.inventory import Image
from tavaal_jax.labelling.labels.cells import escape_formula, unescape_formula
from tavaal_jax.labelling.page import answer_files
from tavaal_jax.labelling.passed_over import PassedOver, collected
from tavaal_jax.report import files

_ASKED = ("rank", "id", "role", "score", "said")
_CYCLE = re.compile(r"cycle_\d{3,}")
_LABELS = ("id", "file", "label", "split", "annotator", "source", "cycle", "file_name")


class TestScore(TypedDict):
    """Accuracy on the test set of `n` images with its 95 % interval; None without a test set."""

    n: int
    accuracy: float | None
    low: float | None
    high: float | None


class TrainedRecord(TypedDict, total=False):
    """trained.json of a finished cycle: what was trained, or why it was skipped."""

    skipped: str
    method: str
    labelled: int
    test: TestScore


class FrozenCycle(NamedTuple):
    """What a cycle is trained on, and its config.json."""

    frozen: Frozen
    config: dict[str, Any]


class LabellingWorkdir:
    """Reads and writes the files of a labelling loop."""

    def __init__(self, folder: pathlib.Path):
        """`folder` exists already."""
        self.folder = folder
        self.answers = folder / "labels"
        """Where people put their files of labels."""
        self.model = folder / "model"

    def begin(self) -> list[str]:
        """Makes the folder for people's labels; lines about rows that the page has not finished."""
        with files.named(self.answers):
            self.answers.mkdir(exist_ok=True)
            return answer_files.mend(self.answers)

    # Images and classes

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

    def usable_files(self) -> dict[str, str]:
        """File of each image that is ok, by id."""
        return {i.id: i.file for i in self.images() if i.id and i.status == "ok"}

    def write_images(self, images: Sequence[Image]) -> None:
        """Writes images.csv, if it has changed."""
        rows = [
            {"index": index, **image._asdict(), "file": escape_formula(image.file)}
            for index, image in enumerate(images)
        ]
        self._write(self.folder / "images.csv", files.as_csv(("index", *Image._fields), rows))

    def classes(self) -> tuple[str, ...]:
        """Class names in classes.txt, in the order of their numbers."""
        path = self.folder / "classes.txt"
        try:
            text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
            return tuple(name for line in text.splitlines() if (name := line.strip()))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read ({error}): put back a copy") from error

    def write_classes(self, classes: Sequence[str]) -> None:
        """Writes classes.txt."""
        self._write(self.folder / "classes.txt", "".join(f"{name}\n" for name in classes))

    # Cycles

    def last_cycle(self) -> int:
        """Number of the last cycle with a request; -1 before the first."""
        names = [path.parent.name for path in self.folder.glob("cycles/cycle_*/asked.csv")]
        numbers = [int(name.removeprefix("cycle_")) for name in names if _CYCLE.fullmatch(name)]
        return max(numbers, default=-1)

    def others(self) -> tuple[PassedOver, ...]:
        """What lies among the cycles and is none, such as copies of them."""
        names = [path.name for path in self.folder.glob("cycles/*")]
        others = [f"cycles/{name}" for name in names if not _CYCLE.fullmatch(name)]
        return collected(("entries of cycles/ beside the cycles", n) for n in others)

    def cycle_folder(self, number: int) -> pathlib.Path:
        """Folder of a cycle's request and frozen labels."""
        return self.folder / "cycles" / f"cycle_{number:03d}"

    def read_request(self, number: int) -> list[RequestRow]:
        """Images that a cycle asks for, in the order of the request."""
        path = self.cycle_folder(number) / "asked.csv"
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

    def write_request(self, number: int, request: Sequence[RequestRow]) -> None:
        """Writes asked.csv, which ends the cycle before."""
        rows = [
            {
                "rank": rank,
                "id": row.id,
                "role": row.role,
                "score": _score(row.score),
                "said": row.verdict_digest,
            }
            for rank, row in enumerate(request)
        ]
        path = self.cycle_folder(number) / "asked.csv"
        with files.named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, files.as_csv(_ASKED, rows))

    def freeze(
        self, number: int, frozen: Frozen, config: ConfigDict, features: str | None = None
    ) -> None:
        """Stores what a cycle is trained on; config.json is written last and completes it.

        `features` is the digest of what makes features of the images.
        """
        path = self.cycle_folder(number)
        rows = [{**row._asdict(), "label": escape_formula(row.label)} for row in frozen.rows]
        files.write(path / "labels.csv", files.as_csv(LabelRow._fields, rows))
        files.write(path / "images.txt", "".join(f"{name}\n" for name in frozen.images))
        record = {**files.running(config, features=features), "classes": list(frozen.classes)}
        files.write(path / "config.json", json.dumps(record, indent=2) + "\n")

    def frozen(self, number: int) -> FrozenCycle | None:
        """What a cycle is trained on, and its config; None before that is frozen."""
        path = self.cycle_folder(number)
        record = files.read_config(path)
        if record is None:
            return None
        written = files.read_csv(path / "labels.csv")
        try:
            rows = tuple(
                LabelRow(**{**row, "label": unescape_formula(row["label"])}) for row in written
            )
            images = tuple((path / "images.txt").read_text("utf-8").splitlines())
            return FrozenCycle(Frozen(images, tuple(record["classes"]), rows), record)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error!r}): put back a copy") from error

    def thaw(self, number: int) -> None:
        """Undoes `freeze`: the cycle begins anew with the labels and config of that time."""
        path = self.cycle_folder(number) / "config.json"
        with files.named(path):
            path.unlink(missing_ok=True)

    def is_trained(self, number: int) -> bool:
        """Whether a cycle was trained or skipped: its trained.json is there."""
        return (self.cycle_folder(number) / "trained.json").exists()

    def trained(self, number: int) -> TrainedRecord:
        """Reads trained.json of a finished cycle."""
        path = self.cycle_folder(number) / "trained.json"
        try:
            record: TrainedRecord = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}): put back a copy") from error
        return record

    def write_trained(self, number: int, record: TrainedRecord) -> None:
        """Writes trained.json, which ends the training of a cycle."""
        files.write(self.cycle_folder(number) / "trained.json", json.dumps(record, indent=2) + "\n")

    # Files for people

    def write_labels(self, number: int, frozen: Frozen, names: Mapping[str, str]) -> None:
        """Writes labels.csv, the labels of cycle `number`; `names` are the images' files by id."""
        needed = ("id", "label", "split", "cycle")
        before = {row["id"]: row for row in self.table("labels.csv", needed)}
        rows = []
        for row in frozen.rows:
            if not row.label and row.split in ("reserved", "absent", "near_duplicate"):
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
        """Rows of a csv that people may have edited; none where it lacks a `needed` column."""
        with contextlib.suppress(UserError):
            rows = files.read_csv(self.folder / name)
            if all(row.get(column) is not None for row in rows for column in needed):
                return rows
        return []

    def write_status(self, **record: object) -> None:
        """Writes status.json."""
        self._write(self.folder / "status.json", json.dumps(record, indent=2) + "\n")

    def status(self) -> dict[str, object]:
        """Reads status.json; empty where it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            record: dict[str, object] = json.loads((self.folder / "status.json").read_bytes())
            return record
        return {}

    def replace_model(self, new: pathlib.Path) -> None:
        """Replaces model/ by the folder `new`, but for weights of its backbone that lie there."""
        old = self.folder / ".model.old"
        with files.named(self.model):
            if old.exists() and not self.model.exists():
                os.rename(old, self.model)  # A process was killed between the two renames below.
            shutil.rmtree(old, ignore_errors=True)
            if self.model.exists():
                _keep_weights(self.model, new)
                os.rename(self.model, old)
            os.rename(new, self.model)
            shutil.rmtree(old, ignore_errors=True)

    def _write(self, path: pathlib.Path, text: str) -> None:
        """Writes a file that people may be reading, unless it is unchanged."""
        if not path.exists() or path.read_bytes() != text.encode():
            files.write(path, text)


def _keep_weights(old: pathlib.Path, new: pathlib.Path) -> None:
    """Gives a model's folder the file of its backbone's weights that was put into the old one."""
    record = json.loads((new / "model.json").read_bytes()).get("backbone") or {}
    name, sha256 = record.get("file"), record.get("sha256")
    if not name or (new / name).exists() or not (old / name).is_file():
        return
    with (old / name).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            return  # It is of another backbone.
    try:
        os.link(old / name, new / name)
    except OSError:  # The disk has no links.
        shutil.copy2(old / name, new / name)


def _score(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.9g}"


def changed_among(record: dict[str, Any], config: ConfigDict, keys: Sequence[str]) -> list[str]:
    """Keys among `keys`, with both values, that differ from a config.json's.

    A key that an earlier version did not have had its default.
    """
    default = configs.flat(configs.plain(configs.default()))
    old, new = default | configs.flat(record["config"]), configs.flat(configs.plain(config))
    return [f"{k} ({old.get(k)} -> {new.get(k)})" for k in keys if old.get(k) != new.get(k)]
