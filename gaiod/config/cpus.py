"""How many CPUs this process may use: what it may run on, and how much time its control groups grant it.

A container limited to 1.5 CPUs sees all 64 of the machine, and its affinity names all 64. Only the quota of
its control group, or of one above it, tells: 64 workers would be stopped together for most of each 100 ms.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MACHINE = Path("/")
V2, V1 = "cgroup2", "cgroup"
OCTAL = re.compile(rb"\\([0-7]{3})")


class _Mount(NamedTuple):
    """A hierarchy of control groups that has CPU quotas."""

    version: str
    group: str
    """The group whose directory is at the mount point: / on a host, often a container's own inside one."""
    point: str


def usable_cpus(root: Path = MACHINE) -> int:
    """Return how many CPUs this process can keep busy, at least 1.

    Counts the CPUs of its affinity, and no more than the CPU quota of its control groups (version 1 and 2,
    every level; a fraction counts as a whole CPU). A file that cannot be read or understood sets no quota.

    Args:
        root: where /proc and the mounts are looked for.

    Source: cgroups(7), proc(5); Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst of Linux.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([affinity, *_quotas(root)])


def _quotas(root: Path) -> Iterator[int]:
    groups = _own_groups(root)
    for mount in _mounts(root):
        if mount.version in groups:
            for level in _levels(groups[mount.version], mount.group):
                folder = root / mount.point.lstrip("/") / level
                quota = _quota_v2(folder) if mount.version == V2 else _quota_v1(folder)
                if quota is not None:
                    yield quota


def _own_groups(root: Path) -> dict[str, str]:
    """Return the groups of this process that may have a quota, by version: `4:cpu,cpuacct:/a`, `0::/a`."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        match os.fsdecode(line).split(":", 2):
            case ["0", "", group]:
                groups[V2] = group
            case [_, controllers, group] if "cpu" in controllers.split(","):
                groups[V1] = group
    return groups


def _mounts(root: Path) -> Iterator[_Mount]:
    """Yield from `36 35 98:0 /group /mount/point rw,noatime shared:1 - cgroup2 cgroup2 rw`."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(b" - ")
        match before.split(b" "), after.split(b" "):
            case [_, _, _, group, point, *_], [kind, _, options]:
                if kind == V2.encode() or (kind == V1.encode() and b"cpu" in options.split(b",")):
                    yield _Mount(os.fsdecode(kind), _unescaped(group), _unescaped(point))


def _unescaped(field: bytes) -> str:
    r"""Return a field of mountinfo, which writes a space as \040: systemd's groups have backslashes in them."""
    return os.fsdecode(OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def _levels(group: str, top: str) -> Iterator[PurePosixPath]:
    """Yield `group` and all groups above it up to `top`, relative to `top`; nothing where it is elsewhere."""
    path = PurePosixPath(group)
    if path.is_relative_to(top) and ".." not in path.parts:  # .. leads out of the namespace
        own = path.relative_to(top)
        yield from (own, *own.parents)


def _quota_v2(folder: Path) -> int | None:
    match _text(folder / "cpu.max").split():
        case [quota, period]:
            return _cpus(quota, period)
    return None


def _quota_v1(folder: Path) -> int | None:
    return _cpus(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _cpus(quota: str, period: str) -> int | None:
    """Return the CPUs of a quota, rounded up; None for `max`, -1, and whatever else is no quota."""
    try:
        quota_us, period_us = int(quota), int(period)
    except ValueError:
        return None
    return -(-quota_us // period_us) if quota_us > 0 and period_us > 0 else None


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")
    except (OSError, ValueError):  # the latter: a NUL in a path
        return []


def _text(path: Path) -> str:
    return os.fsdecode(b"\n".join(_lines(path)))
