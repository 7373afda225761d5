"""Claim: on features of a frozen backbone, which method is best, and when.

Every method on every data set, paired by trial: starts, and nothing else, are drawn anew in each.

    python benchmarks/methods_on_features.py run clothing.npz cifar10.npz cifar100.npz --trials=20
    python benchmarks/methods_on_features.py report clothing cifar10 cifar100

    python benchmarks/methods_on_features.py run cifar10.npz --settings=1_small,thinned_10_large
    python benchmarks/methods_on_features.py report cifar10 --settings=all

A file has `features [N, F]`, `labels [N]` and `test [N]`, a mask of the images that are not to be
labelled; `tavaal_jax.embed` gives features. `run` runs five trials at a time of all methods, each
trial in a process on one core, in runs/features/<file>[_<setting>]_<first_by>. Run again it
continues, with more --trials or other --methods it adds those; either way a trial is the same to
the byte.

A setting is `[thinned_]<labels a class at the start>_<requests>`: `thinned_` keeps a tenth of the
pool's images of the first half of the classes (the test set stays as it is); 1 or 10 labels a class
on average, drawn at random of all; `small` requests are of one label a class, ten times, `large`
ones of five, five times. Without --settings it is the study that was run first: 2 labels a class,
then 40 at a time. T is the linear head, the same for all methods: it is solved, with its L2 chosen
on the labelled images alone, so there is no learning rate or epoch to tune.

At any time `report` writes the results into studies/features/, and a figure of all; then
`python benchmarks/tables.py` writes the tables. `bounds.py` adds bounds, `which_method.py` compares
methods over all settings.
"""

import argparse
import dataclasses
import gzip
import itertools
import pathlib
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import ablation
import numpy as np

import tavaal_jax
from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.data import Dataset
from tavaal_jax.data.loading import thinned
from tavaal_jax.engine import allocator
from tavaal_jax.report import files, records, statistics
from tavaal_jax.report.plots import style

STUDIES = pathlib.Path(__file__).parent / "studies" / "features"
FEW_CLASSES = 20
METRICS = ("accuracy", "macro_f1")
REQUESTS = {"small": (1, 10), "large": (5, 5)}
"""`{name: (labels a class in a request, number of requests)}`."""
THINNED = 10
_COLUMNS = ("method", "trial", "cycle", "labelled", "metric", "value")


class Setting(NamedTuple):
    """Pool, start and requests of a study."""

    is_thinned: bool
    start: int
    """Labels a class before the first request, on average."""
    requests: str
    """Of `REQUESTS`."""


SETTINGS: dict[str, Setting | None] = {
    f"{'thinned_' * is_thinned}{start}_{requests}": Setting(is_thinned, start, requests)
    for is_thinned in (False, True)
    for start in (1, 10)
    for requests in REQUESTS
}
FIRST_STUDY = ""
SETTINGS[FIRST_STUDY] = None


def stem_of(name: str, setting: str, arguments: argparse.Namespace) -> str:
    """What a study's folder and files are called."""
    return "_".join(filter(None, (name, setting, arguments.first_by)))


def sizes(classes: int, setting: Setting | None) -> tuple[int, int, int]:
    """First labels, labels in a request, cycles.

    Of the first study 2 a class, then 40 at a time up to 300; with many classes 1, 100 up to 500.
    """
    if setting is None:
        return (2 * classes, 40, 8) if classes <= FEW_CLASSES else (classes, 100, 5)
    a_class, requests = REQUESTS[setting.requests]
    return setting.start * classes, a_class * classes, requests + 1


def config_of(classes: int, arguments: argparse.Namespace, setting: Setting | None = None):
    """A study's config."""
    config = tavaal_jax.default_config()
    initial, budget, cycles = sizes(classes, setting)
    config.update(initial=initial, budget=budget, cycles=cycles, subset=0, diagnostics=False)
    config.update(methods=arguments.methods, first_by=arguments.first_by, parallel="trials")
    # A batch is even, and no larger than the start.
    config.update(epochs=60, batch_size=min(16, initial // 2 * 2), workers=arguments.workers)
    config.task.network, config.normalisation.features = "linear", "together"
    config.metrics = "accuracy,macro_f1"
    config.augmentation.update(pad=0, flip=False)
    # The Ranker's, VAE's and discriminator's, as in configs/folder_from_scratch.py.
    config.ranker.features = 32
    config.vae.update(network="mlp", widths=(128,), latent=32, learning_rate=1e-3)
    config.discriminator.update(hidden=(128, 128), learning_rate=1e-3)
    return config


def dataset_of(path: pathlib.Path, setting: Setting | None = None) -> Dataset:
    """The data set in a file, thinned if the setting says so."""
    with np.load(path) as found:
        test = found["test"]
        parts = [found[k][mask] for mask in (~test, test) for k in ("features", "labels")]
    dataset = Dataset.from_features(*parts, name=path.stem)
    if setting is None or not setting.is_thinned:
        return dataset
    few = tuple(range(dataset.classes // 2))
    return dataclasses.replace(thinned(dataset, THINNED, few), name=f"{path.stem}_thinned")


def run(arguments: argparse.Namespace) -> None:
    """All studies, a block of trials of each before the next block."""
    for last in range(arguments.block, arguments.trials + arguments.block, arguments.block):
        for path, name in itertools.product(map(pathlib.Path, arguments.names), arguments.settings):
            dataset = dataset_of(path, SETTINGS[name])
            config = config_of(dataset.classes, arguments, SETTINGS[name])
            config.trials = min(last, arguments.trials)
            folder = arguments.workdir / stem_of(path.stem, name, arguments)
            tavaal_jax.run_study(config, folder, dataset)
            print(f"{folder}: {config.trials} trials", flush=True)


def seconds_per_choice(folder: pathlib.Path) -> dict[str, float]:
    """Median seconds of the stage `select`, values of the pool and picks: `{method: seconds}`."""
    spent = defaultdict(list)
    for method, trial in files.trials(folder):
        cycles = defaultdict(float)
        for record in records.read_log(files.trial_folder(folder, method, trial)):
            if record.get("stage") == "select" and "seconds" in record:
                cycles[record["cycle"]] += record["seconds"]
        spent[method] += [seconds for cycle, seconds in cycles.items() if cycle]
    return {method: float(np.median(found)) for method, found in spent.items() if found}


def report(arguments: argparse.Namespace) -> None:
    """Collects what there is below the workdir, with a place for each table, and draws all."""
    STUDIES.mkdir(parents=True, exist_ok=True)
    for name, setting in itertools.product(arguments.names, arguments.settings):
        stem = stem_of(name, setting, arguments)
        folder = arguments.workdir / stem
        if not folder.exists():
            continue  # Its results are committed, or it was not run.
        rows, _ = records.all_results(folder)
        last = max(row["labelled"] for row in rows)
        complete = {(r["method"], r["trial"]) for r in rows if r["labelled"] == last}
        rows = [row for row in rows if (row["method"], row["trial"]) in complete]
        lines = files.as_csv(_COLUMNS, [{k: row[k] for k in _COLUMNS} for row in rows])
        (STUDIES / f"{stem}.csv.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        times = [
            {"method": m, "seconds": round(s, 3)} for m, s in seconds_per_choice(folder).items()
        ]
        (STUDIES / f"{stem}_seconds.csv").write_text(files.as_csv(("method", "seconds"), times))
        bounds = arguments.workdir / f"{stem}_bounds.csv"
        if bounds.exists():
            shutil.copy(bounds, STUDIES)
        add_table(stem)
    draw(STUDIES / "gains.png")


def add_table(stem: str) -> None:
    """Adds a place for a study's table to the README, where it has none; tables.py fills it."""
    readme = STUDIES / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else "# Methods on features\n"
    block = f"<!-- table: features {stem} -->\n"
    if block not in text:
        text += f"\n## {stem}\n\n{block}<!-- end -->\n"
        readme.write_text(text, encoding="utf-8")


def gains(curves: dict[str, statistics.Curve]) -> dict[str, dict[str, float]]:
    """Per method the mean under its curve less that of random, `holm` over all methods."""
    found = {}
    for method in curves.keys() - {BASELINE}:
        pair = statistics.in_common(curves[method], curves[BASELINE])
        found[method] = statistics.paired(*map(statistics.area, pair))
    statistics.correct(found.values(), "p_t")
    return found


def table(name: str) -> list[str]:
    """A row per method of one study, from the results in studies/features/."""
    rows = ablation.read_packed(STUDIES / f"{name}.csv.gz")
    seconds = {r["method"]: r["seconds"] for r in files.read_csv(STUDIES / f"{name}_seconds.csv")}
    curves, f1 = (statistics.curves(rows, metric) for metric in METRICS)
    labels = sorted(curves[BASELINE])
    shown = labels[:: max(1, (len(labels) - 1) // 3)][1:]
    areas = {m: statistics.area(curve) for m, curve in curves.items()}
    lines = [
        f"| method | n | area | less random | macro F1, less random |"
        f" accuracy at {', '.join(map(str, shown))} labels | s a choice |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    mean = lambda values: float(np.mean(list(values.values()))) if values else 0.0
    order = sorted(areas, key=lambda m: -mean(areas[m]))
    gained = [gains(found) for found in (curves, f1)]
    cells = ablation.columns_of([[found.get(m, {}) for found in gained] for m in order])
    for method, differences in zip(order, cells, strict=True):
        lines.append(
            f"| `{method}` | {len(areas[method])} | {mean(areas[method]):.3f} | "
            + " | ".join(differences)
            + f" | {', '.join(f'{mean(curves[method][x]):.3f}' for x in shown)}"
            f" | {seconds.get(method, '-')} |"
        )
    return lines + bound_rows(name, shown)


def bound_rows(name: str, shown: Sequence[int]) -> list[str]:
    """Rows of the bounds of a study, if there are any."""
    rows = files.read_csv(STUDIES / f"{name}_bounds.csv")
    lines = []
    for bound in dict.fromkeys(row["bound"] for row in rows):
        curve: statistics.Curve = {}
        for row in (row for row in rows if row["bound"] == bound):
            curve.setdefault(int(row["labelled"]), {})[int(row["trial"])] = float(row["accuracy"])
        means = {count: float(np.mean(list(found.values()))) for count, found in curve.items()}
        areas = list(statistics.area(curve).values())
        trials = max(len(found) for found in curve.values())
        height = f"{np.mean(areas):.3f}" if areas else f"{max(means.values()):.3f}"
        points = ", ".join(f"{means[count]:.3f}" if count in means else "-" for count in shown)
        lines.append(f"| {bound} | {trials} | {height} | - | - | {points if areas else '-'} | - |")
    return lines


def draw(path: pathlib.Path) -> None:
    """Gains over random of every method, a panel per study, as the mean under the curve.

    Hollow: p of the paired t-test, by Holm over the methods of the study, is not below 5 %.
    """
    studies = sorted(STUDIES.glob("*.csv.gz"))
    every = [gains(statistics.curves(ablation.read_packed(s), METRICS[0])) for s in studies]
    names = {method for found in every for method in found}
    mean = lambda method: np.mean([found.get(method, {}).get("difference", 0) for found in every])
    order = sorted(sorted(names), key=mean)
    figure, panels = style.axes(1, len(studies), 3.6, 5.2)
    for axis, study, of_study in zip(panels[0], studies, every, strict=True):
        for place, method in enumerate(order):
            found = of_study.get(method, {})
            if "low" in found:
                low, middle, high = (100 * found[k] for k in ("low", "difference", "high"))
                axis.plot([low, high], [place, place], color=style.colour(method), lw=2)
                face = style.colour(method) if statistics.is_significant(found) else "white"
                look = {"marker": style.marker(method), "color": style.colour(method), "mfc": face}
                axis.plot(middle, place, ms=7, **look)
        axis.axvline(0, color="black", lw=1)
        axis.set_ylim(-0.5, len(order) - 0.5)
        axis.set_title(study.name.removesuffix(".csv.gz"), fontsize=9)
        axis.set_xlabel("points of accuracy gained over random", fontsize=9)
        axis.set_yticks(range(len(order)), order if axis is panels[0][0] else [""] * len(order))
    style.save(figure, path)


def parser_of(text: str) -> argparse.ArgumentParser:
    """Parser of what is common to scripts that go over settings."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    which = f"of {', '.join(filter(None, SETTINGS))}; comma-separated, or all"
    parser.add_argument("--settings", type=settings_of, default=[FIRST_STUDY], help=which)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/features"))
    parser.add_argument("--first_by", default="random")
    parser.add_argument("--trials", type=int, default=20)
    return parser


def settings_of(text: str) -> list[str]:
    """Names of settings in a flag."""
    named = [name for name in SETTINGS if name] if text == "all" else text.split(",")
    unknown = [name for name in named if name not in SETTINGS]
    if unknown:
        there = ", ".join(filter(None, SETTINGS))
        raise argparse.ArgumentTypeError(f"has {unknown[0]}: give some of {there}, or all")
    return named


def main() -> None:
    """Command line."""
    allocator.restart_with_huge_pages()
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("names", nargs="+", help="files; of report their names, such as clothing")
    parser.add_argument("--methods", default="all")
    parser.add_argument("--block", type=int, default=5, help="trials of all before the next ones")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    arguments = parser.parse_args()
    {"run": run, "report": report}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
