"""Claim: DRN-D-22 learns from and scores images of Cityscapes' size as fast as with PyTorch.

    python benchmarks/large_images.py [--images=64] [--rounds=5] [--run] [--json]

A step is T's on 4 windows of 412 pixels, cut from drawn streets of 2048x1024, 19 classes; ours cuts
and flips them too. A score is T's entropy of a whole image, one image at a time. The peer is
`tests/torch_models.py` on batches prepared beforehand, in its faster memory format.
`ratio` is the peer's time for a step over ours.

`--run` instead writes the images as Cityscapes' folders, runs `configs/cityscapes.py` with TA-VAAL
on them, read from the disk, for two cycles of two epochs, and prints seconds per step of each stage
and the process's anonymous memory: its peak, and its median in each quarter of the run.
"""

import collections
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import harness
import numpy as np
from PIL import Image

from configs import cityscapes as config_file
from tavaal_jax.data import Dataset
from tavaal_jax.data.sets import cityscapes
from tavaal_jax.data.sets.scenes import scenes

HEIGHT, WIDTH, BATCH = 1024, 2048, 4


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=5)
    flags.add_argument("--images", type=int, default=64)
    flags.add_argument("--run", action="store_true", help="a whole run, for its memory")
    arguments = flags.parse_args()
    if arguments.run:
        return whole_run(arguments)
    programs = harness.Programs(config(), dataset(arguments.images), "entropy")
    whole = np.arange(1)
    ours = {
        "step, ours": lambda: harness.turn(lambda: programs.train("task", 1)),
        "score, ours": lambda: harness.turn(lambda: programs.scores(whole)),
    }
    for side in ours.values():
        side()  # compiles
    works = {"step": "segment", "score": "segment_score"}
    peers = {
        name: harness.Peer(
            work, arguments.huge_pages_for_peer, batch_size=BATCH, height=HEIGHT, width=WIDTH
        )
        for name, work in works.items()
    }
    sides = {**ours, **{f"{name}, PyTorch": peer for name, peer in peers.items()}}
    times = harness.interleave(sides, arguments.rounds)
    for name, peer in peers.items():
        chosen = {side: times[side] for side in (f"{name}, ours", f"{name}, PyTorch")}
        peer.close()
        title = f"{name} of DRN-D-22, {arguments.images} images of {WIDTH}x{HEIGHT}"
        # The step's object is the last line.
        peer.about["name"] = name
        reports = (title, chosen, peer.about["gflop"], arguments)
        if name == "score":
            harness.report(*reports, peers=peer.about)
        else:
            step = reports
    harness.report(*step, peers=peers["step"].about)
    return None


def config(**changes):
    """configs/cityscapes.py with what a benchmark needs."""
    one = config_file.get_config()
    one.update(batch_size=BATCH, steps_per_call=1, data_placement="resident")
    one.update_from_flattened_dict(changes)
    return one


def frames(count):
    """Drawn streets of Cityscapes' size and raw ids, one after the other."""
    for number in range(count):
        image, label = scenes.scene(0, number, "train")
        times = -(-HEIGHT // image.shape[0])
        larger = (x.repeat(times, 0).repeat(times, 1)[:HEIGHT, :WIDTH] for x in (image, label))
        yield tuple(larger)


def dataset(count):
    """`count` frames of 19 classes in memory."""
    images, labels = map(np.stack, zip(*frames(count), strict=True))
    ids = cityscapes.TRAIN_IDS
    return Dataset.from_arrays(
        images, ids[labels], images[:1], ids[labels[:1]],
        class_names=[str(number) for number in range(19)],
    )  # fmt: skip


# A whole run


def whole_run(arguments):
    """Runs `main` on folders of PNGs and watches its memory."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        write(root / "data", "train", arguments.images)
        write(root / "data", "val", 4)
        command = [
            sys.executable, "-m", "tavaal_jax.main", "--config=configs/cityscapes.py",
            f"--workdir={root / 'study'}", f"--config.cityscapes.folder={root / 'data'}",
            "--config.methods=tavaal", "--config.trials=1", "--config.cycles=2",
            "--config.epochs=2", "--config.initial=16", "--config.budget=16",
            "--config.subset=0", "--config.data_placement=streamed", f"--config.data_dir={root}",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=harness.FOLDER.parent)
        begin, samples = time.monotonic(), []
        while process.poll() is None:
            memory = anonymous(process.pid)
            if memory:
                samples.append(memory)
            time.sleep(0.5)
        seconds = time.monotonic() - begin
        if process.returncode:
            raise SystemExit(process.returncode)
        stages = per_step(root / "study" / "tavaal" / "trial_0" / "metrics.jsonl")
    quarters = [round(statistics.median(part) / 2**30, 2) for part in np.array_split(samples, 4)]
    result = {
        "seconds": round(seconds), "peak_GiB": round(max(samples) / 2**30, 2),
        "median_GiB_by_quarter": quarters, "seconds_per_step": stages,
    }  # fmt: skip
    print(f"{arguments.images} images of {WIDTH}x{HEIGHT}; {harness.machine()}")
    for name, value in result.items():
        print(f"  {name}: {value}")
    if arguments.json:
        print(json.dumps(result))


def write(root, split, count):
    """Frames as Cityscapes' folders have them."""
    for number, (image, label) in enumerate(frames(count)):
        for top, ending, pixels in (
            ("leftImg8bit", "leftImg8bit", image), ("gtFine", "gtFine_labelIds", label)
        ):  # fmt: skip
            file = root / top / split / "drawn" / f"drawn_{number:06d}_000019_{ending}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file, compress_level=1)


def anonymous(pid):
    """Bytes of a process's anonymous memory; 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return 1024 * int(lines[0].split()[1]) if lines else 0


def per_step(file):
    """Median seconds of a training step by cycle and stage, the first call's compilation aside."""
    seconds, before = collections.defaultdict(list), {}
    for line in map(json.loads, file.read_text().splitlines()):
        place = (line["cycle"], line["stage"])
        if place[1] not in ("task", "joint", "adversary"):
            continue
        if place in before:
            seconds[place].append(line["seconds"] / (line["step"] - before[place]))
        before[place] = line["step"]
    return {f"cycle {c}, {s}": round(statistics.median(v), 2) for (c, s), v in seconds.items()}


if __name__ == "__main__":
    main()
