"""Image data sets of TensorFlow Datasets, read as array_record without TensorFlow.

Preparing one needs TensorFlow; that happens once, in a child process, so that training never
imports it.
"""

import importlib.util
import io
import json
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.data.cache import New, fill
from tavaal_jax.data.pictures import lazy
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# What the TFDS builders download.
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
    "caltech101": (
        "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1",
    ),
}
Builder = Any
"""A `tfds.core.DatasetBuilder`: TFDS has no types, and is imported when it is used."""
Record = dict[str, Any]
"""Fields of an example: numbers, bytes of names and undecoded pictures, arrays."""


class Records(Protocol):
    """Examples by number, as TFDS's `RandomAccessDataSource` has them."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Record: ...
    def __getitems__(self, numbers: Sequence[int]) -> Sequence[Record]: ...


# The paper's text says that images are resized to this, its Table 1 that they are cropped.
_CALTECH_SHAPE = (224, 224, 3)
_READ_AT_ONCE = 1000  # records with small or undecoded images


def read(config: ConfigDict, new: New) -> None:
    """Fills arrays of `config.dataset`, prepared first if need be.

    Images with an id are sorted by it.
    """
    builder = prepared(config)
    for split in ("train", "test"):
        _split(builder, split, new)
    fill(new, {"class_names": np.array(builder.info.features["label"].names)})


def caltech101(config: ConfigDict, new: New) -> None:
    """Fills arrays of Caltech-101, sorted by class and file name; each class's last are tested.

    TFDS's own split depends on the order in which a file system lists files.
    """
    builder = prepared(config)
    names = np.array(builder.info.features["label"].names)
    source = undecoded(builder, "train+test", "image")
    known = [
        (record["label"], record["image/file_name"].decode())
        for record in records(source, range(len(source)))
    ]
    order = np.array(sorted(range(len(known)), key=known.__getitem__))
    labels = np.array([known[number][0] for number in order], np.int32)
    ids = np.array([f"{names[k]}/{file.removesuffix('.jpg')}" for k, file in sorted(known)])
    # Ten names of each folder give the paper's 1,019 test images of 9,144: one is not of an image.
    held_out = np.where(names == "background_google", 9, 10)
    is_test = np.searchsorted(labels, labels, "right") - np.arange(len(labels)) <= held_out[labels]
    for split, part in (("train", ~is_test), ("test", is_test)):
        images = new(f"{split}_images", (part.sum(), *_CALTECH_SHAPE), np.uint8)
        for at, record in enumerate(records(source, order[part])):
            images[at] = lazy.pixels(
                io.BytesIO(record["image"]), _CALTECH_SHAPE, ids[part][at], True
            )
        fill(new, {f"{split}_labels": labels[part]})
    fill(new, {"train_ids": ids[~is_test], "class_names": names})


def prepared(config: ConfigDict) -> Builder:
    """TFDS's builder of `config.dataset`, prepared first if need be."""
    name, data_dir = config.dataset, user_path(config.data_dir, "data_dir")
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        _prepare(builder, data_dir)
        builder = _builder(name, data_dir)
    return builder


def _builder(name: str, data_dir: pathlib.Path) -> Builder:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except ValueError as error:
        raise UserError(
            f"{name} in {data_dir} cannot be read as array_record"
            f" ({' '.join(str(error).split())[:120]}): give --config.data_dir a folder of its own"
        ) from error


def undecoded(builder: Builder, split: str, *fields: str) -> Records:
    """Records by number; `fields` are pictures and stay as they are in their files."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(
        split, decoders={field: tfds.decode.SkipDecoding() for field in fields}
    )


def _split(builder: Builder, split: str, new: New) -> None:
    source = undecoded(builder, split, "image")
    numbers = range(len(source))
    ids, order = [f"{split}_{i}" for i in numbers], np.arange(len(source))
    if "id" in builder.info.features:
        ids = [record["id"].decode() for record in records(source, numbers)]
        order = np.argsort([int(text.rpartition("_")[2]) for text in ids], kind="stable")
    labels = new(f"{split}_labels", (len(source),), np.int32)
    images = new(f"{split}_images", (len(source), *builder.info.features["image"].shape), np.uint8)
    for at, record in enumerate(records(builder.as_data_source(split), order)):
        images[at], labels[at] = record["image"], record["label"]
    if split == "train":
        fill(new, {"train_ids": np.array(ids)[order]})


def records(source: Records, numbers: Sequence[int] | np.ndarray) -> Iterator[Record]:
    """Records of these numbers, read some at a time."""
    for start in range(0, len(numbers), _READ_AT_ONCE):
        yield from source.__getitems__([int(i) for i in numbers[start : start + _READ_AT_ONCE]])


def _prepare(builder: Builder, data_dir: pathlib.Path) -> None:
    """Runs `data.sets.prepare` in a child process; UserError says what is missing."""
    name = builder.name
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{name} is not prepared in {data_dir}, and preparing it once needs TensorFlow:"
            " run pip install 'tavaal_jax[tfds]', then the same command again"
        )
    _check_files(builder, data_dir)
    print(f"Preparing {name} in {data_dir}, once; this takes a few minutes.", file=sys.stderr)
    log = data_dir / f"prepare_{name}.log"
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "tavaal_jax.data.sets.prepare", name, str(data_dir)]
        code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if code:
        lines = log.read_text("utf-8", "replace").strip().splitlines() or ["no output"]
        raise UserError(f"preparing {name} failed: {lines[-1]} (all of it: {log})")
    log.unlink()


def _check_files(builder: Builder, data_dir: pathlib.Path) -> None:
    """UserError names files that are neither there nor to be had."""
    name, manual = builder.name, data_dir / "downloads" / "manual"
    # As TFDS calls them; not always the last part of the URL.
    places = {url: manual / builder.url_infos[url].filename for url in URLS.get(name, ())}
    missing = {
        url: place
        for url, place in places.items()
        if not place.exists() and not _downloaded(url, data_dir)
    }
    if missing:
        _check_network(name, missing, data_dir)


def _downloaded(url: str, data_dir: pathlib.Path) -> bool:
    infos = (data_dir / "downloads").rglob("*.INFO")
    return any(url in json.loads(info.read_text("utf-8"))["urls"] for info in infos)


def _check_network(name: str, missing: dict[str, pathlib.Path], data_dir: pathlib.Path) -> None:
    """UserError where there is no network, with which TFDS would try for minutes."""
    try:
        request = urllib.request.Request(next(iter(missing)), method="HEAD")
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError:
        return  # Somebody answered: let TFDS find out whether the file is to be had.
    except OSError as error:
        reason = getattr(error, "reason", error)
        files = " and ".join(
            url if url.endswith(f"/{place.name}") else f"{url} (as {place.name})"
            for url, place in missing.items()
        )
        raise UserError(
            f"{name} is not in {data_dir} and cannot be downloaded ({reason}): get {files}"
            f" elsewhere and place them in {data_dir / 'downloads' / 'manual'}"
        ) from error
