"""What only config, methods, data and devices together can say is wrong, before anything is run."""

import difflib
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax import data
from tavaal_jax.algorithm import problems
from tavaal_jax.algorithm.learner import MissingComponent
from tavaal_jax.algorithm.methods import BASELINE, METHODS, SHIPPED
from tavaal_jax.data import SETS, Dataset
from tavaal_jax.engine import programs
from tavaal_jax.errors import UserError
from tavaal_jax.models import weights
from tavaal_jax.models.networks import NETWORKS
from tavaal_jax.study import features, setup
from tavaal_jax.study.checks import methods as method_checks
from tavaal_jax.study.checks import networks


class DatasetFacts(NamedTuple):
    """What is known of a data set before it is loaded."""

    name: str
    train_size: int
    """N before any imbalance."""
    classes: int
    shape: tuple[int, ...]
    has_maps: bool = False
    """Whether a label is a map."""

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetFacts":
        """Facts of a data set that is loaded."""
        size = len(dataset.train_images)
        return cls(dataset.name, size, dataset.classes, dataset.shape, dataset.has_maps)


def method_names(config: ConfigDict) -> list[str]:
    """The names in `config.methods`, in order; "all": that T's network can be used with."""
    if config.methods.strip() == "all":
        row = NETWORKS.get(config.task.network)
        has_maps = row is not None and row.maps
        return [name for name, method in METHODS.items() if method.takes_maps or not has_maps]
    return [name.strip() for name in config.methods.split(",") if name.strip()]


def check(config: ConfigDict, devices: int, dataset: Dataset | None = None) -> None:
    """Raises UserError for the first fault of a simulation's config on `devices` devices."""
    configs.check(config)
    if dataset is None:
        check_name("dataset", config.dataset, (*SETS, configs.PEOPLE))
        facts = DatasetFacts(config.dataset, *data.facts(config))
    else:
        facts = DatasetFacts.of(dataset)
        if config.imbalance.ratio > 1:
            raise UserError(
                f"imbalance.ratio is {config.imbalance.ratio}, and {facts.name} is given as arrays,"
                " which are taken as they are: give 1, and leave images out yourself"
            )
    if config.cycles < 1:
        raise UserError(f"cycles is {config.cycles}: give at least 1")
    check_facts(config, devices, facts)


def check_facts(config: ConfigDict, devices: int, facts: DatasetFacts) -> None:
    """Raises UserError for the first fault of `config` with a data set of these facts."""
    if features.is_on(config):
        size = features.check(config, facts.name, facts.shape, facts.has_maps)
        facts = facts._replace(shape=(size,))
    _check_methods(config)
    if config.first_trial >= config.trials:
        raise UserError(
            f"first_trial is {config.first_trial}: give less than trials = {config.trials}"
        )
    _check_batch(config, devices)
    _check_pool(config, facts)
    networks.check(
        config, method_names(config), facts.name, facts.shape, facts.classes, facts.has_maps
    )
    _check_maps(config, facts)
    _check_first(config, facts)
    _check_near_duplicates(config, facts)
    _check_features(config, facts)
    if config.task.pretrained:
        _check_pretrained(config, facts)
    _check_values(config, facts)


def check_size(config: ConfigDict, name: str, size: int) -> None:
    """Raises UserError if a trial would label more than `size` images."""
    needed = config.initial + config.budget * (config.cycles - 1)
    if needed > size:
        raise UserError(
            f"initial + budget * (cycles - 1) = {needed} is more than the {size} training images of"
            f" {name}: lower cycles, budget or initial"
        )


def check_name(key: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises UserError, with the nearest of `choices`, where `value` is none of them."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"{key} is {value!r}{hint}: choose one of {', '.join(choices)}")


def _check_methods(config: ConfigDict) -> None:
    names = method_names(config)
    if not names:
        raise UserError(f"methods is {config.methods!r}: name one or more of {', '.join(METHODS)}")
    for name in names:
        check_name("methods", name, tuple(METHODS))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise UserError(
                f"METHODS has a method {name!r}: name it by letters, digits, _ . and -, it is also"
                " the name of a folder"
            )
        if METHODS[name].name != name:
            raise UserError(
                f"METHODS[{name!r}] has the name {METHODS[name].name!r}: give both the same"
            )
    if len(set(names)) < len(names):
        raise UserError(f"methods is {config.methods!r}: name each method once")


def _check_batch(config: ConfigDict, devices: int) -> None:
    size = config.batch_size
    if size % 2:
        raise UserError(f"batch_size is {size}: give an even number, equation (1) compares pairs")
    if size % (2 * devices):
        raise UserError(
            f"batch_size is {size}: give a multiple of {2 * devices}, twice the {devices} devices"
        )
    if size > config.initial:
        raise UserError(
            f"batch_size is {size}, more than initial = {config.initial}:"
            " lower batch_size or raise initial"
        )


def _check_pool(config: ConfigDict, facts: DatasetFacts) -> None:
    classes = tuple(config.imbalance.classes)
    if config.imbalance.ratio > 1 and any(not 0 <= label < facts.classes for label in classes):
        raise UserError(
            f"imbalance.classes is {classes}: give labels from 0 to {facts.classes - 1},"
            f" {facts.name} has {facts.classes} classes"
        )
    mean, deviation = config.normalisation.mean, config.normalisation.deviation
    if len(mean) != len(deviation) or any(number <= 0 for number in deviation):
        raise UserError(
            f"normalisation.mean is {tuple(mean)} and normalisation.deviation {tuple(deviation)}:"
            " give as many of one as of the other, and deviations above 0"
        )
    if len(mean) not in (0, 1, facts.shape[-1]) and len(facts.shape) == 3:
        raise UserError(
            f"normalisation.mean is {tuple(mean)}, and {facts.name} has {facts.shape[-1]} channels:"
            " give one number for each, or one for all, or none"
        )
    check_size(config, facts.name, facts.train_size)
    if config.subset and config.subset < config.budget:
        raise UserError(
            f"subset is {config.subset}, less than budget = {config.budget}:"
            " raise subset, or give 0 to score the whole pool"
        )


def _check_maps(config: ConfigDict, facts: DatasetFacts) -> None:
    """What goes with a class per pixel only, and what with a class per image."""
    pad, crop = config.augmentation.pad, config.augmentation.crop
    if facts.has_maps and pad:
        raise UserError(
            f"augmentation.pad is {pad}, and {facts.name} has label maps: give pad = 0, and the"
            " side of a random window as augmentation.crop"
        )
    if not facts.has_maps and crop:
        raise UserError(
            f"augmentation.crop is {crop}, and {facts.name} has no label maps: give crop = 0, and"
            " augmentation.pad for a random crop from the padded image"
        )
    unfit = [name for name in method_names(config) if not METHODS[name].takes_maps]
    if facts.has_maps and unfit:
        raise UserError(
            f"methods has {unfit[0]}, which needs a class of each image, and {facts.name} has label"
            " maps: leave that method out"
        )
    if facts.has_maps and config.task.class_weights:
        raise UserError(
            f"task.class_weights is {config.task.class_weights!r}, and {facts.name} has label maps,"
            " whose images have many classes: give ''"
        )
    if facts.has_maps and config.metrics != "accuracy":
        raise UserError(
            f"metrics is {config.metrics!r}, and {facts.name} has label maps, which are measured by"
            " mean_iou and pixel_accuracy: leave metrics at its default"
        )
    if facts.has_maps and config.imbalance.ratio > 1:
        raise UserError(
            f"imbalance.ratio is {config.imbalance.ratio}, and {facts.name} has label maps:"
            " give 1, images of many classes cannot be thinned by class"
        )


def check_first_by(config: ConfigDict) -> None:
    """Raises UserError unless the method `first_by` may choose the first images."""
    able = [name for name, method in METHODS.items() if not method.needs_labels]
    check_name("first_by", config.first_by, (BASELINE, *able))


def _check_first(config: ConfigDict, facts: DatasetFacts) -> None:
    check_first_by(config)
    by = config.first_by
    if by != BASELINE and len(facts.shape) != 1:
        raise UserError(
            f"first_by is {by!r}, which needs features, and {facts.name} has images: give"
            f" backbone.name, or first_by = {BASELINE!r}"
        )


def _check_near_duplicates(config: ConfigDict, facts: DatasetFacts) -> None:
    cosine = config.folder.near_duplicates
    if cosine and len(facts.shape) != 1:
        raise UserError(
            f"folder.near_duplicates is {cosine}, which compares features, and {facts.name} has"
            " images: give backbone.name, or 0"
        )


def _check_pretrained(config: ConfigDict, facts: DatasetFacts) -> None:
    weights.check(config.task.pretrained)
    problem = problems.of(config, facts.classes, facts.has_maps)
    programs.check_pretrained(config, facts.shape, problem)


def _check_values(config: ConfigDict, facts: DatasetFacts) -> None:
    """Tries the methods that are not ours; what their own functions raise is raised as it is."""
    problem = problems.of(config, facts.classes, facts.has_maps)
    thumbnail = setup.thumbnail_size(config, facts.shape)
    for name in method_names(config):
        if METHODS[name] not in SHIPPED:
            try:
                method_checks.check_shapes(config, METHODS[name], facts.shape, problem, thumbnail)
            except UserError as error:
                cause = error.__cause__
                if cause is not None and not isinstance(cause, MissingComponent):
                    raise cause from None
                raise UserError(f"METHODS has {name!r}, and {error}") from cause


def _check_features(config: ConfigDict, facts: DatasetFacts) -> None:
    """What goes with images only, and what with feature vectors only."""
    network = config.vae.network
    if len(facts.shape) == 1:
        if network != "mlp":
            raise UserError(
                f"vae.network is {network!r}, which needs images, and {facts.name} has"
                f" {facts.shape[0]} features: give vae.network = 'mlp'"
            )
        if config.augmentation.pad or config.augmentation.flip:
            raise UserError(
                f"augmentation.pad is {config.augmentation.pad}, augmentation.flip"
                f" {config.augmentation.flip}, and {facts.name} has no images:"
                " give pad = 0 and flip = False"
            )
        if config.normalisation.mean:
            raise UserError(
                f"normalisation.mean is {tuple(config.normalisation.mean)}, and {facts.name} has no"
                " images: give none"
            )
    elif network == "mlp":
        raise UserError(
            f"vae.network is 'mlp', which needs feature vectors, and {facts.name} has images:"
            " give vae.network = 'conv'"
        )
