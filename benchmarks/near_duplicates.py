"""Claim: how many near-duplicates there are, and what asking for one of each does to accuracy.

    python benchmarks/near_duplicates.py clothing.npz cifar10.npz --trials=5

A file has `features [N, F]`, `labels [N]` and `test [N]`, as for `methods_on_features.py`. Studies
with and without `folder.near_duplicates` run in runs/near_duplicates/; run again it continues.
The tables go to studies/near_duplicates/README.md.
"""

import argparse
import pathlib
import sys

import ablation
import methods_on_features
import numpy as np

import tavaal_jax
from tavaal_jax.algorithm import near_duplicates
from tavaal_jax.data import Dataset
from tavaal_jax.engine import allocator
from tavaal_jax.report import records, statistics

README = pathlib.Path(__file__).parent / "studies" / "near_duplicates" / "README.md"
COSINES = (0.8, 0.85, 0.9, 0.925, 0.95, 0.98)
STUDIED = (0.8, 0.9)
METHODS = ("random", "uherding")


def folds_row(dataset: Dataset, cosine: float) -> list[object]:
    """What a threshold makes of a data set: cells of the table."""
    size = len(dataset.train_images)
    folds = near_duplicates.folds(
        np.concatenate([dataset.train_images, dataset.test_images]), cosine
    )
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    names, counts = np.unique(folds, return_counts=True)
    several = names[counts > 1]
    pure = sum(len(np.unique(labels[folds == name])) == 1 for name in several)
    tests = np.isin(folds[size:], folds[:size])
    return [
        cosine, len(several), int(counts[counts > 1].sum()), int(counts.max()),
        f"{pure} of {len(several)}", f"{int(tests.sum())} of {len(tests)}",
        int(np.isin(folds[:size], folds[size:]).sum()),
    ]  # fmt: skip


def curves(
    path: pathlib.Path, dataset: Dataset, cosine: float, arguments: argparse.Namespace
) -> dict[str, statistics.Curve]:
    """Curves of accuracy of each method with a threshold; 0: off."""
    given = argparse.Namespace(methods=",".join(METHODS), first_by="random", workers=1)
    config = methods_on_features.config_of(dataset.classes, given)
    config.update(trials=arguments.trials, cycles=arguments.cycles, parallel="devices")
    config.metrics, config.folder.near_duplicates = "accuracy", cosine
    folder = arguments.workdir / f"{path.stem}_{cosine}"
    tavaal_jax.run_study(config, folder, dataset)
    return statistics.curves(records.all_results(folder)[0], "accuracy")


def accuracies(
    path: pathlib.Path, dataset: Dataset, arguments: argparse.Namespace
) -> tuple[list[str], list[list[object]]]:
    """Accuracy of each method without and with a threshold: header and rows."""
    found = {cosine: curves(path, dataset, cosine, arguments) for cosine in (0.0, *STUDIED)}
    rows, labels = [], sorted(found[0.0][METHODS[0]])
    for method in METHODS:
        for cosine in (0.0, *STUDIED):
            curve, off = (found[at][method] for at in (cosine, 0.0))
            pair = map(statistics.area, statistics.in_common(curve, off))
            less = ablation.cell_of(statistics.paired(*pair)) if cosine else "-"
            shown = [f"{np.mean(list(curve[n].values())):.3f}" for n in labels]
            rows.append([f"`{method}`", cosine or "off", len(curve[labels[0]]), *shown, less])
    means = [f"accuracy at {n}" for n in labels]
    return ["method", "cosine", "n", *means, "area, less that without"], rows


def table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Lines of a table."""
    line = lambda cells: f"| {' | '.join(map(str, cells))} |"
    return ["", line(header), line(["---:"] * len(header)), *map(line, rows), ""]


def main() -> None:
    """Command line."""
    allocator.restart_with_huge_pages()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", type=pathlib.Path)
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=pathlib.Path("runs/near_duplicates")
    )
    parser.add_argument("--trials", type=int, default=5, help="0: no studies")
    parser.add_argument("--cycles", type=int, default=4)
    arguments = parser.parse_args()
    names = " ".join(path.name for path in arguments.names)
    text = [
        "# Near-duplicates", "",
        f"Written by `python benchmarks/near_duplicates.py {names} --trials={arguments.trials}"
        f" --cycles={arguments.cycles}`, on features of",
        "EfficientNet-Lite0. A fold is a connected component of images whose cosine is above the",
        "threshold; training and test images together. Those in a fold with a test image are left",
        "out of training.",
    ]  # fmt: skip
    for path in arguments.names:
        dataset = methods_on_features.dataset_of(path)
        train, test = len(dataset.train_images), len(dataset.test_images)
        text += ["", f"## {path.stem}: {train} images in training, {test} in the test set"]
        header = ["cosine", "folds of 2 or more", "images in them", "largest", "of one class",
                  "test images with one in training", "left out of training"]  # fmt: skip
        text += table(header, [folds_row(dataset, cosine) for cosine in COSINES])
        if arguments.trials:
            text += table(*accuracies(path, dataset, arguments))
        README.parent.mkdir(exist_ok=True)
        README.write_text("\n".join(text).strip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
