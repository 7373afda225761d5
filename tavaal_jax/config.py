"""A config of the keys in `config_keys`: made, changed, checked and compared.

`default` makes the config that `configs/default.py` returns; an experiment overrides a few keys.
"""

import json
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, config_dict

from tavaal_jax.config_keys import KEYS
from tavaal_jax.errors import UserError
from tavaal_jax.renamed_keys import Config, present_key

PEOPLE = "people"
"""`dataset` where people label their own images."""


def default() -> ConfigDict:
    """All keys with their defaults, locked: unknown keys cannot be set."""
    config = Config()
    for name, key in KEYS.items():
        *groups, last = name.split(".")
        target = config
        for group in groups:
            if group not in target:
                target[group] = Config()
            target = target[group]
        target[last] = config_dict.placeholder(bool) if key.default is None else key.default
    config.lock()
    return config


def override(config: ConfigDict, **overrides: Any) -> ConfigDict:
    """Sets keys of a config in place and returns it; UserError for one that it lacks."""
    for given, value in overrides.items():
        name = present_key(given)
        if isinstance(_get(config, name), ConfigDict):
            raise UserError(f"{name} is {value!r}: give its keys by their dotted names, {name}.KEY")
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise UserError(f"{name} is {value!r}: {' '.join(str(error).split())}") from error
    return config


def changed(config: ConfigDict, **values: object) -> ConfigDict:
    """Copy of a config with other values of first-level keys, `changed(config, budget=5)`."""
    copy: ConfigDict = config.copy_and_resolve_references()
    with copy.unlocked():
        copy.update(values)
    return copy


def _get(config: ConfigDict, name: str) -> Any:
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


_WITHOUT = {"normalisation.features": "each"}
"""What was done without a key whose default depends on other keys; now it is in the record."""


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Keys, with both values, in which two plain configs differ and that change results.

    What a config lacks has its default: a new key's does what was done before there was one.
    """
    defaults = flat(plain(default()))
    old, new = defaults | _WITHOUT | flat(before), defaults | flat(now)
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
