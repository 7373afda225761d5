"""Claim: which of the paper's findings on CIFAR-10 come out with a small network, and which do not.

All methods on CIFAR-10, balanced and with its first five classes thinned 100:1 and 10:1, and VAAL
and TA-VAAL also as the released code trains them. Paired by trial.

    python benchmarks/cifar10_small.py run --data=cifar10.tar --trials=3
    python benchmarks/tables.py

`run` first chooses epochs, learning rate and network (`tune`: random labels, a validation set), if
studies/cifar10_small/tuning.csv is not there. Then it runs trial 0 of everything, then trial 1, and
so on, a process per core, in runs/cifar10_small, and packs the results into
studies/cifar10_small/ every few minutes. Stopped at any moment, or on another machine with these
files alone, the same command goes on: whole trials are not run again, others from their last whole
cycle. `tables.py` writes the tables into the README there.
"""

import argparse
import csv
import functools
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import ablation
import mosaics
import numpy as np
import scipy
from packed import Packed, Place, Row

import tavaal_jax
from tavaal_jax import main as command
from tavaal_jax.data import Dataset
from tavaal_jax.data.loading import thinned
from tavaal_jax.engine import allocator
from tavaal_jax.errors import UserError
from tavaal_jax.main import Signals
from tavaal_jax.report import files, records, statistics
from tavaal_jax.study import training

STUDY = pathlib.Path(__file__).parent / "studies" / "cifar10_small"
CONDITIONS = {"balanced": 1, "thinned_100": 100, "thinned_10": 10}
"""By how much the first five classes are thinned; in the order in which they are run."""
RELEASED = {
    "schedule": "two_phase", "rank_to_discriminator": "raw", "vae.unlabelled": "subset",
}  # fmt: skip
CELLS = {
    # name: (overridden keys, methods; none: the config's, and the ablation's where that is shown)
    "": ({}, ""),
    "released_fifth": ({**RELEASED, "vae.epochs": 20}, "vaal,tavaal"),
    "released": (RELEASED, "vaal,tavaal"),
}
"""How methods are trained; a method of a cell with a name is called `<method>_<cell>`."""
CANDIDATES = (
    {},
    {"task.learning_rate": 0.03},
    {"epochs": 80},
    {"batch_size": 32, "task.learning_rate": 0.05},
    {"epochs": 20, "task.widths": (32, 64, 128)},
)
"""What `tune` tries."""
DEAREST = 1.6
"""A candidate is chosen if it takes at most so many times as long as the first."""
CYCLES = tavaal_jax.load_config("cifar10_small").cycles
LABELS = (1000, 3000)
"""Random labels that candidates are trained on."""


# Choosing


def tune(arguments: argparse.Namespace, dataset: Dataset) -> None:
    """Writes tuning.csv: validation accuracy of each candidate on random labels, and its time.

    The validation set is 1,000 training images, as many as a trial starts with; labels are not
    those of a trial of the study.
    """
    order = np.random.default_rng(2**16).permutation(len(dataset.train_images))
    part = lambda rows: (dataset.train_images[rows], dataset.train_labels[rows])
    validation, rest = np.split(order, [1000])
    halves = Dataset.from_arrays(
        *part(np.sort(rest)), *part(validation), class_names=dataset.class_names, name="validation"
    )
    rows = []
    for number, keys in enumerate(CANDIDATES):
        config = tavaal_jax.load_config("cifar10_small", **keys)
        config.update(methods="random", trials=2, cycles=2, seed=2**16, diagnostics=False)
        config.update(initial=LABELS[0], budget=LABELS[1] - LABELS[0], workers=arguments.workers)
        folder = arguments.workdir / f"tune_{number}"
        run_study(config, folder, halves)
        logs = [records.read_log(files.trial_folder(folder, *t)) for t in files.trials(folder)]
        seconds = [sum(line["seconds"] for line in log) for log in logs]
        row: Row = {"keys": as_text(keys), "seconds a trial": round(np.mean(seconds))}
        curve = statistics.curves(tavaal_jax.StudyResult(folder).rows(), "accuracy")["random"]
        row |= {f"at {labels}": f"{np.mean([*curve[labels].values()]):.4f}" for labels in LABELS}
        rows.append(row)
    STUDY.mkdir(parents=True, exist_ok=True)
    files.write(STUDY / "tuning.csv", files.as_csv(tuple(rows[0]), rows))


def as_text(keys: dict[str, Any]) -> str:
    """Overridden keys as they stand on a command line."""
    return " ".join(f"{name}={value}" for name, value in keys.items())


def chosen() -> dict[str, Any]:
    """Keys of the candidate with the highest mean accuracy in tuning.csv, of those not too dear."""
    with (STUDY / "tuning.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["seconds a trial"]) for row in rows]
    cheap = [row for row, each in zip(rows, seconds, strict=True) if each <= DEAREST * seconds[0]]
    best = max(cheap, key=lambda row: sum(float(row[f"at {labels}"]) for labels in LABELS))
    return next(keys for keys in CANDIDATES if as_text(keys) == best["keys"])


# Running


class Part(NamedTuple):
    """Trials that share a config, and so a workdir."""

    condition: str
    cell: str

    def config(self) -> Any:
        """Its config, with the candidate that was chosen where there is one."""
        keys = chosen() if (STUDY / "tuning.csv").exists() else {}
        own, methods = CELLS[self.cell]
        config = tavaal_jax.load_config("cifar10_small", **keys, **own)
        if methods:
            config.methods = methods
        elif self.condition == "thinned_10":
            config.methods += ",vaal_learning_loss"  # Figure 6.
        return config

    def folder(self, workdir: pathlib.Path) -> pathlib.Path:
        """Its workdir."""
        return workdir / "_".join(filter(None, self))

    def place(self, method: str, trial: int) -> Place:
        """Where a trial stands in the packed files."""
        return Place(self.condition, "_".join(filter(None, (method, self.cell))), trial)


def run_study(
    config: Any, folder: pathlib.Path, dataset: Dataset | None, saved: Callable = list
) -> None:
    """Runs a study, with its lines on stdout, until a signal; `saved` is called now and then."""
    due = time.monotonic()

    def progress(event: Any) -> None:
        nonlocal due
        if event.text:
            print(f"{time.strftime('%H:%M:%S')} {folder.name}: {event.text}", flush=True)
        if time.monotonic() > due:
            saved()
            due = time.monotonic() + 120

    with Signals() as signals:
        tavaal_jax.run_study(
            config, folder, dataset, progress=progress, stop=lambda: signals.received
        )


def run(arguments: argparse.Namespace) -> None:
    """Runs what the packed files lack, a trial of everything before the next."""
    whole = mosaics.dataset(arguments.data)
    if not (STUDY / "tuning.csv").exists():
        tune(arguments, whole)
    parts = [Part(condition, cell) for condition in CONDITIONS for cell in arguments.cells]
    for trial in range(arguments.trials):
        for part in parts:
            pack = Packed(STUDY)
            config, folder = part.config(), part.folder(arguments.workdir)
            names = arguments.methods or config.methods.split(",")
            left = [
                name for name in config.methods.split(",")
                if name in names and pack.cycles(part.place(name, trial)) < CYCLES
            ]  # fmt: skip
            if not left:
                continue
            for name in left:
                place = part.place(name, trial)
                pack.give(place, name, files.trial_folder(folder, name, trial))
            config.update(methods=",".join(left), first_trial=trial, trials=trial + 1)
            config.workers = arguments.workers
            # Arrays are taken as they are: the config's own ratio stays 1.
            ratio, classes = CONDITIONS[part.condition], tuple(config.imbalance.classes)
            dataset = thinned(whole, ratio, classes) if ratio > 1 else whole

            def save(part: Part = part, folder: pathlib.Path = folder, pack: Packed = pack) -> None:
                for name, number in files.trials(folder):
                    pack.take(part.place(name, number), files.trial_folder(folder, name, number))
                pack.drop_picks(CYCLES)
                pack.write()

            try:
                run_study(config, folder, dataset, save)
            except UserError as error:  # Of some trial: the others are done.
                print(f"error: {error}", file=sys.stderr, flush=True)
            finally:
                save()


# Tables


@functools.cache
def rows_of(kind: str, condition: str) -> list[Row]:
    """Rows of the trials that have all cycles."""
    pack = Packed(STUDY)
    numbers = {"trial": int, "cycle": int, "labelled": int, "value": float}
    return [
        {name: numbers.get(name, str)(value) for name, value in row.items()}
        for row in pack.all(kind)
        if row["condition"] == condition
        and pack.cycles(Place(condition, row["method"], row["trial"])) >= CYCLES
    ]


def vae_steps(method: str, condition: str) -> tuple[int, int]:
    """Steps of VAE and D in the first cycle and in a whole trial."""
    name, _, cell = method.partition("_released")
    config = Part(condition, f"released{cell}" if "_released" in method else "").config()
    if tavaal_jax.METHODS[name].adversary is None:
        return 0, 0
    stage = "joint" if config.schedule == "joint" else "adversary"
    steps = [
        training.stage_steps(config, 10**6, config.initial + n * config.budget, stage)
        for n in range(config.cycles - 1)
    ]
    return steps[0], sum(steps)


def table(condition: str) -> list[str]:
    """Lines: accuracy of each method, its difference to random, and what its picks were like."""
    curves = statistics.curves(rows_of("results", condition), "accuracy")
    picked = rows_of("diagnostics", condition)
    if not curves.get("random"):
        return ["No trial is finished."]
    labels = sorted(curves["random"])
    head = ["method", "n", *map(str, labels), "under the curve, less random",
            "VAE steps, first cycle and all", "AUC of D", "picks' loss less subset's",
            "class entropy of L, last", "s to pick an image"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for method in sorted(curves, key=lambda m: -np.mean([*statistics.area(curves[m]).values()])):
        curve = curves[method]
        pair = map(statistics.area, statistics.in_common(curve, curves["random"]))
        found = statistics.paired(*pair) if method != "random" else {}
        first, every = vae_steps(method, condition)
        columns = [*map(one, (picked_in(picked, method, c) for c in (
            "discriminator_auc", "difference_loss", "labelled_class_entropy",
            "seconds_select_per_pick")))]  # fmt: skip
        lines.append("| " + " | ".join([
            f"`{method}`", str(len(curve[labels[0]])),
            *(f"{np.mean([*curve[x].values()]):.3f}" for x in labels), ablation.cell_of(found),
            f"{first:,}, {every:,}" if every else "-", *columns,
        ]) + " |")  # fmt: skip
    return lines


def one(values: dict[int, float]) -> str:
    """Mean over trials."""
    return f"{np.mean([*values.values()]):.3g}" if values else "-"


def picked_in(rows: list[Row], method: str, column: str) -> dict[int, float]:
    """A column of the diagnostics of a method, `{trial: value}`: mean of all choices, or last."""
    found: dict[int, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["cycle"]):
        if row["method"] == method:
            value = row.get(column)
            if column == "difference_loss":
                value = float(row["picks_loss"]) - float(row["subset_loss"])
            if value not in ("", None):
                found.setdefault(row["trial"], []).append(float(value))
    is_last = column in ("labelled_class_entropy", "discriminator_deviation")
    return {t: values[-1] if is_last else float(np.mean(values)) for t, values in found.items()}


class Claim(NamedTuple):
    """One finding of the paper: `method` is above `other` in something."""

    figure: str
    condition: str
    text: str
    method: str
    other: str
    what: str = "area"
    """area, or a number of labels: accuracy; a column of the diagnostics."""


OTHERS = ("random", "mc_dropout", "coreset", "learning_loss", "vaal")
CLAIMS = (
    *(
        Claim(figure, condition, f"TA-VAAL is above {other}", "tavaal", other)
        for figure, condition in (
            ("3(a)", "balanced"), ("4(a)", "thinned_100"), ("4(b)", "thinned_10"),
        )
        for other in OTHERS
    ),
    Claim("3(a)", "balanced", "learning loss is below random at first", "random", "learning_loss",
          "2000"),
    Claim("3(a)", "balanced", "... and above it later", "learning_loss", "random", "5000"),
    Claim("3(a)", "balanced", "VAAL is above learning loss", "vaal", "learning_loss"),
    Claim("4(a)", "thinned_100", "learning loss is below random at first", "random",
          "learning_loss", "2000"),
    Claim("6", "thinned_10", "the ranking loss is better than the margin loss, later",
          "learning_loss_v2", "learning_loss", "5000"),
    Claim("6", "thinned_10", "VAAL gains by a Ranker with the margin loss", "vaal_learning_loss",
          "vaal"),
    Claim("6", "thinned_10", "... and by the ranking loss more", "tavaal", "vaal_learning_loss"),
    Claim("7(a)", "thinned_100", "TA-VAAL's labels are more even over classes than random ones",
          "tavaal", "random", "labelled_class_entropy"),
    Claim("7(a)", "thinned_100", "... and than learning loss's", "tavaal", "learning_loss",
          "labelled_class_entropy"),
    Claim("7(b)", "thinned_100", "TA-VAAL's likelihoods are wider than VAAL's", "tavaal", "vaal",
          "discriminator_deviation"),
    Claim("8", "thinned_100", "TA-VAAL picks images of higher loss than VAAL", "tavaal", "vaal",
          "difference_loss"),
)  # fmt: skip


def compare(claim: Claim, version: str) -> dict[str, float]:
    """Paired difference of a claim, of methods trained as `version`; also n and p of a t-test."""
    rename = lambda name: name + version if name in ("vaal", "tavaal") else name
    pair = rename(claim.method), rename(claim.other)
    if claim.what in ("area", "2000", "5000"):
        curves = statistics.curves(rows_of("results", claim.condition), "accuracy")
        both = statistics.in_common(*(curves.get(name, {}) for name in pair))
        of = statistics.area if claim.what == "area" else lambda c: c.get(int(claim.what), {})
        values = [of(curve) for curve in both]
    else:
        rows = rows_of("diagnostics", claim.condition)
        values = [picked_in(rows, name, claim.what) for name in pair]
    found = statistics.paired(*values)
    found.pop("p", None)  # Wilcoxon's, which is never small for few trials.
    p = p_of(*values)
    found |= {} if p is None else {"p": p}
    return found | {"n": len(set(values[0]) & set(values[1]))} if found else {}


def p_of(values: dict[int, float], others: dict[int, float]) -> float | None:
    """p of a paired t-test, of `{trial: value}`; None where there are too few."""
    differences = [values[t] - others[t] for t in set(values) & set(others)]
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def claims() -> list[str]:
    """Lines: each finding of the paper, and whether it comes out here."""
    versions = ["", *(f"_{cell}" for cell in CELLS if cell)]
    cases = [
        (claim, version, compare(claim, version))
        for claim in CLAIMS for version in versions
        if not version or {"vaal", "tavaal"} & {claim.method, claim.other}
    ]  # fmt: skip
    cases = [case for case in cases if case[2]]
    if not cases:
        return ["No trial is finished."]
    statistics.correct((found for _, _, found in cases), "p")
    lines = [
        "| figure | the paper says | VAE and D trained | difference | n | p, Holm | here |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for claim, version, found in cases:
        sure = found.get("holm", 1.0) < 0.05
        verdict = ("comes out" if found["difference"] > 0 else "does not") if sure else (
            "cannot be told")  # fmt: skip
        what = "" if claim.what == "area" else f" ({claim.what.replace('_', ' ')})"
        what = f" (at {claim.what} labels)" if claim.what.isdigit() else what
        p = f"{found['holm']:.3f}" if "holm" in found else "-"
        trained = version.strip("_").replace("_", ", a ") or "jointly"
        lines.append(
            f"| {claim.figure}, {claim.condition} | {claim.text}{what} | {trained} |"
            f" {ablation.cell_of(found)} | {found['n']} | {p} | {verdict} |"
        )
    return lines


def tuning() -> list[str]:
    """Lines: what was tried to choose epochs, learning rate and network."""
    if not (STUDY / "tuning.csv").exists():
        return ["Not run."]
    with (STUDY / "tuning.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows.insert(1, ["---"] + ["---:"] * (len(rows[0]) - 1))
    return ["| " + " | ".join(row) + " |" for row in rows]


TABLES: dict[str, Callable[..., list[str]]] = {
    "cifar10_small": table, "cifar10_claims": claims, "cifar10_tuning": tuning,
}  # fmt: skip


def main() -> int:
    """Command line; returns the exit code."""
    allocator.restart_with_huge_pages()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run",))
    parser.add_argument("--data", type=pathlib.Path, required=True, help="tar, see mosaics.py")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/cifar10_small"))
    parser.add_argument("--trials", type=int, default=3)
    names = lambda text: text.split(",")
    parser.add_argument("--cells", type=names, default=["", "released_fifth"],
                        help=f"comma-separated, of {', '.join(map(repr, CELLS))}")  # fmt: skip
    parser.add_argument("--methods", type=names, help="default: all")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        parser.error(f"--data is {arguments.data}, where there is no file")
    return command.exit_code(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
