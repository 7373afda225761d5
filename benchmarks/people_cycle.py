"""Claim: who labels photos waits less than 5 s from the answers to the next request, once warm.

Runs the labelling loop on photos called `class__anything.jpg` in a folder (`--images`; without it,
drawn ones) and answers each request by these names. Each cycle is a new process, as when people run
the command again; with `--poll` one process waits for answers. A line for each cycle has labels,
accuracy on the folder `--test` (a sub-folder per class), seconds from the answers to the request
and to the end of the process, and CPU seconds (with `--poll` none); so it also measures accuracy
over labels. Further flags (`--config.budget=20`) go to tavaal_jax.

    python benchmarks/people_cycle.py [--images=FOLDER --test=FOLDER] [--methods=uherding,random]
        [--seeds=1] [--cycles=6] [--backbone=efficientnet_lite0] [--out=FOLDER] [--poll] [--json]

`ratio` is 5 s over the median wait, without the first two cycles of all, which compile programs.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def draw_photos(folder, count, test):
    """Draws noisy photos of three colours, `count` of each; of a test in sub-folders."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(count)
    for name, colour in (("red", (90, 0, 0)), ("green", (0, 90, 0)), ("grey", (60, 60, 60))):
        place = folder / name if test else folder
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 160, (64, 64, 3)) + np.array(colour) * random.random()
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{name}__{number}.jpg")


def answer(workdir):
    """Answers the newest request by the classes in the files' names."""
    request = max((workdir / "to_label").glob("cycle_*"))
    with (request / "to_label.csv").open(encoding="utf-8-sig", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    unfinished = workdir / f".{request.name}.tmp"
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        rows = ((name, pathlib.PurePath(name).name.split("__")[0]) for name in names)
        csv.writer(file).writerows([("file", "label"), *rows])
    unfinished.rename(workdir / "labels" / f"{request.name}.csv")  # Read whole, or not yet.


def loop(command, workdir, cycles, poll):
    """Runs the cycles of one workdir; yields number, seconds to request and end, CPU seconds."""
    wanted = lambda number: workdir / "to_label" / f"cycle_{number:03d}"
    log = (workdir.parent / f"{workdir.name}.log").open("a")
    process = None
    for number in range(-1, cycles):
        begin, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        if number >= 0:
            answer(workdir)
        if process is None:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        while not wanted(number + 1).exists() and process.poll() is None:
            time.sleep(0.01)
        if (process.poll() if poll else process.wait()) != (None if poll else 75):
            sys.exit(f"no request {number + 1}: see {log.name}")
        end, now = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = process if poll else None
        asked = os.stat(wanted(number + 1)).st_ctime  # It was renamed then.
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        if number >= 0:
            yield number, asked - begin, end - begin, cpu
    if process is not None:
        process.terminate()


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = {"images": "", "test": "", "methods": "uherding", "seeds": 1, "cycles": 6, "out": ""}
    for name, value in (usual | {"backbone": "efficientnet_lite0"}).items():
        parser.add_argument(f"--{name}", default=value, type=type(value))
    parser.add_argument("--poll", action="store_true")
    parser.add_argument("--json", action="store_true")
    given, flags = parser.parse_known_args()
    out = pathlib.Path(given.out or tempfile.mkdtemp(prefix="people_cycle_"))
    out.mkdir(parents=True, exist_ok=True)
    images, test = given.images or out / "photos", given.test or out / "test"
    if not given.images:
        draw_photos(images, 250, False)
        draw_photos(test, 30, True)
    if given.backbone:
        flags = [f"--config.backbone.name={given.backbone}", "--config.first_by=typiclust", *flags]
    if given.poll:
        flags.append("--config.folder.poll_seconds=1")
    waits = []
    print("method,seed,cycle,labels,accuracy,request_s,end_s,cpu_s")
    for method in given.methods.split(","):
        for seed in range(given.seeds):
            workdir = out / f"{method}_{seed}"
            if workdir.exists():
                sys.exit(f"{workdir} is there already: give another --out")
            command = [
                sys.executable, "-m", "tavaal_jax.main", "--config=folder", f"--workdir={workdir}",
                f"--config.folder.images={images}", f"--config.folder.test={test}",
                f"--config.data_dir={out / 'data'}", f"--config.methods={method}",
                f"--config.seed={seed}", *flags,
            ]  # fmt: skip
            for number, *seconds in loop(command, workdir, given.cycles, given.poll):
                waits.append(seconds[0])
                path = workdir / "cycles" / f"cycle_{number:03d}" / "trained.json"
                record = json.loads(path.read_bytes())
                row = method, seed, number, record["labelled"], record["test"]["accuracy"]
                print(*row, *(f"{s:.2f}" for s in seconds), sep=",", flush=True)
    ratio = 5 / statistics.median(waits[2:] or waits)
    print(json.dumps({"ratio": ratio, "seconds": waits}) if given.json else f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
