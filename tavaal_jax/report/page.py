"""Writes report.html: tables, figures, picks and times of a study, in one file without network.

`page.html` is its template; text from files is escaped by `markup`.
"""

import datetime
import io
import json
import pathlib
import string
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from tavaal_jax import config as configs
from tavaal_jax import data
from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.errors import UserError
from tavaal_jax.report import (
    files,
    hint,
    markup,
    records,
    statistics,
    summary,
    thumbnails,
    times,
)
from tavaal_jax.report.files import ConfigRecord
from tavaal_jax.report.plots import figures
from tavaal_jax.report.summary import Cells

NAME = "report.html"


class _Study(NamedTuple):
    """Content of a study's folder."""

    folder: pathlib.Path
    record: ConfigRecord
    """config.json"""
    rows: list[records.Result]
    diagnostics: list[records.DiagnosticsRow]
    dataset: data.Dataset | None
    faults: list[UserError]
    """Errors of files that could not be read; sections add to them."""

    @property
    def config(self) -> ConfigRecord:
        """The study's config as JSON has it."""
        found: ConfigRecord = self.record["config"]
        return found

    @property
    def methods(self) -> list[str]:
        """Names of methods in the order of results.csv."""
        return list(dict.fromkeys(row["method"] for row in self.rows))


def write(
    folder: pathlib.Path, dataset: data.Dataset | None = None, data_dir: str | None = None
) -> str:
    """Writes report.html into a study's folder and returns its name.

    Its figures are those that lie in the folder. The picks' images need the data set: `dataset`, or
    what is prepared in `data_dir` (the study's own by default). Raises UserError where there are no
    results; and, once the page is written without it, for anything but diagnostics that is damaged.
    """
    record, rows = records.of_study(folder)
    files.check_readable(folder, record, "make its page")
    diagnostics, damaged = records.all_diagnostics(folder)
    faults: list[UserError] = []
    if dataset is None:
        try:
            dataset = figures.prepared(record, data_dir)
        except UserError as error:
            faults.append(error)
    study = _Study(folder, record, rows, diagnostics, dataset, faults)
    sections = {
        "Results": _results(study),
        "Would more labels help?": _hints(study),
        "Figures": _figures(study),
        "What was picked": _picks(study),
        "Diagnostics of the picks": _diagnosed(study),
        "Times": _times(study),
        "Config": _config(study),
    }
    sections = {heading: text for heading, text in sections.items() if text}
    frame = string.Template(pathlib.Path(__file__).with_name("page.html").read_text("utf-8"))
    page = frame.substitute(
        title=markup.text(_title(study)),
        lead=_lead(study),
        facts=_facts(study),
        notice=_notice([*damaged, *faults]),
        contents="\n".join(
            f'<li><a href="#part-{number}">{heading}</a></li>'
            for number, heading in enumerate(sections, 1)
        ),
        parts="\n".join(
            f'<section id="part-{number}">\n<h2>{heading}</h2>\n{text}\n</section>'
            for number, (heading, text) in enumerate(sections.items(), 1)
        ),
    )
    files.write(folder / NAME, page)
    if faults:
        raise faults[0]
    return NAME


# The head


def _title(study: _Study) -> str:
    trials = len({row["trial"] for row in study.rows})
    counts = [
        f"{number} {name}{'' if number == 1 else 's'}"
        for number, name in ((len(study.methods), "method"), (trials, "trial"))
    ]
    return f"{study.config['dataset']}: {', '.join(counts)}"


def _lead(study: _Study) -> str:
    labelled = [row["labelled"] for row in study.rows]
    alike = "A trial is one such run; all methods start from the same labels in it"
    if BASELINE in study.methods:
        alike += f" and are compared with <code>{BASELINE}</code>, which picks blindly"
    return (
        "Which examples are worth labelling next? A network learns from a few labels, a method"
        f" picks {study.config['budget']} more examples to label, and so on, here from"
        f" {min(labelled)} to {max(labelled)} labels. {alike}."
    )


def _facts(study: _Study) -> str:
    record, versions = study.record, study.record.get("versions", {})
    newest = datetime.datetime.fromtimestamp(times.newest(study.folder), datetime.UTC)
    facts = {
        "Data set": markup.text(study.config["dataset"]),
        "Methods": ", ".join(f"<code>{markup.text(name)}</code>" for name in study.methods),
        "Trials": markup.marked(times.progress(study.config, study.rows)),
        "Newest result": f"{newest:%Y-%m-%d %H:%M} UTC",
        "Versions": markup.text(
            ", ".join(f"{name} {version}" for name, version in versions.items())
        ),
        "Git revision": f"<code>{markup.text(record.get('git_revision') or 'unknown')}</code>",
    }
    if record.get("data"):
        facts["Data"] = f"SHA-256 <code>{markup.text(record['data'])}</code>"
    earlier = dict.fromkeys(str(part.get("git_revision")) for part in record.get("earlier", ()))
    if earlier:
        codes = ", ".join(f"<code>{markup.text(revision)}</code>" for revision in earlier)
        facts["Earlier parts"] = f"with another config or other versions, at {codes}"
    return "\n".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts.items())


def _notice(faults: Sequence[UserError]) -> str:
    if not faults:
        return ""
    return f'<div class="notice"><p>Left out:</p><ul>\n{markup.items(faults)}\n</ul></div>'


# The sections, in the page's order; an empty text where there is nothing to show


def _results(study: _Study) -> str:
    table = statistics.summary(study.rows)
    parts = [f"<p>{markup.text(summary.preface(study.rows))}</p>"]
    compared = any("difference" in row for row in table)
    if compared:
        parts.append(
            f"<p>Differences to <code>{BASELINE}</code> are paired by trial: mean, 95 % interval,"
            " p of Wilcoxon's signed-rank test by Holm over all differences of the table."
            " Labels saved: how many fewer reach the mean that"
            f" <code>{BASELINE}</code> has at the end.</p>"
        )
    for metric in dict.fromkeys(row["metric"] for row in study.rows):
        tables = [
            ("over the whole curve", summary.overall(table, metric), ""),
            ("mean ± standard deviation per number of labels", summary.means(table, metric), ""),
        ]
        if compared:
            head = f"difference to {BASELINE} per number of labels"
            tables.append((head, summary.baseline_differences(table, metric), ""))
        pairs = summary.pairwise(study.rows, metric)
        if pairs.body:
            tables.append(("methods against each other", pairs, summary.OF_PAIRS))
        for head, cells, note in tables:
            label = f"Test {metric}: {head}"
            parts.append(f"<h3>{markup.text(label)}</h3>")
            if note:
                parts.append(f"<p>{markup.text(note)}</p>")
            parts.append(markup.table(cells, label))
    return "\n".join(parts)


def _hints(study: _Study) -> str:
    lines = hint.lines(study.rows)
    if not lines:
        return "<p>There are too few points of a curve to say.</p>"
    return (
        f"<p>What the next labels would bring. {markup.text(summary.OF_HINTS)}</p>\n"
        f'<ul class="sentences">\n{markup.items(lines)}\n</ul>'
    )


def _figures(study: _Study) -> str:
    parts = []
    for name, caption in figures.FIGURES.items():
        path = study.folder / name
        if name == "picks.png" or not path.exists():
            continue  # The picks have a part of their own.
        png = path.read_bytes()
        try:
            with Image.open(io.BytesIO(png)) as image:
                image.load()
                width, height = image.size
        except OSError:
            mend = "python -m tavaal_jax.report.plots draws it again"
            study.faults.append(UserError(f"{path} is no PNG: {mend}"))
            continue
        natural = round(width * 96 / 120)  # They are drawn with 120 dots per inch.
        parts.append(
            f"<figure>\n<figcaption>{markup.text(caption)}</figcaption>\n"
            f'<div class="scroll"><img class="chart" style="--natural:{natural}px" width="{width}"'
            f' height="{height}" alt="Chart. {markup.text(caption)}" src="{markup.uri(png)}"></div>'
            "\n</figure>"
        )
    if not parts:
        return ""
    text = "A method's colour is that of its dot in the tables; numbers are those of the paper"
    return "\n".join([f"<p>{text} (Kim et al., CVPR 2021, arXiv 2002.04709).</p>", *parts])


def _picks(study: _Study) -> str:
    dataset = study.dataset
    if dataset is None:
        return "<p>The images are not at hand here; picks.csv of each trial names its picks.</p>"
    if len(dataset.shape) == 1:
        return ""  # Features have no picture; points of the plane have a figure.
    chosen, faults = thumbnails.choices(study.folder, dataset)
    study.faults.extend(faults)
    return thumbnails.show(chosen, dataset, study.rows) if chosen else ""


def _diagnosed(study: _Study) -> str:
    rows = study.diagnostics
    if not rows:
        return ""
    label = "The picks judged by the true labels, which no method sees"
    parts = [
        f"<p>{label}. R(x) is the loss that the Ranker predicts, D tells labelled from unlabelled."
        f" {markup.text(summary.OF_CHOICES)}</p>"
    ]
    parts.append(markup.table(summary.diagnosed(rows, summary.DIAGNOSED), label))
    if any(row.get("picks_spread") for row in rows):
        label = "Picks on the plane"
        parts += [f"<h3>{label}</h3>", f"<p>{markup.text(summary.OF_THE_PLANE)}</p>"]
        parts.append(markup.table(summary.diagnosed(rows, summary.PLANE), label))
        compared = summary.claims(rows)
        if compared.body:
            parts.append(markup.table(compared, f"{label}, compared"))
    return "\n".join(parts)


def _times(study: _Study) -> str:
    cells = times.table(study.folder)
    if not cells.body:
        return ""
    return (
        "<p>Seconds of one trial, all its cycles together: means over trials. A method's programs"
        " are compiled in the first trial that a process runs of it, and those seconds are inside:"
        " the last two columns tell the first trial from the mean of the later ones.</p>\n"
        + markup.table(cells, "Seconds per trial")
    )


def _config(study: _Study) -> str:
    now, usual = configs.flat(study.config), configs.flat(configs.plain(configs.default()))
    about = {name: configs.KEYS[name].comment if name in configs.KEYS else "" for name in now}
    changed = [
        [name, _value(value), _value(usual[name]) if name in usual else "-", about[name]]
        for name, value in now.items()
        if name not in usual or value != usual[name]
    ]
    every = [[name, _value(value), about[name]] for name, value in now.items()]
    head = ["key", "value", "default", "meaning"]
    differing = Cells(head, changed)
    return (
        "<p>What differs from the defaults:</p>\n"
        + markup.table(differing, "Keys that differ from the defaults", "words")
        + "\n<details>\n<summary>All keys</summary>\n"
        + markup.table(Cells([*head[:2], head[3]], every), "All keys", "words")
        + "\n</details>"
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
