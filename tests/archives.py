"""Small archives in the upstream layouts, put where TFDS keeps what it has downloaded."""

import io
import json
import pathlib
import tarfile

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums, resource

from tavaal_jax.data.tfds import URLS

CIFAR_TRAIN, CIFAR_TEST = 400, 40


def images(count: int, seed: int) -> np.ndarray:
    """Colour images `[count, 32, 32, 3]`, each recognisable."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def labels(count: int, classes: int) -> np.ndarray:
    """Every class in turn."""
    return (np.arange(count) % classes).astype(np.uint8)


def place(data_dir: pathlib.Path, name: str, url: str, content: bytes) -> None:
    """Puts `content` into the download cache, where the builder `name` looks for `url`."""
    infos = tfds.builder_cls(name).url_infos or checksums.get_all_url_infos()
    info = infos[url]
    path = data_dir / "downloads" / resource.get_dl_fname(url, info.checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    record = {"dataset_names": [], "urls": [url], "original_fname": info.filename}
    resource.get_info_path(path).write_text(json.dumps(record))


def tar(files: dict[str, bytes]) -> bytes:
    """A tar.gz of `files`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def records(pictures: np.ndarray, *columns: np.ndarray) -> bytes:
    """CIFAR's binary records: label bytes, then the image, channels first."""
    flat = pictures.transpose(0, 3, 1, 2).reshape(len(pictures), -1)
    return np.concatenate([*(c[:, None] for c in columns), flat], axis=1).tobytes()


def cifar10(data_dir: pathlib.Path) -> None:
    """`cifar-10-binary.tar.gz`: five training files and a test file."""
    train, answers = images(CIFAR_TRAIN, 0), labels(CIFAR_TRAIN, 10)
    files = {
        f"cifar-10-batches-bin/data_batch_{i + 1}.bin": records(part, label)
        for i, (part, label) in enumerate(
            zip(np.split(train, 5), np.split(answers, 5), strict=True)
        )
    }
    test = records(images(CIFAR_TEST, 1), labels(CIFAR_TEST, 10))
    names = "\n".join("abcdefghij").encode()
    files |= {
        "cifar-10-batches-bin/test_batch.bin": test,
        "cifar-10-batches-bin/batches.meta.txt": names,
    }
    place(data_dir, "cifar10", URLS["cifar10"][0], tar(files))


def cifar100(data_dir: pathlib.Path) -> None:
    """`cifar-100-binary.tar.gz`: two label bytes, coarse and fine."""

    def part(count, seed):
        fine = labels(count, 100)
        return records(images(count, seed), fine // 5, fine)

    files = {
        "cifar-100-binary/train.bin": part(CIFAR_TRAIN, 0),
        "cifar-100-binary/test.bin": part(CIFAR_TEST, 1),
        "cifar-100-binary/fine_label_names.txt": "\n".join(f"f{i}" for i in range(100)).encode(),
        "cifar-100-binary/coarse_label_names.txt": "\n".join(f"c{i}" for i in range(20)).encode(),
    }
    place(data_dir, "cifar100", URLS["cifar100"][0], tar(files))


def svhn_cropped(data_dir: pathlib.Path) -> None:
    """Three MATLAB files; the digit 0 is labelled 10."""
    for number, (url, count) in enumerate(
        zip(URLS["svhn_cropped"], (CIFAR_TRAIN, CIFAR_TEST, 20), strict=True)
    ):
        answers = labels(count, 10).astype(np.int64)
        buffer = io.BytesIO()
        content = {
            "X": images(count, number).transpose(1, 2, 3, 0),
            "y": np.where(answers == 0, 10, answers)[:, None],
        }
        scipy.io.savemat(buffer, content)
        place(data_dir, "svhn_cropped", url, buffer.getvalue())
