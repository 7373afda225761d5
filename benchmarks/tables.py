"""Claim: every table of the READMEs is what the committed files of results say.

    python benchmarks/tables.py [--check] [FILES...]

A table stands between `<!-- table: NAME ARGUMENTS -->` and `<!-- end -->` and is rewritten from
files in benchmarks/studies/; so are the summary.md there, up to what was picked (diagnostics.csv
are not kept). With --check nothing is written: a line tells each table's first cell that is not
what the files say, and the exit code is 1. FILES: the Markdown files, all that have tables if none.
"""

import argparse
import csv
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence

import ablation
import camvid_small
import cifar10_small
import methods_on_features
import numpy as np
import overview
import stop_hint
import which_method

from tavaal_jax.report import records, statistics, summary

ROOT = pathlib.Path(__file__).parent.parent
STUDIES = ROOT / "benchmarks" / "studies"
PICKED = "\n\n## What was picked\n"
_BLOCK = re.compile(r"<!-- table: ([^\n]*?) -->\n(.*?)<!-- end -->", re.DOTALL)


def markdown(head: list[str], body: list[list[str]]) -> list[str]:
    """Lines of a table; columns whose cells are all numbers stand on the right."""
    number = re.compile(r"[-+]?[\d.,]+( ±.*| \(.*| \[.*|\*| %)*|-|")
    right = [all(number.fullmatch(row[c]) for row in body) for c in range(len(head))]
    rule = ["---:" if each else "---" for each in right]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *body)]


def read(path: str) -> list[dict[str, str]]:
    """Rows of a CSV file below studies/."""
    with (STUDIES / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def whole(path: str) -> list[str]:
    """All of a CSV file, as it is."""
    rows = read(path)
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


def speed(machine: str) -> list[str]:
    """Times of ours and of the peer on one machine, from speed/steps.csv."""
    rows = [row for row in read("speed/steps.csv") if row["machine"] == machine]
    head = ["command", "ours", "peer", "n", "ratio"]
    return markdown(head, [[row[name] for name in head] for row in rows])


def speedup() -> list[str]:
    """Times of PyTorch over ours on each machine, of the rows of speed/steps.csv with a name."""
    body: dict[str, list[str]] = {}
    machines = ("cpu", "gpu")
    for row in read("speed/steps.csv"):
        if row["name"]:
            cells = body.setdefault(row["name"], [""] * (2 * len(machines)))
            at = 2 * machines.index(row["machine"])
            cells[at : at + 2] = row["ratio"], row["n"]
    return markdown(["", "CPU", "n", "GPU", "n"], [[name, *row] for name, row in body.items()])


def people() -> list[str]:
    """Accuracy of people's loop per number of labels, mean of the seeds."""
    rows = read("features/people_clothing.csv")
    counts = list(dict.fromkeys(row["labels"] for row in rows))
    body = []
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        values = [[float(r["accuracy"]) for r in mine if r["labels"] == n] for n in counts]
        body.append([way, *(f"{np.mean(found):.2f}" for found in values)])
    return markdown(["labels", *counts], body)


def gains() -> list[str]:
    """Points of accuracy under the curve that each method gains over random, per data set."""
    found = {name: overview.gains(name) for name in overview.SETS}
    order = sorted(found["digits"], key=lambda m: -found["digits"][m]["difference"])
    body = [
        [f"`{m}`", *(ablation.cell_of(of_set[m], 100, 1) for of_set in found.values())]
        for m in order
    ]
    counts = [f"{label}, n = {found[k]['tavaal']['n']}" for k, label in overview.SETS.items()]
    return markdown(["method", *counts], body)


def scenes() -> list[str]:
    """Mean IoU on drawn scenes, and what share of the picks shows the common street."""
    table = statistics.summary(records.read_results(STUDIES / "scenes"))
    head, body = summary.means(table, "mean_iou")
    streets = {row["method"]: row for row in read("scenes/common_street.csv")}
    shares = [streets[row[0].strip("`")] for row in body]
    cells = [f"{row['share']} % ± {row['deviation']} %" for row in shares]
    rows = [[*row, cell] for row, cell in zip(body, cells, strict=True)]
    return markdown([*head, "picks from the common street"], rows)


def effects(config: str) -> list[str]:
    """What each part of the ablation adds on a data set."""
    return ablation.tables(config)[0]


def variants(config: str) -> list[str]:
    """All variants of the ablation on a data set."""
    return ablation.tables(config)[1]


TABLES: dict[str, Callable[..., list[str]]] = {
    "csv": whole,
    "speed": speed,
    "speedup": speedup,
    "people": people,
    "gains": gains,
    "scenes": scenes,
    "effects": effects,
    "variants": variants,
    "stop_hint": stop_hint.table,
    "features": methods_on_features.table,
    "when": which_method.when,
    "penalty": which_method.penalty,
    **cifar10_small.TABLES,
    **camvid_small.TABLES,
}
"""`{name in a block: function of its arguments -> lines}`."""


def texts() -> list[pathlib.Path]:
    """All Markdown files that may have tables of results."""
    return [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(STUDIES.rglob("*.md"))]


def parts(path: pathlib.Path, text: str) -> Iterator[tuple[str, int, int, str]]:
    """Name, begin and end of each part of a file that is rendered, and what it has to be."""
    for found in _BLOCK.finditer(text):
        name, *arguments = found[1].split()
        if name not in TABLES:
            raise SystemExit(f"{path}: no table is called {name}: give one of {', '.join(TABLES)}")
        yield found[1], *found.span(2), "\n".join(TABLES[name](*arguments)) + "\n"
    if text.count("<!-- table:") != len(_BLOCK.findall(text)):
        raise SystemExit(f"{path}: a table has no end: close each by <!-- end -->")
    if path.name == "summary.md":
        rows = records.read_results(path.parent)
        title = text.partition("\n")[0].removeprefix("# ")
        rendered = summary.markdown(rows, [], title)
        end = text.find(PICKED)
        yield "summary", 0, end + 1 if end > 0 else len(text), rendered


def difference(old: str, new: str) -> str:
    """The first cell that differs; empty where none does."""
    lines = [[[c.strip() for c in x.split("|")] for x in t.splitlines()] for t in (old, new)]
    for number in range(max(map(len, lines))):
        is_, shall = (found[number] if number < len(found) else [] for found in lines)
        for at in range(max(len(is_), len(shall))):
            a, b = (cells[at] if at < len(cells) else "nothing" for cells in (is_, shall))
            if a != b:
                row = next((cell for cell in is_ or shall if cell), "")
                return f'line {number + 1} ("{row}"), cell {max(at, 1)}: "{a}", by the files "{b}"'
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="write nothing, 1 where one differs")
    given = parser.parse_args(arguments)
    code = 0
    for path in given.files or texts():
        text = path.read_text(encoding="utf-8")
        for name, begin, end, shall in reversed(list(parts(path, text))):
            found = difference(text[begin:end], shall)
            if found:
                print(f'{path}, table "{name}", {found}')
                code = int(given.check)
            text = text[:begin] + shall + text[end:]
        if not given.check:
            path.write_text(text, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
