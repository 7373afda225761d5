"""Old names of config keys and values: read for one version, with a line that says the new one."""

import warnings
from typing import Any

from ml_collections import ConfigDict

KEYS = {
    "ranker.until_fraction": "ranker.active_fraction",
    "ranker.after": "ranker.when_inactive",
    "ranker.eta": "ranker.loss_weight",
    "feed": "data_placement",
    "folder.bad": "folder.exclude_answers",
    "folder.parts": "folder.request_parts",
}
"""New names by old ones, with the group that both are in."""
VALUES = {"dataset": {"folder": "people"}, "parallel": {"data": "devices"}}
"""New values of keys by their old ones."""
GONE = ("cityscapes.through", "tensorboard")
"""Keys of earlier versions that changed no result."""
_FIELDS = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in KEYS.items()}


class Config(ConfigDict):
    """A config that knows its keys by their old names as well: a `FutureWarning` says the new one.

    Every group of it is one, too.
    """

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(self._present(key))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(self._present(key), _present_value(key, value))

    def _present(self, key: str) -> str:
        new = _FIELDS.get(key)
        if new is None or key in self or new not in self:
            return key
        _warn(key, new)
        return new


def _present_value(key: str, value: Any) -> Any:
    new = VALUES.get(key, {}).get(value) if isinstance(value, str) else None
    if new is None:
        return value
    _warn(f"{key}={value!r}", repr(new))
    return new


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is called {new} now: write that", FutureWarning, stacklevel=4)


def present_key(key: str) -> str:
    """The name that a key, with its group, has today."""
    if key in KEYS:
        _warn(key, KEYS[key])
    return KEYS.get(key, key)


def present_flag(argument: str) -> str:
    """`--config.feed=streamed` as it is written today; any other argument as it is."""
    name, equals, value = argument.partition("=")
    dashes, flag, key = name.partition("config.")
    if dashes not in ("-", "--") or not flag:
        return argument
    return f"{dashes}{flag}{present_key(key)}{equals}{value}"


def present_record(record: dict[str, Any], group: str = "") -> dict[str, Any]:
    """A plain config that an earlier version wrote, with the names of today."""
    present: dict[str, Any] = {}
    for key, value in record.items():
        if group + key in GONE:
            continue
        name = KEYS.get(group + key, group + key).rpartition(".")[2]
        if isinstance(value, dict):
            present[name] = present_record(value, f"{group}{key}.")
        else:
            is_word = isinstance(value, str) and not group
            present[name] = VALUES.get(key, {}).get(value, value) if is_word else value
    return present
