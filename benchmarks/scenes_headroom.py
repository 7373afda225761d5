"""Claim: with the DRN of the drawn set `scenes`, it matters which of its images are labelled.

    python benchmarks/scenes_headroom.py [--seeds=3] [--sizes 24 96] [--json]

Trains the network of `configs/scenes.py` on random images; on as many images, all but the first 24
of them picked by an oracle that knows the labels (see `scenes_proxy.oracle`); and on all images.
`ratio` is the oracle's mean IoU over that of random images, at the largest of --sizes.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import numpy as np
from scenes_proxy import oracle, shown, table

import tavaal_jax
from tavaal_jax.data import Dataset
from tavaal_jax.data.sets.scenes import scenes
from tavaal_jax.engine import compilation

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from configs import scenes as config_file


def learned(arrays: dict[str, np.ndarray], chosen: np.ndarray, seed: int) -> float:
    """Mean IoU after training on the images `chosen [n]`."""
    config = config_file.get_config()
    config.update(methods="random", trials=1, cycles=1, initial=len(chosen), seed=seed)
    config.update(diagnostics=False, parallel="devices")
    dataset = Dataset.from_arrays(
        arrays["train_images"][chosen], arrays["train_labels"][chosen], arrays["test_images"],
        arrays["test_labels"], class_names=list(arrays["class_names"]), name="scenes",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        rows = tavaal_jax.run_study(config, folder, dataset=dataset).rows()
    return next(row["value"] for row in rows if row["metric"] == "mean_iou")


def choices(arrays: dict[str, np.ndarray], sizes: list[int], seed: int) -> dict[str, np.ndarray]:
    """What is labelled, by name."""
    labels, first = arrays["train_labels"], min(sizes)
    order = np.random.default_rng(seed).permutation(len(labels))
    best = oracle(labels, len(arrays["class_names"]), max(sizes))
    best = np.concatenate([order[:first], best[~np.isin(best, order[:first])]])
    found = {f"random {n}": order[:n] for n in sizes}
    found |= {f"oracle {n}": best[:n] for n in sizes if n > first}
    return {**found, "all": np.arange(len(labels))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="two at least")
    parser.add_argument("--sizes", type=int, nargs="+", default=[24, 96], help="labelled images")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    compilation.keep_in_cache()
    arrays = scenes.arrays()
    values: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        for name, chosen in choices(arrays, arguments.sizes, seed).items():
            values.setdefault(name, []).append(learned(arrays, np.sort(chosen), seed))
            print(f"seed {seed}, {name}: {values[name][-1]:.3f}", file=sys.stderr, flush=True)
    mean = lambda name: shown(np.array(values[name])) if name in values else ""
    rows = [[str(n), mean(f"random {n}"), mean(f"oracle {n}")] for n in sorted(arguments.sizes)]
    print(table(["labelled", "random", "oracle"], [*rows, ["all", mean("all"), ""]]))
    if arguments.json:
        n = max(arguments.sizes)
        means = {name: statistics.mean(found) for name, found in values.items()}
        ratio = means[f"oracle {n}"] / means[f"random {n}"]
        print(json.dumps({"ratio": ratio, "mean_iou": values}))


if __name__ == "__main__":
    main()
