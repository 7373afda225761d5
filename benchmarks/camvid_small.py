"""Claim: which method is best on street scenes, where neighbouring frames are alike.

All methods of configs/camvid_small.py, and random draws that prefer rare classes, paired by trial.

    python benchmarks/camvid_small.py run --data=camvid.tar --trials=3
    python benchmarks/tables.py

`run` unpacks the tar into --workdir, runs trial 0 of all methods, then trial 1, ..., a process
per core, and packs results into studies/camvid_small/; stopped, the same command goes on, also from
these files alone. The test set is the drive of which there is no training image. `tables.py` writes
the tables into the README there: mean and class IoU, and from how many blocks of ten neighbouring
frames (of one drive, a frame a second) a method has picked.
"""

import argparse
import pathlib
import sys
import tarfile
from collections.abc import Callable
from typing import Any

import ablation
import cifar10_small
import jax
import jax.numpy as jnp
import numpy as np
from packed import Packed, Place, Row

import tavaal_jax
from tavaal_jax import main as command
from tavaal_jax.engine import allocator
from tavaal_jax.errors import UserError
from tavaal_jax.report import files, statistics

STUDY = pathlib.Path(__file__).parent / "studies" / "camvid_small"
CONDITION = "camvid"
UNSEEN = "Seq05VD"
"""The drive of the test set of which there is no training image."""
RARE = ("pole", "sign", "fence", "pedestrian", "bicyclist")
"""Classes of at most 1.2 % of the pixels."""
BLOCK = 10
"""Neighbouring frames."""
LEAST = 1e-3
"""Share of the pixels of L: classes that are rarer weigh no more."""


# Random draws that prefer rare classes


def class_shares(view: Any, key: jax.Array) -> jax.Array:
    """Share of each class in an image's pixels as T predicts them: `[K]`."""
    del key
    return jnp.mean(jax.nn.softmax(view.logits).reshape(-1, view.problem.classes), axis=0)


def rarer_more_often(
    values: np.ndarray, count: int, key: jax.Array, labelled: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws images at random, more often those with more of the classes that L has little of.

    The probability of an image is in proportion to the sum over classes of its share over L's, both
    as T predicts them: no label is used that nobody has given. Without replacement, by Gumbel's
    trick.
    """
    assert labelled is not None
    weights = (values / np.maximum(labelled.mean(0), LEAST)).sum(1)
    scores = np.log(weights) + np.asarray(jax.random.gumbel(key, weights.shape))
    positions = np.argsort(-scores, kind="stable")[:count]
    return positions, scores[positions].astype(np.float32)


RANDOM_RARE = tavaal_jax.Method("random_rare", class_shares, rarer_more_often, compares=True)


# Running


def unpacked(tar: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
    """Folder with images/, labels/ and the list of test images, unpacked once."""
    folder = workdir / "data"
    if not (folder / "test.txt").exists():
        with tarfile.open(tar) as packed:
            packed.extractall(folder, filter="data")
        names = sorted(path.stem for path in (folder / "images" / "test").glob(f"{UNSEEN}*"))
        files.write(folder / "test.txt", "".join(f"test/{name}\n" for name in names))
    return folder


def run(arguments: argparse.Namespace) -> None:
    """Runs what the packed files lack, a trial of every method before the next."""
    config = tavaal_jax.load_config("camvid_small")
    config.methods += f",{RANDOM_RARE.name}"
    tavaal_jax.METHODS[RANDOM_RARE.name] = RANDOM_RARE
    data, workdir = unpacked(arguments.data, arguments.workdir), arguments.workdir / "trials"
    config.maps_folder.images, config.maps_folder.maps = str(data / "images"), str(data / "labels")
    config.maps_folder.test, config.data_dir = str(data / "test.txt"), str(data / "decoded")
    config.workers = arguments.workers
    names, pack = arguments.methods or config.methods.split(","), Packed(STUDY)
    frames = sorted(path.name for path in (data / "images" / "train").iterdir())
    STUDY.mkdir(parents=True, exist_ok=True)
    files.write(STUDY / "frames.txt", "".join(f"train/{name}\n" for name in frames))

    def save() -> None:
        for name, trial in files.trials(workdir):
            folder = files.trial_folder(workdir, name, trial)
            pack.take(Place(CONDITION, name, trial), folder)
        pack.write()

    for trial in range(arguments.trials):
        places = [Place(CONDITION, name, trial) for name in names]
        left = [place for place in places if pack.cycles(place) < config.cycles]
        for place in left:
            pack.give(place, place.method, files.trial_folder(workdir, place.method, trial))
        if left:
            config.update(methods=",".join(place.method for place in left))
            config.update(first_trial=trial, trials=trial + 1)
            try:
                cifar10_small.run_study(config, workdir, None, save)
            except UserError as error:  # Of some trial: the others are done.
                print(f"error: {error}", file=sys.stderr, flush=True)
            finally:
                save()


# Tables


def rows_of(kind: str) -> list[Row]:
    """Rows of the trials that have all cycles."""
    pack, cycles = Packed(STUDY), tavaal_jax.load_config("camvid_small").cycles
    numbers = {"trial": int, "cycle": int, "labelled": int, "value": float}
    return [
        {name: numbers.get(name, str)(value) for name, value in row.items()}
        for row in pack.all(kind)
        if pack.cycles(Place(CONDITION, row["method"], row["trial"])) >= cycles
    ]


def blocks(rows: list[Row], frames: list[str]) -> dict[str, dict[int, int]]:
    """Number of blocks of `frames` that a trial has picked from: `{method: {trial: number}}`.

    A block is ten frames of one drive that follow each other.
    """
    block, place = {}, {}
    for name in sorted(frames):
        drive = pathlib.PurePosixPath(name).name.partition("_")[0]
        place[drive] = place.get(drive, -1) + 1
        block[name] = drive, place[drive] // BLOCK
    found: dict[str, dict[int, set[tuple[str, int]]]] = {}
    for row in rows:
        trials = found.setdefault(row["method"], {})
        trials.setdefault(row["trial"], set()).add(block[row["id"]])
    return {m: {t: len(of) for t, of in trials.items()} for m, trials in found.items()}


def table() -> list[str]:
    """Lines: mean IoU of each method, its difference to random, and its blocks."""
    curves = statistics.curves(rows_of("results"), "mean_iou")
    if not curves.get("random"):
        return ["No trial is finished."]
    names = (STUDY / "frames.txt").read_text(encoding="utf-8").split()
    picked = blocks(rows_of("picks"), names)
    pairs = {
        method: [*map(statistics.area, statistics.in_common(curve, curves["random"]))]
        for method, curve in curves.items() if method != "random"
    }  # fmt: skip
    differences = {method: statistics.paired(*pair) for method, pair in pairs.items()}
    tested = {m: p for m, pair in pairs.items() if (p := cifar10_small.p_of(*pair)) is not None}
    adjusted = dict(zip(tested, statistics.holm([*tested.values()]), strict=True))
    labels = sorted(curves["random"])
    head = ["method", "n", *map(str, labels), "under the curve, less random", "p, Holm",
            "blocks picked from"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for method in sorted(curves, key=lambda m: -np.mean([*statistics.area(curves[m]).values()])):
        means = [f"{np.mean([*curves[method][x].values()]):.3f}" for x in labels]
        cells = [
            f"`{method}`", str(len(curves[method][labels[0]])), *means,
            ablation.cell_of(differences.get(method, {})),
            f"{adjusted[method]:.3f}" if method in adjusted else "-",
            f"{np.mean([*picked[method].values()]):.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def class_iou() -> list[str]:
    """Lines: IoU of each class with the most labels, rare ones first."""
    rows = rows_of("class_iou")
    if not rows:
        return ["No trial is finished."]
    last = max(row["labelled"] for row in rows)
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["labelled"] == last and row["iou"]:
            of_method = found.setdefault(row["method"], {})
            of_method.setdefault(row["class"], []).append(float(row["iou"]))
    classes = [*RARE, *(c for c in tavaal_jax.load_config("camvid_small").maps_folder.class_names
                        if c not in RARE)]  # fmt: skip
    lines = [f"| {last} labels | " + " | ".join(classes) + " |", "|---|" + "---:|" * len(classes)]
    mean = lambda values: f"{np.mean(values):.3f}" if values else "-"
    for method, values in found.items():
        cells = [mean(values.get(name, [])) for name in classes]
        lines.append("| " + " | ".join([f"`{method}`", *cells]) + " |")
    return lines


TABLES: dict[str, Callable[..., list[str]]] = {"camvid": table, "camvid_classes": class_iou}


def main() -> int:
    """Command line; returns the exit code."""
    allocator.restart_with_huge_pages()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run",))
    parser.add_argument("--data", type=pathlib.Path, required=True, help="tar: images/, labels/")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/camvid_small"))
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--methods", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        parser.error(f"--data is {arguments.data}, where there is no file")
    return command.exit_code(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
