"""Results, picks and diagnostics of many trials in a few small files, from which trials go on.

`condition` tells studies apart, `method` is the name in the tables. A trial that is cut short goes
on from its rows alone, on any machine: every cycle starts from fresh weights.
"""

import csv
import gzip
import pathlib
from typing import Any, NamedTuple

from tavaal_jax.report import diagnostics, files

FIELDS = {
    # A trial writes picks last: read first, they are never ahead of the rest.
    "picks": ("cycle", "rank", "index", "id", "score"),
    "results": ("cycle", "labelled", "metric", "value"),
    "diagnostics": diagnostics.FIELDS,
    "class_iou": ("cycle", "labelled", "class", "iou"),
}
Row = dict[str, Any]


class Place(NamedTuple):
    """One trial."""

    condition: str
    method: str
    trial: int


class Packed:
    """Rows of trials by their place, read from and written to files of a folder."""

    def __init__(self, folder: pathlib.Path, ending: str = ".csv.gz"):
        self._folder, self._ending = folder, ending
        self.rows: dict[str, dict[Place, list[Row]]] = {kind: {} for kind in FIELDS}
        self.read(folder)

    def read(self, folder: pathlib.Path) -> None:
        """Adds what is in a folder; its trials take the place of those that are here."""
        for kind in FIELDS:
            found: dict[Place, list[Row]] = {}
            for path in (folder / f"{kind}.csv.gz", folder / f"{kind}.csv"):
                if path.exists():
                    data = path.read_bytes()
                    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
                    for row in csv.DictReader(text.splitlines()):
                        place = Place(row["condition"], row["method"], int(row["trial"]))
                        found.setdefault(place, []).append(row)
            self.rows[kind] |= found

    def cycles(self, place: Place) -> int:
        """Number of cycles of which there are results."""
        return len({row["cycle"] for row in self.rows["results"].get(place, [])})

    def take(self, place: Place, folder: pathlib.Path) -> None:
        """Takes over the files in a trial's folder, unless more is here."""
        found = {kind: files.read_csv(folder / f"{kind}.csv") for kind in FIELDS}
        if len({row["cycle"] for row in found["results"]}) >= self.cycles(place):
            for kind, rows in found.items():
                self.rows[kind][place] = rows

    def give(self, place: Place, name: str, folder: pathlib.Path) -> None:
        """Writes a trial's files into its folder, unless it is there; `name` is its method's."""
        if folder.exists() or not self.cycles(place):
            return
        own = {"method": name, "trial": place.trial}
        for kind, fields in FIELDS.items():
            names = ("method", "trial", *fields) if kind == "results" else fields
            rows = self.rows[kind].get(place, [])
            lines = [{k: (row | own)[k] for k in names} for row in rows]
            folder.mkdir(parents=True, exist_ok=True)
            if rows:
                files.write(folder / f"{kind}.csv", files.as_csv(names, lines))

    def drop_picks(self, cycles: int) -> None:
        """Forgets the picks of trials that have results of all cycles: nothing goes on from them.

        What was picked is in the diagnostics.
        """
        picks = self.rows["picks"]
        self.rows["picks"] = {p: rows for p, rows in picks.items() if self.cycles(p) < cycles}

    def all(self, kind: str) -> list[Row]:
        """Rows of all trials, with their place."""
        return [
            {**row, **place._asdict()}
            for place, rows in sorted(self.rows[kind].items()) for row in rows
        ]  # fmt: skip

    def write(self) -> None:
        """Writes the files."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for kind, fields in FIELDS.items():
            if not any(self.rows[kind].values()) and kind == "class_iou":
                continue  # There are no maps.
            names = (*Place._fields, *fields)
            rows = [{name: row[name] for name in names} for row in self.all(kind)]
            data = files.as_csv(names, rows).encode()
            if self._ending.endswith(".gz"):
                data = gzip.compress(data, mtime=0)
            files.write(self._folder / f"{kind}{self._ending}", data)
