"""What a container (a control group of Linux) may use of its machine: time of CPUs, and memory."""

import math
import pathlib
from collections.abc import Callable, Iterator

_ROOT = pathlib.Path("/")


def cpus(root: pathlib.Path = _ROOT) -> int | None:
    """CPUs' worth of time that a container's quota allows, at least 1; None without a quota."""
    least = _least("cpu", _quota, root)
    return None if least is None else max(1, math.ceil(least))


def memory(root: pathlib.Path = _ROOT) -> int | None:
    """Bytes of memory that a container may use; None without a limit."""
    least = _least("memory", _memory_limit, root)
    return None if least is None else int(least)


def _least(
    kind: str, limit: Callable[[pathlib.Path], float | None], root: pathlib.Path
) -> float | None:
    """The least limit of this process's group and of those above it, which hold as well."""
    limits = [found for group in _groups(kind, root) if (found := limit(group)) is not None]
    return min(limits, default=None)


def _groups(kind: str, root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders of groups that may limit "cpu" or "memory" of this process, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, own = line.split(":", 2)
        if not kinds or kind in kinds.split(","):
            # A container may see its own group as the root.
            inner = pathlib.PurePosixPath(own.lstrip("/"))
            place = root / "sys/fs/cgroup" / (kind if kinds else "")
            yield from (place / group for group in (inner, *inner.parents))


def _quota(group: pathlib.Path) -> float | None:
    """CPUs' worth of time of one group: `cpu.max` of version 2, or the two files of version 1."""
    found = _numbers(group, "cpu.max") or _numbers(group, "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return found[0] / found[1] if found and min(found) > 0 else None


def _memory_limit(group: pathlib.Path) -> float | None:
    """Bytes of one group; without a limit version 1 says a number larger than any memory."""
    found = _numbers(group, "memory.max") or _numbers(group, "memory.limit_in_bytes")
    return found[0] if found and found[0] > 0 else None


def _numbers(group: pathlib.Path, *names: str) -> list[int]:
    """Numbers in files of a group; none where a file is missing, empty, or says "max"."""
    try:
        text = " ".join((group / name).read_text("utf-8", "replace") for name in names)
        return [int(number) for number in text.split()]
    except (OSError, ValueError):
        return []
