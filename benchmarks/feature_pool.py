"""Claim: a pool of features on a disk is picked from in little memory, in time linear in its size.

    python benchmarks/feature_pool.py [--sizes=1e5,1e6,1e7] [--methods=margin,uherding,coreset]
        [--width=384] [--budget=100] [--folder=FOLDER] [--out=FILE.csv]

Features are float16 in one .npy file, mapped; T is the linear head, trained on 100 of them. Each
row is a study of its own process, of two cycles: seconds from mapping the file to its end, those of
the stage `select` (values of all others, and the pick), the compilation in both, and the highest
`RssAnon`, memory that is not mapped from a file. Values that take a quarter of the machine's memory
lie in a temporary file. A line projects `select` to 10^9 images by a straight line through all.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import harness
import numpy as np
import scaling

import tavaal_jax
from tavaal_jax.data import Dataset
from tavaal_jax.report import files, records

CLASSES, TESTED, _PART = 10, 1000, 2**14
COLUMNS = ("method", "images", "seconds", "select_s", "peak_mib", "picks")


def store(folder, size, width):
    """Random features around a center of each class, and their labels, some at a time."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((CLASSES, width), np.float32) / 4
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (size, width))
    labels = random.integers(CLASSES, size=size, dtype=np.int32)
    for begin in range(0, size, _PART):
        part = labels[begin : begin + _PART]
        noise = random.standard_normal((len(part), width), np.float32)
        features[begin : begin + _PART] = noise + centers[part]
    features.flush()
    np.save(folder / "labels.npy", labels)


def study(folder, method, budget):
    """Runs a study of one method in this process, `-> row`."""
    begin = time.perf_counter()
    config = tavaal_jax.load_config("default")
    config.update(methods=method, trials=1, cycles=2, initial=100, budget=budget, subset=0)
    config.update(epochs=1, batch_size=16, diagnostics=False, data_placement="streamed")
    config.task.network, config.normalisation.features = "linear", "together"
    config.augmentation.update(pad=0, flip=False)
    config.vae.network = "mlp"
    with scaling.Peak() as peak:
        features = np.load(folder / "features.npy", "r")
        labels = np.load(folder / "labels.npy")
        test = np.array(features[:TESTED]), labels[:TESTED]
        data = Dataset.from_features(features, labels, *test)
        with tempfile.TemporaryDirectory(dir=folder) as workdir:
            tavaal_jax.run_study(config, workdir, data)
            trial = files.trial_folder(pathlib.Path(workdir), method, 0)
            log = records.read_log(trial)
            picked = [row["index"] for row in files.read_csv(trial / "picks.csv")]
    chosen = [line["seconds"] for line in log if line.get("stage") == "select"]
    return {
        "method": method, "images": len(labels),
        "seconds": round(time.perf_counter() - begin, 1), "select_s": round(sum(chosen), 1),
        "peak_mib": round(peak.bytes / scaling.MIB), "picks": scaling.digest(picked),
    }  # fmt: skip


def main():
    """Command line; `--one` is how it starts the processes that it measures."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(float(number)) for number in text.split(",")]
    flags.add_argument("--sizes", type=numbers, default=[10**5, 10**6, 10**7])
    flags.add_argument("--methods", default="margin,uherding,coreset")
    flags.add_argument("--width", type=int, default=384)
    flags.add_argument("--budget", type=int, default=100)
    flags.add_argument("--folder", default=None, help="where the features are to lie")
    flags.add_argument("--out", default="", help="a csv file for the rows")
    flags.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = flags.parse_args()
    if given.one:
        folder, method = given.one
        print(json.dumps(study(pathlib.Path(folder), method, given.budget)))
        return
    print(harness.machine())
    rows = []
    for size in given.sizes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            store(pathlib.Path(folder), size, given.width)
            for method in given.methods.split(","):
                command = [sys.executable, __file__, "--one", folder, method]
                command.append(f"--budget={given.budget}")
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(*rows[-1].values(), sep=",", flush=True)
    for method in given.methods.split(",") if len(given.sizes) > 1 else ():
        points = [(row["images"], row["select_s"]) for row in rows if row["method"] == method]
        slope, _ = np.polyfit(*zip(*points, strict=True), 1)
        print(f"{method}: {slope * 1e6:.3g} us an image, 10^9 images {slope * 1e9 / 3600:.3g} h")
    if given.out:
        with open(given.out, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
