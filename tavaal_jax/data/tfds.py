"""Image data sets of TensorFlow Datasets, read as array_record without TensorFlow.

Preparing one needs TensorFlow; that happens once, in a child process, so that training never
imports it.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np

from tavaal_jax.data.cache import New, fill
from tavaal_jax.errors import UserError

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# What the TFDS builders download; the last part of a URL is the file's name in downloads/manual.
URLS = {
    "cifar10": (f"{_CIFAR}cifar-10-binary.tar.gz",),
    "cifar100": (f"{_CIFAR}cifar-100-binary.tar.gz",),
    "svhn_cropped": tuple(f"{_SVHN}{split}_32x32.mat" for split in ("train", "test", "extra")),
    "fashion_mnist": tuple(
        f"{_FASHION}{part}-ubyte.gz"
        for part in (
            "train-images-idx3",
            "train-labels-idx1",
            "t10k-images-idx3",
            "t10k-labels-idx1",
        )
    ),
}
_READ_AT_ONCE = 1000


def read(config, new: New) -> None:
    """Fills arrays of `config.dataset`, prepared first if need be.

    Images with an id are sorted by it.
    """
    name, data_dir = config.dataset, pathlib.Path(config.data_dir).expanduser()
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        _prepare(name, data_dir)
        builder = _builder(name, data_dir)
    for split in ("train", "test"):
        _split(builder, split, new)
    fill(new, {"class_names": np.array(builder.info.features["label"].names)})


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except ValueError as error:
        raise UserError(
            f"{name} in {data_dir} cannot be read as array_record"
            f" ({' '.join(str(error).split())[:120]}): give --config.data_dir a folder of its own"
        ) from error


def _split(builder, split, new):
    import tensorflow_datasets as tfds

    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    numbers = range(len(source))
    ids, order = [f"{split}_{i}" for i in numbers], np.arange(len(source))
    if "id" in builder.info.features:
        ids = [record["id"].decode() for part in _parts(source, numbers) for record in part]
        order = np.argsort([int(text.rpartition("_")[2]) for text in ids], kind="stable")
    labels = new(f"{split}_labels", (len(source),), np.int32)
    images = new(f"{split}_images", (len(source), *builder.info.features["image"].shape), np.uint8)
    done = 0
    for part in _parts(builder.as_data_source(split), order):
        images[done : done + len(part)] = [record["image"] for record in part]
        labels[done : done + len(part)] = [record["label"] for record in part]
        done += len(part)
    if split == "train":
        fill(new, {"train_ids": np.array(ids)[order]})


def _parts(source, numbers):
    """Records of these numbers, some at a time."""
    for start in range(0, len(numbers), _READ_AT_ONCE):
        yield source.__getitems__([int(i) for i in numbers[start : start + _READ_AT_ONCE]])


def _prepare(name, data_dir):
    """Runs :mod:`tavaal_jax.data.prepare` in a child process; UserError says what is missing."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{name} is not prepared in {data_dir}, and preparing it once needs TensorFlow:"
            " run pip install 'tavaal_jax[tfds]', then the same command again"
        )
    if missing := [url for url in URLS[name] if not _downloaded(url, data_dir)]:
        _check_network(name, missing, data_dir)
    print(f"Preparing {name} in {data_dir}, once; this takes a few minutes.", file=sys.stderr)
    log = data_dir / f"prepare_{name}.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "tavaal_jax.data.prepare", name, str(data_dir)]
        code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if code:
        lines = log.read_text().strip().splitlines() or ["no output"]
        raise UserError(f"preparing {name} failed: {lines[-1]} (all of it: {log})")
    log.unlink()


def _downloaded(url, data_dir):
    downloads = data_dir / "downloads"
    if (downloads / "manual" / url.rpartition("/")[2]).exists():
        return True
    return any(url in json.loads(info.read_text())["urls"] for info in downloads.rglob("*.INFO"))


def _check_network(name, urls, data_dir):
    """TFDS tries for minutes where there is no network: look first."""
    try:
        urllib.request.urlopen(urllib.request.Request(urls[0], method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return  # Somebody answered: let TFDS find out whether the file is to be had.
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{name} is not in {data_dir} and cannot be downloaded ({reason}): get"
            f" {' and '.join(urls)} elsewhere and place them in {data_dir / 'downloads' / 'manual'}"
        ) from error
