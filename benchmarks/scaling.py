"""Claim: scoring and k-center take time linear in the pool; scoring from a disk takes no memory.

    python benchmarks/scaling.py [--images=10000,100000,1000000] [--embeddings=10000,...,1000000]
        [--devices=1,2,4] [--processes=1,2] [--picks=1000] [--folder=...] [--slow=0] [--json]

Each measurement has one process of its own (or several), so that peaks of memory are separate.
Memory is `RssAnon`, which does not count what is mapped from a disk, sampled every 10 ms from the
start of the measured stage. Scoring is the whole stage `select` of TA-VAAL (T, R, VAE, D and the
choice) on 32x32 colour images with tiny networks, so that reading has the largest possible share.
K-center picks from random embeddings of 64 numbers, with 100 initial centers; a digest shows
whether the picks are the same. Programs are compiled before.

`--slow=20` delays every image that is read in training by 20 ms and prints the share of a stage
with ResNet-18, 16 images per step, that was spent waiting for the two read-ahead threads.
"""

import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import harness
import jax
import numpy as np

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.engine import processes, sharded_picks
from tavaal_jax.study import cycle, setup
from tavaal_jax.study.context import Cycle

SHAPE = (32, 32, 3)
WIDTH = 64  # of an embedding
CENTERS = 100
MIB = 2**20


def main():
    """Command line; `--one` is how it starts the processes that it measures."""
    flags = harness.parser(__doc__, rounds=1)
    whole = lambda text: [int(float(number)) for number in text.split(",") if number]
    flags.add_argument("--images", type=whole, default=[10**4, 10**5, 10**6])
    flags.add_argument("--embeddings", type=whole, default=[10**4, 10**5, 10**6])
    flags.add_argument("--devices", type=whole, default=[1, 2, 4])
    flags.add_argument("--processes", type=whole, default=[1, 2])
    flags.add_argument("--picks", type=int, default=1000)
    flags.add_argument("--folder", default=None, help="of the images on a disk")
    flags.add_argument("--slow", type=float, default=0.0, help="milliseconds per image")
    flags.add_argument("--one", default=None, help="what a measured process does, JSON")
    arguments = flags.parse_args()
    if arguments.one:
        return one(**json.loads(arguments.one))
    print(harness.machine())
    if arguments.slow:
        found = [measure({"what": "train", "slow": arguments.slow})]
    else:
        found = [*scoring(arguments), *choosing(arguments)]
        project(found)
    if arguments.json:
        print(json.dumps({"runs": found, "machine": harness.machine()}))
    return None


# What is measured


def scoring(arguments):
    """Yields the runs of a pool on a disk, and of one in memory beside it."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = os.path.join(folder, "images.npy")
        for images in arguments.images:
            store(path, images)
            for feeding in ("streamed", "resident") * arguments.rounds:
                yield measure({"what": "score", "images": images, "path": path, "feed": feeding})
        size = min(max(arguments.images, default=0), 10**5)
        for devices, count in layouts(arguments) if size else ():
            job = {"what": "score", "images": size, "path": path, "feed": "streamed"}
            yield measure(job, devices, count)


def choosing(arguments):
    """Yields the runs of k-center."""
    for size in arguments.embeddings:
        yield measure({"what": "k_center", "images": size, "picks": arguments.picks})
    size = min(max(arguments.embeddings, default=0), 10**6)
    for devices, count in layouts(arguments) if size else ():
        job = {"what": "k_center", "images": size, "picks": arguments.picks}
        yield measure(job, devices, count)


def layouts(arguments):
    """Devices of each process, and processes."""
    devices = [(number, 1) for number in arguments.devices if number > 1]
    return devices + [(1, number) for number in arguments.processes if number > 1]


def store(path, images):
    """Random images, written some at a time."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (images, *SHAPE))
    random = np.random.default_rng(0)
    for begin in range(0, images, 2**13):
        part = array[begin : begin + 2**13]
        part[:] = random.integers(0, 256, part.shape, np.uint8)
    array.flush()


def measure(job, devices=1, count=1):
    """Runs `job` in `count` processes of some devices; what the first of them says."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ}
    if jax.default_backend() == "cpu":
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    run = []
    for index in range(count):
        condition = {**job, "place": [f"localhost:{port}", count, index] if count > 1 else None}
        argv = [sys.executable, __file__, "--one", json.dumps(condition)]
        out = subprocess.PIPE if index == 0 else subprocess.DEVNULL
        run.append(subprocess.Popen(argv, env=environment, stdout=out, encoding="utf-8"))
    out, _ = run[0].communicate()
    if any(process.wait() for process in run):
        raise SystemExit(f"error: {job} failed, see above")
    keys = {key: value for key, value in job.items() if key != "path"}
    said = {**keys, "devices": devices, "processes": count, **json.loads(out.splitlines()[-1])}
    print("  " + "  ".join(f"{key} {value}" for key, value in said.items()), flush=True)
    return said


# In a process of its own


def one(what, place, **job):
    """What one process does, and says as JSON."""
    if place:
        processes.join(*place)
    print(json.dumps({"score": score, "k_center": k_center, "train": train}[what](**job)))


def score(images, path, feed):
    """The stage `select` of TA-VAAL over a whole pool."""
    pixels = np.load(path, "r")[:images]
    pool, key = prepare(pixels, feed), jax.random.key(0)
    select(pool, key, np.arange(2 * pool.config.score_batch_size * jax.device_count()))
    with Peak() as peak:
        begin = time.perf_counter()
        state = select(pool, key)
        seconds = time.perf_counter() - begin
    return {
        "seconds": round(seconds, 3), "per_second": round(images / seconds),
        "peak_MiB": round(peak.bytes / MIB), "picks": digest(np.flatnonzero(state.picked_in == 0)),
    }  # fmt: skip


def prepare(pixels, feed, **changes):
    """A pool of images, of which nobody knows the labels but the oracle."""
    labels = (np.arange(len(pixels)) % 10).astype(np.int32)
    ids = np.arange(len(pixels)).astype("S8")
    names = tuple(map(str, range(10)))
    test = np.array(pixels[:128])
    dataset = Dataset("images", pixels, labels, ids, test, labels[:128], names)
    config = harness.cifar100.get_config()
    with config.unlocked():
        config.update({
            "data_placement": feed,
            "subset": 0, "initial": 128, "budget": 1000, "score_batch_size": 512,
            "diagnostics": False, "task": {"widths": (4, 4), "blocks": (1, 1)},
            "vae": {"widths": (4, 4), "latent": 4, "image_size": 8},
            "discriminator": {"hidden": (16,)},
        })  # fmt: skip
        config.update_from_flattened_dict(changes)
        config.normalisation.update(mean=(0.5,), deviation=(0.25,))
    return setup.prepare(
        config, METHODS["tavaal"], dataset, setup.place(config, dataset), SimulatedOracle(labels)
    )


def select(prepared, key, some=None):
    """The state after the picks of the first cycle, from some of the pool; nothing was trained."""
    state = cycle.start(prepared, key)
    first = Cycle(prepared, key, state, lambda stage: 1)
    if some is not None:
        vars(first)["subset"] = some
    steps = cycle.run_stage(first, "select", state)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value[0]


def k_center(images, picks):
    """Greedy k-center on random embeddings."""
    random = np.random.default_rng(0)
    labelled = random.standard_normal((CENTERS, WIDTH), np.float32)
    subset = random.standard_normal((images, WIDTH), np.float32)
    sharded_picks.k_center(np.zeros_like(subset), labelled, picks)
    with Peak() as peak:
        begin = time.perf_counter()
        positions = np.asarray(sharded_picks.k_center(subset, labelled, picks)[0])
        seconds = time.perf_counter() - begin
    return {
        "seconds": round(seconds, 3), "per_pick_and_image_ns": seconds / picks / images * 1e9,
        "peak_MiB": round(peak.bytes / MIB), "picks_are": digest(positions),
    }  # fmt: skip


def train(slow):
    """Waiting in a training stage of ResNet-18 whose images come slowly; after a first step."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (4096, *SHAPE), np.uint8)
    small = {"task.widths": (64, 128, 256, 512), "task.blocks": (2, 2, 2, 2), "batch_size": 16,
             "epochs": 4, "steps_per_call": 1}  # fmt: skip
    prepared, key = prepare(pixels, "streamed", **small), jax.random.key(0)

    class Slow(np.ndarray):
        def take(self, rows, **options):
            time.sleep(slow / 1000 * np.size(rows))
            return np.take(np.asarray(self), rows, **options)

    slowed = pixels.view(Slow)
    prepared = prepared._replace(train=prepared.train.replace(images=slowed))
    state = cycle.start(prepared, key)
    waited, begin = [], None
    for _, report in cycle.run_stage(Cycle(prepared, key, state, lambda stage: 1), "task", state):
        if begin is None:
            begin = time.perf_counter()  # The first step has compiled.
        else:
            waited.append(report.waited)
    seconds = time.perf_counter() - begin
    return {"seconds": round(seconds, 2), "waited": round(sum(waited) / seconds, 3)}


class Peak:
    """Peak of this process's anonymous memory while the context lasts."""

    def __enter__(self):
        self.bytes, self._go_on = 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._go_on = False
        self._thread.join()

    def _watch(self):
        while self._go_on:
            status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
            (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
            self.bytes = max(self.bytes, 1024 * int(line.split()[1]))
            time.sleep(0.01)


def digest(numbers):
    """Stands for an array of whole numbers."""
    return hashlib.sha256(np.asarray(numbers, np.int64).tobytes()).hexdigest()[:8]


# What follows


def project(found):
    """Fits a cost per image, and says what a pool of 10^9 would take."""
    for what, unit in (("score", "image"), ("k_center", "image and pick")):
        runs = [r for r in found if r["what"] == what and r["devices"] * r["processes"] == 1
                and r.get("feed", "streamed") == "streamed"]  # fmt: skip
        sizes = [r["images"] * r.get("picks", 1) if what == "k_center" else r["images"]
                 for r in runs]  # fmt: skip
        if len(set(sizes)) < 2:
            continue
        seconds, memory = ([r[key] for r in runs] for key in ("seconds", "peak_MiB"))
        slope, constant = np.polyfit(sizes, seconds, 1)
        per_image = np.polyfit([r["images"] for r in runs], memory, 1)[0] * MIB
        print(
            f"{what}: {slope * 1e9:.3g} ns per {unit} + {constant:.2f} s;"
            f" {per_image:.3g} bytes of memory per image"
        )
        chips, picks = 256, 1 if what == "score" else 10_000
        print(
            f"  10^9 images{'' if what == 'score' else ', 10,000 picks'} on {chips} devices as"
            f" fast as this one, each with its part, collectives free:"
            f" {slope * 1e9 * picks / chips / 3600:.3g} h"
        )


if __name__ == "__main__":
    main()
