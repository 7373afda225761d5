"""What stands between a file and a model: decoding of photos, and a frozen backbone."""

import json
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.data.dataset import MadeBy
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
    def of(cls, config: ConfigDict, backbone: MadeBy | None = None) -> "Decoding | None":
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
    """Name of the file of weights that the config gave; "": that of an installed package.

    An earlier version wrote its path.
    """
    file: str
    """Name of the file of weights, which may lie in the model's folder."""
    sha256: str = ""
    """Digest of that file; "": of an earlier version."""

    @classmethod
    def of(cls, config: ConfigDict, made_by: MadeBy) -> "BackboneRecord":
        """The record of what has made a config's features."""
        file = pathlib.Path(made_by.weights).name
        given = file if config.backbone.weights else ""
        return cls(*made_by[:3], given, file, made_by.sha256)

    def load(self, folder: pathlib.Path | None, weights: str = "") -> Backbone:
        """The backbone: its weights in the model's folder, else where they were, or the package's.

        `weights` is the file's path, where it is known; else that of the workdir which the model
        lies in. Raises UserError where they are missing, or are not those that the model was
        trained on.
        """
        folders = [] if folder is None else [folder]
        known = weights or (_path_in_workdir(folder) if folder is not None else "")
        earlier = self.weights if pathlib.Path(self.weights).is_absolute() else ""
        paths = [pathlib.Path(path) for path in (known, earlier) if path]
        files = [*(folder / self.file for folder in folders), *paths]
        path = next((str(file) for file in files if file.is_file()), "")
        if self.weights and not path:
            where = ", or to ".join(map(str, [*folders, *paths])) or "the model's folder"
            raise UserError(
                f"the weights of the model's backbone {self.name} are not there: copy"
                f" {self.file} to {where}"
            )
        found = load_backbone(self.name, path, self.image_size)
        if found.digest != self.digest:
            raise UserError(
                f"{found.weights} holds other weights of {self.name} than the model was trained"
                f" with: copy those to {files[0] if files else path}, or use the version of"
                " tavaal_jax that wrote it"
            )
        return found


def _path_in_workdir(folder: pathlib.Path) -> str:
    """`backbone.weights` of the config.json of the workdir that a model's folder lies in, or ""."""
    for parent in folder.absolute().parents[:3]:  # <workdir>/model, or <method>/trial_<t>/model
        try:
            record = json.loads((parent / "config.json").read_bytes())
            return str(user_path(record["config"]["backbone"]["weights"], "backbone.weights"))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""
