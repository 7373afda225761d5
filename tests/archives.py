"""Small archives in the upstream layouts, put where TFDS keeps what it has downloaded."""

import io
import json
import pathlib
import tarfile
import zipfile

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums, resource

from tavaal_jax.data.sets.tfds import URLS

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


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of `files`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def encoded(pixels: np.ndarray, format: str = "png") -> bytes:
    """A picture file; `[H, W]` is grey."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
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


CALTECH = {"Faces": 31, "accordion": 32, "BACKGROUND_Google": 30}
CALTECH_GREY, CALTECH_PANORAMA = "accordion/image_0001", "faces/image_0002"


def caltech_picture(name: str) -> np.ndarray:
    """The image of an id, `[H, W, 3]` or `[H, W]`: of a colour that stands for class and number."""
    folder, _, number = name.partition("/image_")
    colour = np.uint8([60 * (1 + len(folder) % 3), 7 * int(number), 128])
    if name == CALTECH_GREY:
        return np.full((40, 30), 77, np.uint8)
    if name == CALTECH_PANORAMA:
        return np.repeat(np.uint8([0, 255]), 200)[None, :, None].repeat(100, 0).repeat(3, 2)
    return np.broadcast_to(colour, (30 + int(number), 50, 3))


def caltech101(data_dir: pathlib.Path) -> None:
    """`caltech-101.zip`: a tar.gz in it, a folder for each class; one file is no image."""
    files = {"101_ObjectCategories/BACKGROUND_Google/tmp": b"no image"}
    for folder, count in CALTECH.items():
        for number in range(count, 0, -1):
            picture = caltech_picture(f"{folder.lower()}/image_{number:04d}")
            name = f"101_ObjectCategories/{folder}/image_{number:04d}.jpg"
            files[name] = encoded(picture, "jpeg")
    content = zipped({"caltech-101/101_ObjectCategories.tar.gz": tar(files)})
    place(data_dir, "caltech101", URLS["caltech101"][0], content)


FRAMES = {
    "train": ("zurich_000001_000019", "bonn_000002_000019", "bonn_000001_000020"),
    "val": ("frank-furt_000000_000294", "ulm_000000_000019"),
    "test": ("berlin_000000_000019",),
}
FRAMES_IGNORED = "bonn_000002_000019"


def frame(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image `[64, 128, 3]` and raw ids `[64, 128]` of a frame."""
    random = np.random.default_rng(list(name.encode()))
    image = random.integers(0, 256, (64, 128, 3), np.uint8)
    return image, random.integers(0, 7 if name == FRAMES_IGNORED else 34, (64, 128), np.uint8)


def cityscapes_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What is in the two zips."""
    images, labels = {}, {}
    for split, frames in FRAMES.items():
        for name in frames:
            place = f"{split}/{name.partition('_')[0]}/{name}"
            image, raw = frame(name)
            images[f"leftImg8bit/{place}_leftImg8bit.png"] = encoded(image)
            labels[f"gtFine/{place}_gtFine_labelIds.png"] = encoded(raw)
            labels[f"gtFine/{place}_gtFine_color.png"] = encoded(image)
    return images, labels


def cityscapes_folder(folder: pathlib.Path) -> None:
    """Both, unpacked."""
    for files in cityscapes_files():
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
