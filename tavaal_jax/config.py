"""Every key of a config, once: default, comment, limit, and whether it changes results.

`default` makes the config that `configs/default.py` returns; an experiment overrides a few keys.
The defaults are CIFAR-10's, on Table 1 of the paper.
"""

import difflib
import importlib.util
import json
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from tavaal_jax.errors import UserError

Limit = Callable[[Any], str | None]
"""What to give instead of a value that breaks it; None for one that does not."""


class Key(NamedTuple):
    """One key of a config."""

    default: Any
    """None: to be set to True or False."""
    comment: str
    limit: Limit | None = None
    neutral: bool = False
    """Changes no result, or, like more trials, only adds some."""


def _one_of(*choices: Any) -> Limit:
    def limit(value):
        if value in choices:
            return None
        texts = [str(choice) or '""' for choice in choices]
        near = difflib.get_close_matches(str(value), texts, n=1)
        hint = f"{near[0]}, or else " if near else ""
        return f"{hint}one of {', '.join(texts)}"

    return limit


def _at_least(least: float) -> Limit:
    return lambda value: None if value >= least else f"at least {least}"


def _positive(value):
    return None if value > 0 else "more than 0"


def _fraction(value):
    return None if 0 <= value <= 1 else "a fraction between 0 and 1"


def _part(value):
    return None if 0 < value <= 1 else "a fraction, more than 0 and at most 1"


def _rate(value):
    return None if 0 <= value < 1 else "0 to less than 1"


def _whole(value):
    return None if all(type(number) is int for number in value) else "whole numbers"


def _widths(value):
    return _whole(value) or (None if min(value, default=0) > 0 else "one or more positive widths")


def _strides(value):
    fits = len(value) == 4 and all(stride in (1, 2) for stride in value)
    return None if fits else "four strides, each of them 1 or 2"


def _texts(value):
    fits = not isinstance(value, str) and all(isinstance(text, str) for text in value)
    return None if fits else 'texts, such as ("cat", "dog")'


def _classes(value):
    is_one = len(value) == 1 and isinstance(value[0], str) and "," in value[0]
    return "\"('cat', 'dog')\", with both kinds of quotes" if is_one else _texts(value)


def _low_high(value):
    fits = len(value) in (0, 2) and not _numbers(value) and list(value) == sorted(set(value))
    return None if fits else "nothing, or two numbers, the lower one first"


def _numbers(value):
    return None if all(isinstance(number, int | float) for number in value) else "numbers"


def _seed(value):
    return None if 0 <= value < 2**31 else f"0 to less than {2**31}"


def _image_size(value):
    return None if value == 0 or (value >= 4 and not value & (value - 1)) else (
        "0 or a power of two from 4 upwards"
    )  # fmt: skip


_OPTIMISER = _one_of("sgd", "adam")
FOLDER = "folder"
"""`dataset` where people label their own images."""

KEYS: dict[str, Key] = {
    "dataset": Key("cifar10", 'a name in tavaal_jax.data.SOURCES, or "folder": people\'s images'),
    "data_dir": Key("~/.cache/tavaal_jax/data", "prepared and decoded data sets", neutral=True),
    "seed": Key(0, "with the trial's number, the root of all randomness", _seed),
    "methods": Key(
        "random,tavaal", 'comma-separated names in METHODS, or "all"', neutral=True
    ),
    "trials": Key(
        5, "repetitions, paired: methods share initial set, subset and weights", _at_least(1), True
    ),
    "first_trial": Key(0, "trials before it are left to other workdirs", _at_least(0), True),
    "cycles": Key(
        10, "trainings per trial; picks follow each but the last; of a folder 0: until all is"
        " labelled", _at_least(0),
    ),
    "initial": Key(1000, "images labelled at the start, drawn at random", _at_least(1)),
    "budget": Key(1000, "images picked in each cycle", _at_least(1)),
    "subset": Key(10_000, "random unlabelled images that are scored; 0: all of them", _at_least(0)),
    "epochs": Key(200, "passes over the labelled images in each cycle", _at_least(1)),
    "batch_size": Key(
        128, "of all devices together; a multiple of twice their number", _at_least(2)
    ),
    "schedule": Key(
        "joint", '"joint" (Algorithm 1) or "two_phase" (the released code)',
        _one_of("joint", "two_phase"),
    ),
    "dtype": Key("float32", "of the networks' arithmetic", _one_of("float32", "bfloat16")),
    "rank_to_discriminator": Key(
        "normalised", 'or "raw" (the released code), or "none"',
        _one_of("normalised", "raw", "none"),
    ),
    "rank_to_decoder": Key("normalised", 'or "none"', _one_of("normalised", "none")),
    "imbalance.ratio": Key(
        1, "the classes below keep 1/ratio of their training images", _at_least(1)
    ),
    "imbalance.classes": Key((0, 1, 2, 3, 4), "labels", _whole),
    "normalisation.mean": Key(
        (), "per channel, of images scaled to [0, 1]; empty: the training set's own", _numbers
    ),
    "normalisation.deviation": Key((), "likewise", _numbers),
    "augmentation.pad": Key(
        2, "pixels of zeros on each side before the random crop", _at_least(0)
    ),
    "augmentation.flip": Key(True, "horizontally, half of the time"),
    "augmentation.crop": Key(
        0, "maps only: side of the random window that T is trained on; 0: all", _at_least(0)
    ),
    "cityscapes.folder": Key(
        "", "with leftImg8bit/ and gtFine/ unpacked; empty: cityscapes/ in data_dir", neutral=True
    ),
    "cityscapes.through": Key(
        "folder", 'or "tfds": from the zips, through TensorFlow Datasets',
        _one_of("folder", "tfds"), True,
    ),
    "cityscapes.cache": Key(
        False, "decode all pictures once, to 29 GB in data_dir; else whenever they are read",
        neutral=True,
    ),
    "folder.images": Key("", "people's images, searched in all its sub-folders", neutral=True),
    "folder.classes": Key((), "names in order; empty: as labels name them", _classes),
    "folder.class_folders": Key(
        None, "whether sub-folders are classes; None: those that are named in classes are"
    ),
    "folder.test": Key("", "a fixed test set: a folder with a sub-folder per class, or a csv"),
    "folder.test_fraction": Key(
        0.25, "without it: share of each request drawn at random for the test set", _rate
    ),
    "folder.labels": Key((), "more label files or folders beside <workdir>/labels", _texts),
    "folder.labels_strict": Key(True, "a row that fits no image stops the run"),
    "folder.unsure": Key(("unsure", "skip", "?"), "answers that mean: nobody can say", _texts),
    "folder.bad": Key(("bad", "bad image"), "answers that mean: not for training at all", _texts),
    "folder.ask_again": Key(False, "images of which nobody was sure, once more at the end"),
    "folder.wait_for": Key(1.0, "share of a request that must be answered", _part),
    "folder.image_size": Key(64, "pixels, to which images are decoded", _at_least(4)),
    "folder.channels": Key(3, "or 1: grey", _one_of(1, 3)),
    "folder.resize": Key(
        "stretch", 'or "crop": the middle; or "pad"', _one_of("stretch", "crop", "pad")
    ),
    "folder.low_high": Key(
        (), "values of 16-bit and float images that become 0 and 255; empty: all", _low_high
    ),
    "folder.max_pixels": Key(10**8, "larger images are listed, not opened", _at_least(1)),
    "folder.suggest": Key(False, "requests show what the model would say", neutral=True),
    "folder.parts": Key(
        1, "files that a request's table is divided into, for several people", _at_least(1), True
    ),
    "folder.label_studio_images": Key(
        "embed", 'in its tasks; or "local": served by Label Studio', _one_of("embed", "local"), True
    ),
    "folder.label_studio_root": Key("", "its document root, for local images", neutral=True),
    "folder.keep_annotators": Key(False, "names and addresses as Label Studio gives them"),
    "folder.poll_seconds": Key(0, "look for answers that often; 0: stop and be started again",
        _at_least(0), True),
    "task.network": Key(
        "resnet", 'or "drn", for label maps, or "mlp", for feature vectors',
        _one_of("resnet", "drn", "mlp"),
    ),
    "task.stem": Key(
        "cifar", 'of resnet; or "imagenet": stride 2 and a max-pool', _one_of("cifar", "imagenet")
    ),
    "task.widths": Key(
        (64, 128, 256, 512), "channels of each stage or level; units of each hidden layer", _widths
    ),
    "task.blocks": Key((2, 2, 2, 2), "in each stage of resnet, or level of drn", _widths),
    "task.pretrained": Key(
        "", "a file of upstream's weights, .npz or .safetensors, that every cycle starts from"
    ),
    "task.strides": Key((1, 2, 2, 2), "of the first four levels of drn", _strides),
    "task.optimiser": Key("sgd", 'or "adam"', _OPTIMISER),
    "task.learning_rate": Key(0.1, "of T and R", _positive),
    "task.momentum": Key(0.9, "of SGD", _fraction),
    "task.weight_decay": Key(5e-4, "L2, also on the Ranker; the paper says 5e-3", _at_least(0)),
    "task.decay_at": Key(
        0.8, "fraction of the epochs after which the learning rate drops ...", _fraction
    ),
    "task.decay_factor": Key(0.1, "... by this factor", _fraction),
    "ranker.features": Key(128, "units per tap; 0: a single layer on the taps", _at_least(0)),
    "ranker.eta": Key(1.0, "weight of the ranking loss, equation (2)", _at_least(0)),
    "ranker.until_fraction": Key(0.6, "of the epochs, after which the Ranker is ...", _fraction),
    "ranker.after": Key(
        "detach", '... cut off from T ("detach") or not updated ("freeze", 0.8: Algorithm 1)',
        _one_of("freeze", "detach"),
    ),
    "mc_dropout.measure": Key(
        "max_entropy", "of the method mc_dropout; no other method drops units",
        _one_of("max_entropy", "bald", "variation_ratios"),
    ),
    "mc_dropout.passes": Key(20, "through T, each with other units dropped", _at_least(1)),
    "mc_dropout.rate": Key(
        0.5, "probability with which a unit is dropped, in training too", _rate
    ),
    "mc_dropout.place": Key(
        "head", 'before T\'s last layer, or "stages": after each stage', _one_of("head", "stages")
    ),
    "vae.network": Key("conv", 'or "mlp", for feature vectors', _one_of("conv", "mlp")),
    "vae.latent": Key(64, "Z", _at_least(1)),
    "vae.image_size": Key(
        0, "side of what it sees; 0: next power of two, at most 64", _image_size
    ),
    "vae.widths": Key(
        (128, 256, 512, 1024), "channels of each stage, the last one repeats", _widths
    ),
    "vae.optimiser": Key("adam", 'or "sgd"', _OPTIMISER),
    "vae.learning_rate": Key(5e-4, "constant", _positive),
    "vae.momentum": Key(0.9, "of SGD", _fraction),
    "vae.weight_decay": Key(0.0, "L2", _at_least(0)),
    "vae.beta": Key(1.0, "weight of KL, equation (4)", _at_least(0)),
    "vae.adversarial_weight": Key(1.0, "lambda, weight of equation (5)", _at_least(0)),
    "vae.unlabelled": Key(
        "all", 'what it trains on beside L: "all" of U or the "subset"', _one_of("all", "subset")
    ),
    "vae.updates": Key(
        1, "joint only: of VAE and D in each step; 1 is Algorithm 1", _at_least(1)
    ),
    "vae.epochs": Key(
        100, "two_phase only: (labels + M) * epochs / batch_size steps", _at_least(1)
    ),
    "discriminator.hidden": Key(
        (512, 512, 512, 512), "one dense layer more than given here", _widths
    ),
    "discriminator.optimiser": Key("adam", 'or "sgd"', _OPTIMISER),
    "discriminator.learning_rate": Key(5e-4, "constant", _positive),
    "discriminator.momentum": Key(0.9, "of SGD", _fraction),
    "discriminator.weight_decay": Key(0.0, "L2", _at_least(0)),
    "sraal.hidden": Key(
        (1024, 256), "of the method sraal: layers that tell the class from half of Z", _widths
    ),
    "sraal.eta": Key(1.0, "weight of their loss in the VAE's", _at_least(0)),
    "score_batch_size": Key(
        128, "images per device and call in scoring and evaluation", _at_least(1)
    ),
    "diagnostics": Key(True, "after each choice, what the true labels say of it"),
    "feed": Key(
        "auto", 'on the devices ("resident") or read ahead ("streamed", as undecoded pictures are)',
        _one_of("auto", "resident", "streamed"), True,
    ),
    "parallel": Key(
        "data", 'a trial runs on all devices; "trials": on one, in a process of its own',
        _one_of("data", "trials"), True,
    ),
    "workers": Key(
        0, "trials only: processes; 0: one for each device, or core of the CPU", _at_least(0), True
    ),
    "steps_per_call": Key(50, "most training steps in one call to the devices", _at_least(1), True),
    "seconds_per_call": Key(
        5.0, "calls are cut shorter where steps are slow; 0: never", _at_least(0), True
    ),
    "log_every_steps": Key(50, "a line of metrics.jsonl", _at_least(1), True),
    "checkpoint_every_steps": Key(
        1000, "and when a training stage or cycle ends; in parallel trials only after 5 s",
        _at_least(1), True,
    ),
    "tensorboard": Key(
        False, 'also write event files (extra "tensorboard")', neutral=True
    ),
}  # fmt: skip


def default() -> ConfigDict:
    """All keys with their defaults, locked: unknown keys cannot be set."""
    config = ConfigDict()
    for name, key in KEYS.items():
        *groups, last = name.split(".")
        target = config
        for group in groups:
            if group not in target:
                target[group] = ConfigDict()
            target = target[group]
        target[last] = config_dict.placeholder(bool) if key.default is None else key.default
    return config.lock()


def load(path: str | pathlib.Path, **overrides: Any) -> ConfigDict:
    """The config that a file's `get_config()` returns, with some keys overridden.

    A nested key is written with its dots: `load(path, epochs=20, **{"vae.latent": 16})`. What
    follows a colon, `file.py:argument`, is given to `get_config`. Raises UserError, which names
    file and line, for what is wrong with the file.
    """
    text, *arguments = str(path).split(":", 1)
    path = pathlib.Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"there is no config file {path}: give a file, such as configs/digits.py")
    # Config files import each other by the folder they are in.
    there = str(path.resolve().parent.parent)
    sys.path.append(there)
    try:
        spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path} is no Python file: give one, such as configs/digits.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # Where dataclasses look for their module.
        spec.loader.exec_module(module)
        config = module.get_config(*arguments)
        config.lock()
    except UserError:
        raise
    except Exception as error:  # Whatever a user's file can raise.
        raise UserError(fault_of_file(error, path)) from error
    finally:
        sys.path.reverse()
        sys.path.remove(there)  # The last one of that name, which is ours.
        sys.path.reverse()
    return override(config, **overrides)


def override(config: ConfigDict, **overrides: Any) -> ConfigDict:
    """Sets keys of a config in place and returns it; UserError for one that it lacks."""
    for name, value in overrides.items():
        _get(config, name)
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise UserError(f"{name} is {value!r}: {' '.join(str(error).split())}") from error
    return config


def fault_of_file(error: BaseException, path: str | pathlib.Path) -> str:
    """One line that says what a user's file raised, and where."""
    text = " ".join(str(error).split()) or "no message"
    same = lambda name: pathlib.Path(name).resolve() == pathlib.Path(path).resolve()
    at = [f.lineno for f in traceback.extract_tb(error.__traceback__) if same(f.filename)]
    if isinstance(error, SyntaxError) and error.filename and same(error.filename):
        at.append(error.lineno)
    line = f", line {at[-1]}" if at else ""
    return f"{path}{line}: {type(error).__name__}: {text}"


def _get(config, name):
    for part in name.split("."):
        if not isinstance(config, ConfigDict) or part not in config:
            raise UserError(f"the config has no {name}: build it from tavaal_jax.config.default()")
        config = config[part]
    return config


def check(config: ConfigDict) -> None:
    """Raises UserError for the first key that is missing or breaks its limit."""
    for name, key in KEYS.items():
        value = _get(config, name)
        if key.limit is None:
            continue
        try:
            mend = key.limit(value)
        except TypeError as error:
            raise UserError(f"{name} is {value!r}: give such as {key.default!r}") from error
        if mend is not None:
            raise UserError(f"{name} is {value!r}: give {mend}")


def plain(config: ConfigDict) -> dict[str, Any]:
    """A config as JSON has it: tuples are lists."""
    record: dict[str, Any] = json.loads(config.to_json())
    return record


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Keys, with both values, in which two plain configs differ and that change results.

    What a config lacks has its default: a new key's does what was done before there was one.
    """
    defaults = flat(plain(default()))
    old, new = defaults | flat(before), defaults | flat(now)
    for name in sorted(old | new):
        neutral = name in KEYS and KEYS[name].neutral
        if old.get(name) != new.get(name) and not neutral:
            yield f"{name} ({old.get(name)} -> {new.get(name)})"


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A plain config by dotted names: `{"vae": {"latent": 64}} -> {"vae.latent": 64}`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found
