"""Claim: how long the Ranker's gradient flows into T matters more for TA-VAAL than the rank in D.

Compares variants of TA-VAAL and plain methods, paired by trial.

    python benchmarks/ablation.py run digits --trials=20
    python benchmarks/ablation.py report digits moons

`run` runs the studies in runs/ablation/digits/<cell>/trials_<first>, a process per core (or as many
as --processes gives). Run it again to resume, and with more trials to add some. --cells, --methods
and --first_trial select a part, to spread the work over machines. `report` writes the tables and
the figure from the results that are there.
"""

import argparse
import concurrent.futures
import csv
import gzip
import os
import pathlib
import subprocess
import sys
from typing import Any

from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.report import files, records, statistics
from tavaal_jax.report.plots import style

FOLDER = pathlib.Path(__file__).parent
STUDIES = FOLDER / "studies" / "ablation"
RANKED = "learning_loss,learning_loss_v2,vaal_learning_loss,tavaal"
TOLD = "vaal_learning_loss,tavaal"

LETTER = {"ranker.when_inactive": "freeze", "ranker.active_fraction": 0.8}
SECTION_7_2 = {"ranker.when_inactive": "detach", "ranker.active_fraction": 0.6}
NEVER = {"ranker.when_inactive": "detach", "ranker.active_fraction": 0.0}
RAW = {"rank_to_discriminator": "raw"}
NO_D, NO_DECODER = {"rank_to_discriminator": "none"}, {"rank_to_decoder": "none"}
RELEASED = {**SECTION_7_2, "schedule": "two_phase", "vae.unlabelled": "subset"}

CELLS = {
    # name: (overridden keys, methods). What the keys of a cell do not touch is in "detach_0.6".
    "detach_0.6": (SECTION_7_2, f"random,coreset,vaal,{RANKED}"),
    "freeze_0.8": (LETTER, RANKED),
    "detach_0": (NEVER, RANKED),
    "detach_0.6_raw": ({**SECTION_7_2, **RAW}, TOLD),
    "freeze_0.8_raw": ({**LETTER, **RAW}, TOLD),
    "detach_0_raw": ({**NEVER, **RAW}, TOLD),
    "decoder_only": ({**SECTION_7_2, **NO_D}, "tavaal"),
    "discriminator_only": ({**SECTION_7_2, **NO_DECODER}, "tavaal"),
    "discriminator_only_raw": ({**SECTION_7_2, **NO_DECODER, **RAW}, "tavaal"),
    "no_rank": ({**SECTION_7_2, **NO_D, **NO_DECODER}, "tavaal"),
    "six_updates": ({**SECTION_7_2, "vae.updates": 6}, "vaal,tavaal"),
    "two_phase": (RELEASED, f"vaal,{TOLD}"),
    "two_phase_raw": ({**RELEASED, **RAW}, TOLD),
}
"""Ranker x rank given to D x schedule, the rank hidden from decoder or D, more updates of both."""
BASE = "detach_0.6"
LONG = ("six_updates", "two_phase", "two_phase_raw")

EFFECTS = {
    # what is asked: (variant, what it is compared with), each (cell, method)
    "picks by R(x), T feels R to the end, less random": (
        ("freeze_0.8", "learning_loss_v2"), (BASE, "random")),
    "picks by R(x), T feels R for 60 %, less random": (
        (BASE, "learning_loss_v2"), (BASE, "random")),
    "picks by R(x), T never feels R, less random": (
        ("detach_0", "learning_loss_v2"), (BASE, "random")),
    "the adversary alone: vaal less random": ((BASE, "vaal"), (BASE, "random")),
    "vaal with a Ranker beside T (60 %), less vaal": (("no_rank", "tavaal"), (BASE, "vaal")),
    "... and rank given to the decoder": (("decoder_only", "tavaal"), ("no_rank", "tavaal")),
    "... and rank given to D": (("discriminator_only", "tavaal"), ("no_rank", "tavaal")),
    "... and raw rank given to D": (("discriminator_only_raw", "tavaal"), ("no_rank", "tavaal")),
    "... and rank given to both, which is tavaal": ((BASE, "tavaal"), ("no_rank", "tavaal")),
    "... and rank to the decoder, raw rank to D": (
        ("detach_0.6_raw", "tavaal"), ("no_rank", "tavaal")),
    "tavaal less random": ((BASE, "tavaal"), (BASE, "random")),
    "tavaal: T feels R for 60 %, less to the end": ((BASE, "tavaal"), ("freeze_0.8", "tavaal")),
    "tavaal: T never feels R, less for 60 %": (("detach_0", "tavaal"), (BASE, "tavaal")),
    "tavaal: raw rank to D, less normalised": (("detach_0.6_raw", "tavaal"), (BASE, "tavaal")),
    "tavaal: ranking loss less margin loss": ((BASE, "tavaal"), (BASE, "vaal_learning_loss")),
    "tavaal: six updates of VAE and D a step, less one": (
        ("six_updates", "tavaal"), (BASE, "tavaal")),
    "vaal: six updates of VAE and D a step, less one": (("six_updates", "vaal"), (BASE, "vaal")),
    "tavaal: two phases, U the subset, less joint": (("two_phase", "tavaal"), (BASE, "tavaal")),
    "the same with raw rank: the released schedule": (
        ("two_phase_raw", "tavaal"), ("detach_0.6_raw", "tavaal")),
    "vaal: two phases, U the subset, less joint": (("two_phase", "vaal"), (BASE, "vaal")),
}  # fmt: skip
"""What each part adds or costs."""


# Run


Job = tuple[str, str, str, int, int]
"""Config, cell, methods, first trial, number after the last."""


def jobs(arguments: argparse.Namespace, config: str) -> list[Job]:
    """All that there is to run, such that all cells grow alike.

    Cells whose VAE takes more steps last several times as long and get half of the trials.
    """
    cells = arguments.cells.split(",") if arguments.cells else list(CELLS)
    wanted = set(filter(None, arguments.methods.split(",")))
    return [
        (config, cell, methods, first, min(first + arguments.block, last))
        for first in range(arguments.first_trial, arguments.trials, arguments.block)
        for cell in cells
        if first < (last := arguments.trials // (1 + (cell in LONG)))
        if (methods := ",".join(m for m in CELLS[cell][1].split(",") if m in wanted or not wanted))
    ]


def command(
    workdir: pathlib.Path, config: str, cell: str, methods: str, first: int, last: int
) -> list[str]:
    """Of one study."""
    keys = CELLS[cell][0]
    changes = {**keys, "methods": methods, "first_trial": first, "trials": last}
    return [
        sys.executable, "-m", "tavaal_jax.main", f"--config=configs/{config}.py",
        f"--workdir={workdir / config / cell / f'trials_{first}'}",
        *(f"--config.{name}={value}" for name, value in changes.items()),
    ]  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """All studies that are not finished, each process on cores of its own; an exit code.

    Stopped, it waits for the studies that are running, which save and end at the same signal.
    """
    cores = sorted(os.sched_getaffinity(0))
    count = min(arguments.processes or len(cores), len(cores))
    shares = [cores[number::count] for number in range(count)]
    # A thread's affinity, which its processes inherit.
    claim = lambda: os.sched_setaffinity(0, shares.pop())
    with concurrent.futures.ThreadPoolExecutor(count, initializer=claim) as pool:
        every = [job for config in arguments.config for job in jobs(arguments, config)]
        waiting = [pool.submit(study, arguments.workdir, *job) for job in every]
        try:
            done = [job.result() for job in waiting]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("stopped; the same command continues", file=sys.stderr)
            return 130
    return 0 if all(done) else 1


def study(workdir: pathlib.Path, *job: Any) -> bool:
    """Runs one study in a process of its own; whether it ended well."""
    line = command(workdir, *job)
    done = subprocess.run(
        line, cwd=FOLDER.parent, capture_output=True, encoding="utf-8", check=False
    )
    print(*job, "done" if not done.returncode else f"failed:\n{done.stderr}", flush=True)
    return not done.returncode


# Report

PARTS = ("curve", "first", "last")
Place = tuple[str, str]
"""Cell and method."""
COLUMNS = {
    "discriminator_auc": "AUC of D",
    "overlap_highest_predicted": "picks among the highest R(x)",
    "overlap_highest_loss": "... the highest true loss",
    "picks_class_entropy": "class entropy, nats",
}


def collect(workdir: pathlib.Path) -> tuple[list[dict], list[dict]]:
    """Rows of all results.csv and of all diagnostics.csv below; a method is called cell/method."""
    rows: list[dict[str, Any]] = []
    diagnosed: list[dict[str, Any]] = []
    for part in sorted(workdir.glob("*/trials_*")):
        mine, faults = records.all_results(part)
        for fault in faults:
            print(f"warning: {fault}", file=sys.stderr)
        for rest, found in ((rows, mine), (diagnosed, records.read_diagnostics(part))):
            name = lambda row, cell=part.parent.name: f"{cell}/{row['method']}"
            rest += [{**row, "method": name(row)} for row in found]
    return _once(rows), _once(diagnosed)


def _once(rows: list[dict]) -> list[dict]:
    """Without rows of trials that lie in two parts, after another --block."""
    keys = ("method", "trial", "cycle", "metric")
    return list({tuple(str(row.get(k)) for k in keys): row for row in rows}.values())


def effect(curves: dict[str, statistics.Curve], this: Place, that: Place) -> dict[str, Any]:
    """Paired differences of two variants: mean under the curve, first and last cycle."""
    pair = [curves.get("/".join(place), {}) for place in (this, that)]
    both = statistics.in_common(*pair)
    if not both[0]:
        return {}
    first, last = min(both[0]), max(both[0])
    return {
        "n": len(both[0][first]),
        "curve": statistics.paired(*map(statistics.area, both)),
        "first": statistics.paired(both[0][first], both[1][first]),
        "last": statistics.paired(both[0][last], both[1][last]),
    }


def cell_of(found: dict[str, float], scale: float = 1.0, digits: int = 3) -> str:
    """A difference with its interval, times `scale`."""
    if not found:
        return "-"
    text = lambda name: f"{scale * found[name]:+.{digits}f}"
    star = "*" if statistics.is_significant(found) else ""
    interval = f" [{text('low')}, {text('high')}]" if "low" in found else ""
    return text("difference") + interval + star


def columns_of(rows: list[list[dict[str, float]]]) -> list[list[str]]:
    """Cells of differences; * where p of the t-test, by Holm over the column, is below 5 %."""
    for column in zip(*rows, strict=True):
        statistics.correct(column, "p_t")
    return [[cell_of(found) for found in row] for row in rows]


def read_packed(path: pathlib.Path) -> list[records.Result]:
    """Rows of a packed results.csv."""
    rows = csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines())
    whole = ("trial", "cycle", "labelled")
    return [{**r, **{k: int(r[k]) for k in whole}, "value": float(r["value"])} for r in rows]


def tables(config: str) -> tuple[list[str], list[str]]:
    """Lines of the tables of effects and of all variants, from the files in studies/ablation."""
    rows = read_packed(STUDIES / f"{config}_results.csv.gz")
    curves = statistics.curves(rows, rows[0]["metric"])
    means = files.read_csv(STUDIES / f"{config}_diagnostics.csv")
    return effects(curves), variants(curves, means)


def diagnosed_means(rows: list[dict]) -> list[dict[str, str]]:
    """Mean of each diagnostic over cycles and trials, a row per variant."""
    means = {column: statistics.diagnosed(rows, column) for column in COLUMNS}
    mean = lambda values: f"{sum(values) / len(values):.2f}" if values else ""
    return [
        {"variant": name, **{c: mean(means[c].get(name, {}).values()) for c in COLUMNS}}
        for name in dict.fromkeys(row["method"] for row in rows)
    ]


def variants(curves: dict, diagnosed: list[dict[str, str]]) -> list[str]:
    """A row per cell and method: differences to random, and the means of its diagnostics."""
    means = {row["variant"]: row for row in diagnosed}
    lines = [
        "| variant | method | n | curve | first cycle | last cycle | "
        + " | ".join(COLUMNS.values()) + " |",
        "|---|---|" + "---:|" * (4 + len(COLUMNS)),
    ]  # fmt: skip
    places = [
        (cell, method)
        for cell, (_, methods) in CELLS.items()
        for method in methods.split(",")
        if method != BASELINE and effect(curves, (cell, method), (BASE, BASELINE))
    ]
    found = [effect(curves, place, (BASE, BASELINE)) for place in places]
    differences = columns_of([[each[part] for part in PARTS] for each in found])
    for (cell, method), each, row in zip(places, found, differences, strict=True):
        shown = [means.get(f"{cell}/{method}", {}).get(c) or "-" for c in COLUMNS]
        words = [cell, f"`{method}`", str(each["n"]), *row, *shown]
        lines.append("| " + " | ".join(words) + " |")
    return lines


def effects(curves: dict) -> list[str]:
    """A row per question."""
    lines = [
        "| what | n | mean under the curve | first cycle, nothing picked yet | last cycle |",
        "|---|---:|---:|---:|---:|",
    ]
    every = {name: effect(curves, *pair) for name, pair in EFFECTS.items()}
    every = {name: found for name, found in every.items() if found}
    rows = columns_of([[found[part] for part in PARTS] for found in every.values()])
    for (name, found), row in zip(every.items(), rows, strict=True):
        lines.append("| " + " | ".join([name, str(found["n"]), *row]) + " |")
    return lines


def draw(curves: dict[str, dict], path: pathlib.Path) -> None:
    """Each effect on the mean under the curve with its 95 % interval, a panel per config.

    Grey: p of the t-test, by Holm over the panel, is not below 5 %.
    """
    figure, axes = style.axes(1, len(curves), width=4.2, height=5.4)
    names = list(EFFECTS)
    for axis, (config, mine) in zip(axes.flat, curves.items(), strict=True):
        most = 0
        every = [effect(mine, *EFFECTS[name]) for name in names]
        statistics.correct([found["curve"] for found in every if found], "p_t")
        for height, found in enumerate(every):
            if not found or not found["curve"]:  # A curve has two points at least.
                continue
            most, curve = max(most, found["n"]), found["curve"]
            middle = curve["difference"]
            low, high = curve.get("low", middle), curve.get("high", middle)
            unsure = not statistics.is_significant(curve)
            colour = "#888888" if unsure else "#0072B2" if low > 0 else "#D55E00"
            reach = [[middle - low], [high - middle]]
            axis.errorbar(middle, height, xerr=reach, fmt="o", color=colour, capsize=3)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{config} (n up to {most})", fontsize="medium")
        axis.set_yticks(range(len(names)), names if axis is axes.flat[0] else [""] * len(names))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel("difference of the mean under the curve")
        axis.locator_params(axis="x", nbins=4)
    figure.set_figwidth(3.8 + 2.8 * len(curves))  # Names take what a panel and a half do.
    style.save(figure, path)


def report(arguments: argparse.Namespace) -> int:
    """Tables, figure and all results, from what the studies have left so far."""
    STUDIES.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for config in arguments.config:
        rows, diagnosed = collect(arguments.workdir / config)
        if not rows:
            print(f"nothing in {arguments.workdir / config}: run first", file=sys.stderr)
            return 2
        drawn[config] = statistics.curves(rows, rows[0]["metric"])
        lines = files.as_csv(tuple(rows[0]), rows)
        packed = gzip.compress(lines.encode(), mtime=0)
        (STUDIES / f"{config}_results.csv.gz").write_bytes(packed)
        means = files.as_csv(("variant", *COLUMNS), diagnosed_means(diagnosed))
        (STUDIES / f"{config}_diagnostics.csv").write_text(means)
        first, second = tables(config)
        text = [f"# {config}: what each part adds or costs", ""]
        text += [f"<!-- table: effects {config} -->", *first, "<!-- end -->"]
        text += ["", f"## All variants: difference to random in {BASE}", ""]
        text += [f"<!-- table: variants {config} -->", *second, "<!-- end -->"]
        (STUDIES / f"{config}.md").write_text("\n".join(text) + "\n")
    draw(drawn, STUDIES / "ablation.png")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("config", nargs="+", help="names of files in configs/, such as digits")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/ablation"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--first_trial", type=int, default=0, help="those before it are elsewhere")
    parser.add_argument("--block", type=int, default=5, help="trials of one study's process")
    parser.add_argument("--processes", type=int, default=0, help="0: one per core")
    parser.add_argument("--cells", default="", help=f"comma-separated, of {', '.join(CELLS)}")
    parser.add_argument("--methods", default="", help="of those of each cell; default: all")
    arguments = parser.parse_args()
    unknown = set(filter(None, arguments.cells.split(","))) - set(CELLS)
    if unknown:
        parser.error(f"--cells has {', '.join(sorted(unknown))}: give some of {', '.join(CELLS)}")
    return run(arguments) if arguments.what == "run" else report(arguments)


if __name__ == "__main__":
    sys.exit(main())
