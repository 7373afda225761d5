"""What can be wrong with a config or workdir for people's images, found before any is read."""

import pathlib
import sys

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling.workdir import changed_among
from tavaal_jax.report import files
from tavaal_jax.study.checks import config as checks
from tavaal_jax.study.checks.config import DatasetFacts

_FIXED = (
    "dataset", "seed", "metrics", "folder.image_size", "folder.channels", "folder.resize",
    "folder.low_high",
)  # fmt: skip
"""Keys that stay what they were in the first cycle."""
_TOLD = ("methods", "backbone.name", "backbone.weights", "backbone.features", "task.network")
"""Keys whose change between two cycles is told, as accuracies are then of another kind of model."""


def check(config: ConfigDict, devices: int) -> None:
    """Raises UserError for the first fault of `config` on a machine with `devices` devices."""
    configs.check(config)
    checks.check_facts(config, devices, _facts(config))


def _facts(config: ConfigDict) -> DatasetFacts:
    """What is known of the images before they are read; UserError for keys that do not fit."""
    options = config.folder
    if not options.images:
        raise UserError("folder.images is empty: give --config.folder.images=FOLDER, your images")
    if not user_path(options.images, "folder.images").is_dir():
        is_file = user_path(options.images, "folder.images").exists()
        says = "that is a file, give its folder" if is_file else "there is no such folder, name one"
        raise UserError(f"folder.images is {options.images}: {says}")
    names = checks.method_names(config)
    if len(names) != 1 or config.trials != 1:
        raise UserError(
            f"methods is {config.methods!r} and trials is {config.trials}: people answer one method"
            " in one trial, give --config.methods=coreset --config.trials=1"
        )
    for key, usual in (("diagnostics", False), ("parallel", "devices"), ("imbalance.ratio", 1)):
        value = configs.flat(configs.plain(config))[key]
        if value != usual:
            raise UserError(
                f"{key} is {value!r}, which people's images cannot have: give {usual!r}"
            )
    if options.label_studio_images == "local" and not options.label_studio_root:
        raise UserError(
            "folder.label_studio_images is 'local': give --config.folder.label_studio_root, the"
            " document root of Label Studio"
        )
    trained_on = config.initial
    if not options.test:
        trained_on -= round(config.initial * options.test_fraction)
    if trained_on < config.batch_size <= config.initial:
        raise UserError(
            f"batch_size is {config.batch_size}, more than the {trained_on} of initial ="
            f" {config.initial} that are not for the test set (folder.test_fraction ="
            f" {options.test_fraction}): lower batch_size or raise initial"
        )
    shape = (options.image_size, options.image_size, options.channels)
    return DatasetFacts(configs.PEOPLE, sys.maxsize, max(2, len(options.classes)), shape)


def check_workdir(folder: pathlib.Path, images: pathlib.Path) -> None:
    """Raises UserError for a workdir that lies in the folder of `images`."""
    if folder.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"workdir {folder} lies in folder.images, to which nothing may be written: give"
            " another --workdir"
        )


def changed_since_begun(config: ConfigDict, folder: pathlib.Path) -> list[str]:
    """Keys that changed, to be told; UserError where data set or decoding are other ones."""
    before = files.read_config(folder)
    if before is None:
        return []
    changed = changed_among(before, config, _FIXED)
    if before.get("format") != files.FORMAT:
        changed = [f"its format ({before.get('format')} -> {files.FORMAT})", *changed]
    if changed:
        raise UserError(
            f"{folder} was begun with another config: {', '.join(changed)};"
            " give the old values or another --workdir"
        )
    return changed_among(before, config, _TOLD)
