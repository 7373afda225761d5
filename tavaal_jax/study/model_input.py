"""What stands between a file and a model: decoding of photos, and a frozen backbone."""

import functools
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.models.backbones import Backbone, load_backbone


class Decoding(NamedTuple):
    """Decoding of photos into a model's images, see `data.pictures.decode`."""

    size: int
    channels: int
    resize: str
    low_high: tuple[float, ...]
    max_pixels: int
    """Limit of a photo's pixels; larger ones are not decoded."""

    @classmethod
    def of(cls, config: ConfigDict, backbone: Backbone | None = None) -> "Decoding | None":
        """The decoding that a config sets, for a `backbone` where it has one.

        None where its data set is not people's own photos, nor, with a backbone, a labelled folder.
        """
        if config.dataset == configs.PEOPLE:
            keys = config.folder
        elif config.dataset == "labelled_folder" and backbone is not None:
            keys = config.labelled_folder
        else:
            return None
        if config.backbone.features:
            return None
        size, channels = keys.image_size, keys.channels
        if backbone is not None:
            size, channels = backbone.image_size, 3
        return cls(size, channels, keys.resize, tuple(keys.low_high), keys.max_pixels)


class BackboneRecord(NamedTuple):
    """A model's frozen backbone, as model.json names it."""

    name: str
    image_size: int
    digest: str
    """See `Backbone.digest`."""
    weights: str
    """File of the weights when it was trained; "": that of an installed package."""
    file: str
    """Name of the file of weights, which may lie in the model's folder."""

    @classmethod
    def of(cls, config: ConfigDict, backbone: Backbone) -> "BackboneRecord":
        """The record of a config's backbone."""
        file = pathlib.Path(backbone.weights).name
        path = config.backbone.weights
        path = str(user_path(path, "backbone.weights").absolute()) if path else ""
        return cls(backbone.name, backbone.image_size, backbone.digest, path, file)

    def load(self, folder: pathlib.Path | None) -> Backbone:
        """The backbone: its weights in the model's folder, else where they were, or the package's.

        Raises UserError where they are missing, or are not those that the model was trained on.
        """
        beside = None if folder is None else folder / self.file
        path = self.weights
        if beside is not None and beside.is_file():
            path = str(beside)
        elif path and not pathlib.Path(path).is_file():
            place = f"{folder}, or to {path}" if folder is not None else path
            raise UserError(
                f"the weights of the model's backbone {self.name} are not there: copy"
                f" {self.file} to {place}"
            )
        found = load_backbone(self.name, path, self.image_size)
        if found.digest != self.digest:
            raise UserError(
                f"{found.weights} holds other weights of {self.name} than the model was trained"
                f" with: copy those to {beside or path}, or use the version of tavaal_jax that"
                " wrote it"
            )
        return found


@functools.lru_cache(2)
def loaded(record: BackboneRecord, folder: pathlib.Path | None) -> Backbone:
    """`record.load(folder)`, once."""
    return record.load(folder)
