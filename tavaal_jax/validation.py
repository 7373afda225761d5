"""Checks a config before any download or compilation; every fault is one line with its mend."""

import difflib
import importlib.util

from tavaal_jax import problem
from tavaal_jax.data import SOURCES
from tavaal_jax.errors import UserError
from tavaal_jax.methods import METHODS

_CHOICES = {
    "schedule": ("joint", "two_phase"),
    "dtype": ("float32", "bfloat16"),
    "rank_to_discriminator": ("normalised", "raw"),
    "task.network": ("resnet", "mlp"),
    "task.optimiser": ("sgd", "adam"),
    "ranker.after": ("freeze", "detach"),
    "mc_dropout.measure": problem.Classification.measures,
    "mc_dropout.place": ("head", "stages"),
    "vae.network": ("conv", "mlp"),
    "vae.unlabelled": ("all", "subset"),
    "vae.optimiser": ("sgd", "adam"),
    "discriminator.optimiser": ("sgd", "adam"),
}
_AT_LEAST = {
    "trials": 1,
    "first_trial": 0,
    "cycles": 1,
    "initial": 1,
    "budget": 1,
    "subset": 0,
    "epochs": 1,
    "batch_size": 2,
    "imbalance.ratio": 1,
    "augmentation.pad": 0,
    "mc_dropout.passes": 1,
    "vae.latent": 1,
    "vae.epochs": 1,
    "ranker.features": 0,
    "score_batch_size": 1,
    "steps_per_call": 1,
    "seconds_per_call": 0,
    "log_every_steps": 1,
    "checkpoint_every_steps": 1,
    "seed": 0,
    "ranker.eta": 0,
    "vae.beta": 0,
    "vae.adversarial_weight": 0,
    "task.weight_decay": 0,
    "vae.weight_decay": 0,
    "discriminator.weight_decay": 0,
}
_POSITIVE = ("task.learning_rate", "vae.learning_rate", "discriminator.learning_rate")
_FRACTIONS = (
    "task.decay_at",
    "task.decay_factor",
    "task.momentum",
    "vae.momentum",
    "discriminator.momentum",
    "ranker.until_fraction",
)
_WIDTHS = ("task.widths", "vae.widths", "discriminator.hidden")
_OTHERS = (
    "dataset",
    "data_dir",
    "methods",
    "imbalance.classes",
    "augmentation.flip",
    "task.blocks",
    "vae.image_size",
    "tensorboard",
    "diagnostics",
    "mc_dropout.rate",
)


def method_names(config) -> list[str]:
    """The names in `config.methods`, in order; "all" is all of them."""
    if config.methods.strip() == "all":
        return list(METHODS)
    return [name.strip() for name in config.methods.split(",") if name.strip()]


def check(config, devices: int) -> None:
    """Raises UserError for the first fault of `config` on a machine with `devices` devices."""
    for key in (*_CHOICES, *_AT_LEAST, *_POSITIVE, *_FRACTIONS, *_WIDTHS, *_OTHERS):
        _get(config, key)
    _check_choice("dataset", config.dataset, tuple(SOURCES))
    _check_methods(config)
    for key, choices in _CHOICES.items():
        _check_choice(key, _get(config, key), choices)
    _check_numbers(config)
    if config.first_trial >= config.trials:
        raise UserError(
            f"first_trial is {config.first_trial}: give less than trials = {config.trials}"
        )
    _check_batch(config, devices)
    _check_pool(config)
    _check_networks(config)
    if config.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "tensorboard is True, but tensorboardX is not installed:"
            " run pip install 'tavaal_jax[tensorboard]' or give --config.tensorboard=False"
        )


def check_size(config, size: int) -> None:
    """Raises UserError if a run would label more than `size` images."""
    needed = config.initial + config.budget * (config.cycles - 1)
    if needed > size:
        raise UserError(
            f"initial + budget * (cycles - 1) = {needed} is more than the {size} training images of"
            f" {config.dataset}: lower cycles, budget or initial"
        )


def _get(config, key):
    for part in key.split("."):
        if part not in config:
            raise UserError(f"the config has no {key}: build it from configs/default.py")
        config = config[part]
    return config


def _check_choice(key, value, choices):
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"{key} is {value!r}{hint}: choose one of {', '.join(choices)}")


def _check_methods(config):
    names = method_names(config)
    if not names:
        raise UserError(f"methods is {config.methods!r}: name one or more of {', '.join(METHODS)}")
    for name in names:
        _check_choice("methods", name, tuple(METHODS))
    if len(set(names)) < len(names):
        raise UserError(f"methods is {config.methods!r}: name each method once")


def _check_numbers(config):
    for key, least in _AT_LEAST.items():
        if _get(config, key) < least:
            raise UserError(f"{key} is {_get(config, key)}: give at least {least}")
    for key in _POSITIVE:
        if not _get(config, key) > 0:
            raise UserError(f"{key} is {_get(config, key)}: give more than 0")
    for key in _FRACTIONS:
        if not 0 <= _get(config, key) <= 1:
            raise UserError(f"{key} is {_get(config, key)}: give a fraction between 0 and 1")
    if not 0 <= config.mc_dropout.rate < 1:
        raise UserError(f"mc_dropout.rate is {config.mc_dropout.rate}: give 0 to less than 1")
    if config.seed >= 2**31:
        raise UserError(f"seed is {config.seed}: give less than 2147483648")
    for key in (*_WIDTHS, "task.blocks", "imbalance.classes"):
        if not all(type(number) is int for number in _get(config, key)):
            raise UserError(f"{key} is {tuple(_get(config, key))}: give whole numbers")
    for key in _WIDTHS:
        if min(_get(config, key), default=0) < 1:
            raise UserError(
                f"{key} is {tuple(_get(config, key))}: give one or more positive widths"
            )


def _check_batch(config, devices):
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


def _check_pool(config):
    source = SOURCES[config.dataset]
    classes = tuple(config.imbalance.classes)
    if config.imbalance.ratio > 1 and any(not 0 <= label < source.classes for label in classes):
        raise UserError(
            f"imbalance.classes is {classes}: give labels from 0 to {source.classes - 1},"
            f" {config.dataset} has {source.classes} classes"
        )
    check_size(config, source.train_size)
    if config.subset and config.subset < config.budget:
        raise UserError(
            f"subset is {config.subset}, less than budget = {config.budget}:"
            " raise subset, or give 0 to score the whole pool"
        )


def _check_networks(config):
    shape = SOURCES[config.dataset].image_shape
    task, vae = config.task, config.vae
    if len(shape) == 1:
        for group, network in (("task", task.network), ("vae", vae.network)):
            if network != "mlp":
                raise UserError(
                    f"{group}.network is {network!r}, which needs images, and {config.dataset} has"
                    f" {shape[0]} features: give {group}.network = 'mlp'"
                )
        if config.augmentation.pad or config.augmentation.flip:
            raise UserError(
                f"augmentation.pad is {config.augmentation.pad}, augmentation.flip"
                f" {config.augmentation.flip}, and {config.dataset} has no images:"
                " give pad = 0 and flip = False"
            )
    elif vae.network == "mlp":
        raise UserError(
            f"vae.network is 'mlp', which needs feature vectors, and {config.dataset} has images:"
            " give vae.network = 'conv'"
        )
    if task.network == "resnet" and len(task.widths) != len(task.blocks):
        raise UserError(
            f"task.widths has {len(task.widths)} stages and task.blocks {len(task.blocks)}:"
            " give as many of one as of the other"
        )
    if task.network == "resnet" and min(task.blocks) < 1:
        raise UserError(f"task.blocks is {tuple(task.blocks)}: give at least 1 block per stage")
    size = vae.image_size
    if size and (size < 4 or size & (size - 1)):
        raise UserError(f"vae.image_size is {size}: give 0 or a power of two from 4 upwards")
