"""Claim: on features of a frozen backbone, which method is best, and when.

Every method on every data set, paired by trial: starts, and nothing else, are drawn anew in each.

    python benchmarks/methods_on_features.py run clothing.npz cifar10.npz cifar100.npz --trials=20
    python benchmarks/methods_on_features.py report clothing cifar10 cifar100

A file has `features [N, F]`, `labels [N]` and `test [N]`, a mask of the images that are not to be
labelled; `tavaal_jax.embed` gives features. `run` runs five trials at a time of all methods, each
trial in a process on one core, in runs/features/<file>_<first_by>; run again it continues. Then,
as at any time, `report` writes the results into studies/features/, and a figure of all; then
`python benchmarks/tables.py` writes the tables.
"""

import argparse
import csv
import gzip
import pathlib
import sys
from collections import defaultdict

import ablation
import numpy as np

import tavaal_jax
from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.data import Dataset
from tavaal_jax.engine import allocator
from tavaal_jax.report import files, records, statistics
from tavaal_jax.report.plots import style

STUDIES = pathlib.Path(__file__).parent / "studies" / "features"
FEW_CLASSES = 20
METRICS = ("accuracy", "macro_f1")
_COLUMNS = ("method", "trial", "cycle", "labelled", "metric", "value")


def config_of(classes: int, arguments: argparse.Namespace):
    """2 images a class, then 40 at a time up to 300; with many classes 1, and 100 up to 500."""
    config = tavaal_jax.default_config()
    few = classes <= FEW_CLASSES
    initial, budget, cycles = (2 * classes, 40, 8) if few else (classes, 100, 5)
    config.update(initial=initial, budget=budget, cycles=cycles, subset=0, diagnostics=False)
    config.update(methods=arguments.methods, first_by=arguments.first_by, parallel="trials")
    config.update(epochs=60, batch_size=16, workers=arguments.workers)
    config.task.network, config.normalisation.features = "linear", "together"
    config.metrics = "accuracy,macro_f1"
    config.augmentation.update(pad=0, flip=False)
    # The Ranker's, VAE's and discriminator's, as in configs/folder_from_scratch.py.
    config.ranker.features = 32
    config.vae.update(network="mlp", widths=(128,), latent=32, learning_rate=1e-3)
    config.discriminator.update(hidden=(128, 128), learning_rate=1e-3)
    return config


def dataset_of(path: pathlib.Path) -> Dataset:
    """The data set in a file."""
    with np.load(path) as found:
        test = found["test"]
        parts = [found[k][mask] for mask in (~test, test) for k in ("features", "labels")]
    return Dataset.from_features(*parts, name=path.stem)


def run(arguments: argparse.Namespace) -> None:
    """All studies, a block of trials of each before the next block."""
    for last in range(arguments.block, arguments.trials + arguments.block, arguments.block):
        for path in map(pathlib.Path, arguments.names):
            dataset = dataset_of(path)
            config = config_of(dataset.classes, arguments)
            config.trials = min(last, arguments.trials)
            folder = arguments.workdir / f"{path.stem}_{arguments.first_by}"
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
    """Collects what there is below the workdir, and writes the table of all."""
    STUDIES.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        folder = arguments.workdir / f"{name}_{arguments.first_by}"
        if not folder.exists():
            continue  # Its results are committed.
        rows, _ = records.all_results(folder)
        last = max(row["labelled"] for row in rows)
        complete = {(r["method"], r["trial"]) for r in rows if r["labelled"] == last}
        rows = [row for row in rows if (row["method"], row["trial"]) in complete]
        lines = files.as_csv(_COLUMNS, [{k: row[k] for k in _COLUMNS} for row in rows])
        stem = f"{name}_{arguments.first_by}"
        (STUDIES / f"{stem}.csv.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        times = [
            {"method": m, "seconds": round(s, 3)} for m, s in seconds_per_choice(folder).items()
        ]
        (STUDIES / f"{stem}_seconds.csv").write_text(files.as_csv(("method", "seconds"), times))
    draw(STUDIES / "gains.png")
    if (STUDIES / "people_clothing.csv").exists():
        draw_people(STUDIES / "people_clothing.csv")


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


def draw_people(path: pathlib.Path) -> None:
    """Accuracy over labels of people's loop, from the output of `people_cycle.py`, beside it."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, panels = style.axes(1, 1)
    axis = panels[0, 0]
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        labels = sorted({int(row["labels"]) for row in mine})
        values = [[float(r["accuracy"]) for r in mine if int(r["labels"]) == n] for n in labels]
        colour = style.colour(mine[0]["method"]) if "nothing" not in way else "#D55E00"
        for at, found in zip(labels, values, strict=True):
            axis.plot([at] * len(found), found, ".", color=colour, alpha=0.4)
        seeds = len({row["seed"] for row in mine})
        label = f"{way} (n = {seeds})"
        axis.plot(labels, [np.mean(found) for found in values], "-", color=colour, label=label)
    axis.set_xlabel("labels")
    axis.set_ylabel("accuracy on 372 test photos")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8, loc="lower right")
    style.save(figure, path.with_suffix(".png"))


def main() -> None:
    """Command line."""
    allocator.restart_with_huge_pages()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("names", nargs="+", help="files; of report the names of studies")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/features"))
    parser.add_argument("--methods", default="all")
    parser.add_argument("--first_by", default="random")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--block", type=int, default=5, help="trials of all before the next ones")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    arguments = parser.parse_args()
    {"run": run, "report": report}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
