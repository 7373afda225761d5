"""A study's folder: locks, trials, config.json, and writing files whole."""

import contextlib
import csv
import datetime
import errno
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import filelock
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax import jax_settings
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.renamed_keys import present_record

ConfigRecord = dict[str, Any]
"""Content of config.json, see `running`."""
FORMAT = 2
"""Format of a workdir; one of another format cannot be continued."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
"""Packages whose versions may change results."""
FULL = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space"}


# Folders


def claim(workdir: pathlib.Path) -> AbstractContextManager[object]:
    """Makes the folder and locks it against a second process until the context ends.

    Raises UserError where another process has locked it; a file beside the lock tells which.
    """
    path, holder = workdir / ".lock", workdir / ".lock.holder"
    held, warned = contextlib.ExitStack(), list[warnings.WarningMessage]()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            held.enter_context(filelock.FileLock(path).acquire(timeout=0))
    except filelock.Timeout as error:
        fault, mend = f"another process is running in {workdir}", "give another --workdir"
        with contextlib.suppress(OSError):
            fault += f" ({holder.read_text('utf-8', 'replace')})"
        if warned:  # Without locks of the disk, the file itself is one, and outlives its process.
            mend += f"; if it, or its machine, is gone, delete {path}"
        raise UserError(f"{fault}: wait for it, or {mend}") from error
    except OSError as error:
        raise UserError(
            f"cannot write to workdir {workdir} ({error.strerror or error}): give another --workdir"
        ) from error
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    # On a full disk the lock is one all the same.
    with contextlib.suppress(OSError):
        holder.write_text(
            f"process {os.getpid()} on {socket.gethostname()}, since {since}", "utf-8"
        )
    held.callback(_remove, holder)
    return held


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def trial_folder(workdir: pathlib.Path, method: str, trial: int) -> pathlib.Path:
    """Folder in which a trial writes."""
    return workdir / method / f"trial_{trial}"


def trials(workdir: pathlib.Path) -> list[tuple[str, int]]:
    """Every trial that has a folder of its own, (method, trial), in `order`."""
    return [trial for trial in _folders(workdir) if _holder(workdir, trial) == trial]


def copies(workdir: pathlib.Path) -> list[UserError]:
    """A line for each folder that is a copy of another trial's, and belongs to none."""
    held = {trial: _holder(workdir, trial) for trial in _folders(workdir)}
    return [
        UserError(
            f"{trial_folder(workdir, *trial)} is left out: it holds {holder[0]}'s trial"
            f" {holder[1]}, of which it seems to be a copy"
        )
        for trial, holder in held.items()
        if holder != trial
    ]


def _folders(workdir: pathlib.Path) -> list[tuple[str, int]]:
    """Method and trial by the names of folders, in `order`."""
    found = (
        (path.parent.name, int(path.name.removeprefix("trial_")))
        for path in workdir.glob("*/trial_*")
        if path.name.removeprefix("trial_").isdecimal()
    )
    return sorted(found, key=order)


def _holder(workdir: pathlib.Path, trial: tuple[str, int]) -> tuple[str, int]:
    """The trial whose results a trial's folder holds: itself, unless the folder is a copy."""
    path = trial_folder(workdir, *trial) / "results.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file))
        return row["method"], int(row["trial"])
    except (OSError, StopIteration, KeyError, TypeError, ValueError, csv.Error):
        return trial  # Without results, or damaged, which reading it tells.


def order(trial: tuple[str, int]) -> tuple[int, str, int]:
    """Sort key of (method, trial): METHODS' order, unknown methods last."""
    method, number = trial
    names = list(METHODS)
    return (names.index(method) if method in names else len(names), method, number)


# config.json


def check_readable(folder: pathlib.Path, record: ConfigRecord, what: str) -> None:
    """Raises UserError where config.json is of another format; `what` was to be done with it."""
    if record.get("format") != FORMAT:
        raise UserError(
            f"{folder} is of another version of tavaal_jax (format {record.get('format', 1)}, this"
            f" one reads {FORMAT}): {what} with that version"
        )


def check_config(
    workdir: pathlib.Path, config: ConfigDict, data: str | None = None, features: str | None = None
) -> None:
    """Raises UserError if the folder holds results of a config that gives other results.

    `data` is the fingerprint of a data set given as arrays, `features` what makes its features.
    """
    old = read_config(workdir)
    if old is None:
        if (workdir / "images.csv").exists():
            raise UserError(
                f"{workdir} holds images that people label, and dataset is {config.dataset!r}:"
                " give another --workdir, or their config"
            )
        return
    if old.get("format") != FORMAT:
        raise UserError(
            f"{workdir} was begun by another version of tavaal_jax (format {old.get('format', 1)},"
            f" this one writes {FORMAT}): finish it with that version, or give another --workdir"
        )
    changed = changed_keys(old, config, features)
    if old.get("data") != data:
        changed.append("the images and labels of the data set")
    if changed:
        raise UserError(
            f"{workdir} holds a study with another config: {', '.join(changed)};"
            " give the old values or another --workdir"
        )


def changed_keys(
    record: ConfigRecord, config: ConfigDict, features: str | None = None
) -> list[str]:
    """What changes results and differs between a config.json and now, as text.

    That are keys of `config`, the content of weights, what makes features (its digest), and
    settings of JAX; older versions kept none of these.
    """
    changed = list(configs.differences(record["config"], configs.plain(config)))
    old, new = record.get("pretrained"), digest(config.task.pretrained)
    if old not in (None, new):
        changed.append(f"the content of {config.task.pretrained} (task.pretrained)")
    if record.get("features") != features and not any(x.startswith("backbone.") for x in changed):
        what = "the weights of backbone.name" if config.backbone.name else "backbone.features"
        changed.append(f"the content of {what}")
    return changed + jax_settings.differences(record.get("jax", {}))


def write_config(
    workdir: pathlib.Path, config: ConfigDict, data: str | None = None, features: str | None = None
) -> None:
    """Writes config.json: what runs now, and what ran here earlier where that differs."""
    old = read_config(workdir)
    record = running(config, data, features)
    earlier = [] if old is None else old.pop("earlier", [])
    if old is not None and old != record:
        earlier = [*earlier, old]
    write(workdir / "config.json", json.dumps({**record, "earlier": earlier}, indent=2) + "\n")


def running(
    config: ConfigDict, data: str | None = None, features: str | None = None
) -> ConfigRecord:
    """Record of what runs now; `data` is the fingerprint of data given as arrays.

    `features` is the digest of what makes features of images; None: images are trained on.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "format": FORMAT,
        "config": configs.plain(config),
        "data": data,
        "pretrained": digest(config.task.pretrained),
        "features": features,
        "jax": jax_settings.of_numbers(),
        "versions": {"python": sys.version.split()[0], **versions},
        "git_revision": _git_revision(),
    }


def read_config(workdir: pathlib.Path) -> ConfigRecord | None:
    """Content of config.json; None where there is none, UserError where it cannot be read."""
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        record: ConfigRecord = json.loads(path.read_text("utf-8"))
        record["config"] = present_record(record["config"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read, so this may be another study's folder:"
            " give another --workdir, or delete that file if you are sure"
        ) from error
    return record


def _git_revision() -> str | None:
    """Revision of the clone that this package runs from; None where it is installed."""
    command = ["git", "-C", str(pathlib.Path(__file__).parent)]
    try:
        # An installed package may lie in somebody else's repository.
        tracked = [*command, "ls-files", "--error-unmatch", pathlib.Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True)
        describe = [*command, "describe", "--always", "--dirty", "--abbrev=40"]
        done = subprocess.run(describe, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


# Writing


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
    """Turns a failure to write `path` into a UserError that names it."""
    try:
        yield
    except OSError as error:
        mend = FULL.get(error.errno or 0, "see to its folder")
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): {mend}; the same command continues"
        ) from error


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file atomically: it is the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with named(path):
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        os.replace(temporary, path)


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a compressed npz file; makes its folder if need be."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write(path, buffer.getvalue())


def read_csv(path: pathlib.Path, mend: str = "put back a copy") -> list[dict[str, str]]:
    """Rows of a csv with a header; none where there is no such file, UserError where damaged."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): {mend}") from error


def as_csv(fields: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as the text of a csv with a header; what a row does not have is empty."""
    text = io.StringIO()
    # A file's name may have any character; csv quotes those of its own line's end, \r\n.
    writer = csv.DictWriter(text, fields, lineterminator="\r\n")
    lines = []
    for row in ({name: name for name in fields}, *rows):
        writer.writerow(row)
        lines.append(text.getvalue().removesuffix("\r\n"))
        text.seek(0)
        text.truncate()
    return "".join(f"{line}\n" for line in lines)


def digest(path: str) -> str | None:
    """SHA-256 of a file's content; None where it cannot be read."""
    try:
        with user_path(path, "task.pretrained").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UnicodeEncodeError):  # Or the locale cannot name it.
        return None
