"""Annotators for tests: folders of small photos, and answers to requests."""

import csv
import pathlib

import numpy as np
from PIL import Image

import tavaal_jax
from configs import folder_from_scratch as folder_config
from tavaal_jax.errors import WaitingForLabels

SIDE = 8


def picture(number, label):
    """Grey, of its own for each number; what it shows tells the class."""
    pixels = np.random.default_rng(number).integers(0, 60, (SIDE, SIDE)).astype(np.uint8)
    pixels[:, label * 3 : label * 3 + 2] += 150
    return pixels


def folder(path, count=60, classes=("cat", "dog"), first=0):
    """Writes photos, of each class in turn; returns the class of each file."""
    path.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number in range(first, first + count):
        label = number % len(classes)
        name = f"photo_{number:03d}.png"
        Image.fromarray(picture(number, label)).save(path / name)
        truth[name] = classes[label]
    return truth


def config(images, tmp_path, **changes):
    """A tiny network for tiny photos."""
    one = folder_config.get_config()
    one.update(epochs=2, batch_size=8, initial=16, budget=8, data_dir=str(tmp_path / "cache"))
    one.augmentation.update(pad=1, flip=False)
    one.task.update(widths=(4,), blocks=(1,))
    one.vae.update(latent=4, widths=(4, 4))
    one.discriminator.hidden = (8,)
    one.folder.update(images=str(images), image_size=SIDE, channels=1)
    one.update_from_flattened_dict(changes)
    return one


def run(one, workdir):
    """Runs until labels are missing, or to the end: the line that says so, or None, and the log."""
    log = []
    try:
        tavaal_jax.run_study(one, workdir, progress=lambda e: e.text and log.append(e.text))
    except WaitingForLabels as waiting:
        return str(waiting), log
    return None, log


def requested(workdir, number):
    """Rows of a request's list."""
    path = pathlib.Path(workdir) / "to_label" / f"cycle_{number:03d}" / "to_label.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def answer(workdir, number, truth, but=(), name="answers.csv", **others):
    """Labels a request in a file of its own, all but `but`; `others` are labels by file stem."""
    lines = ["file,label"]
    for row in requested(workdir, number):
        if row["file"] not in but:
            label = others.get(pathlib.Path(row["file"]).stem, truth[row["file"]])
            lines.append(f"{row['file']},{label}")
    path = pathlib.Path(workdir) / "labels" / f"{number:03d}_{name}"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
