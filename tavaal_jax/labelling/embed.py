"""Features of images by a frozen backbone, for notebooks and other programs."""

import pathlib
import tempfile
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tavaal_jax import config as configs
from tavaal_jax.data import arrays
from tavaal_jax.data import features as stored
from tavaal_jax.data.features import Decoding, PhotoFeatures
from tavaal_jax.data.pictures import decode
from tavaal_jax.data.row_cache import Progress
from tavaal_jax.engine import embedding
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.images.files import path_of
from tavaal_jax.labelling.images.inventory import scan
from tavaal_jax.models.backbones import load_backbone
from tavaal_jax.study import features

_KEY = "images"


class Embedded(NamedTuple):
    """Features of images; with `np.savez(file, ids=ids, features=features)` a file of them."""

    ids: list[str]
    """Content ids of the images, `[n]`."""
    files: list[str]
    """Paths below the folder, `[n]`; empty for arrays."""
    features: np.ndarray
    """float32 `[n, F]`."""


def embed(
    images: ArrayLike | str | pathlib.Path,
    backbone: str = "efficientnet_lite0",
    weights: str = "",
    image_size: int = 0,
    *,
    resize: str = "stretch",
    data_dir: str | None = None,
    follow_links: bool = False,
    progress: Progress = lambda done, total: None,
) -> Embedded:
    """Features of images, uint8 `[n, H, W, C]`, or of the photos in a folder and below.

    `backbone`, `weights` and `image_size` are as the keys `backbone.*` of a config. Photos are
    decoded as `resize` says ("stretch", "crop" or "pad"); those that cannot be are left out, and of
    copies there is one. Features are cached in `data_dir` (None: the config's default), where
    studies find them; `progress` is called with how many of how many images are done. Raises
    UserError for what the user can mend.
    """
    if resize not in decode.RESIZE:
        raise UserError(f"resize is {resize!r}: give one of {', '.join(decode.RESIZE)}")
    folder = configs.KEYS["data_dir"].default if data_dir is None else data_dir
    given = images
    if not isinstance(given, str | pathlib.Path):
        array = _checked(arrays.plain(given, _KEY))
        made = features.embedder(load_backbone(backbone, weights, image_size))
        found = features.of_images(folder, made, array, progress)
        return Embedded(stored.image_ids(array), [], found[:])
    root = user_path(given, _KEY).absolute()
    most = configs.KEYS["folder.max_pixels"].default
    with tempfile.TemporaryDirectory() as index:
        listing = scan(
            root, (), pathlib.Path(index) / "index.jsonl", most, key=_KEY, follow_links=follow_links
        )
    made = features.embedder(load_backbone(backbone, weights, image_size))
    photos = PhotoFeatures(folder, made, Decoding(resize))
    usable = [image for image in listing.images if image.status == "ok"]
    todo = [(image.id, path_of(listing.folder, image.file)) for image in usable]
    rows, _ = photos.made_rows(todo, progress)
    kept = [(image, row) for image, row in zip(usable, rows, strict=True) if row >= 0]
    if not kept:
        raise UserError(f"no photo in {root} could be decoded: see to {_KEY}")
    return Embedded(
        [image.id for image, _ in kept],
        [image.file for image, _ in kept],
        np.array(photos.array[[row for _, row in kept]]),
    )


def _checked(array: np.ndarray) -> np.ndarray:
    """Images with an axis of channels, `[n, H, W, C]`; UserError for what is none."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise UserError(
            f"{_KEY} are {array.dtype} {array.shape}: give uint8 [n, H, W, C], or a folder"
        )
    found = arrays.with_channels(array, _KEY)
    embedding.check(found.shape)
    return found
