"""What the kernel says of other processes."""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (man 5 proc); empty if there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Tell whether a process runs: a zombie does not."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


def children_of(pid: int) -> list[int]:
    """Return the processes that have this parent."""
    return [other for other in _pids() if (stat := _stat(other)) and int(stat[1]) == pid and stat[0] != "Z"]


def session_of(leader: int) -> list[int]:
    """Return the processes of a session: what a daemon started, orphans included."""
    return [other for other in _pids() if (stat := _stat(other)) and int(stat[3]) == leader and stat[0] != "Z"]


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has, counted and not estimated as in its `stat`."""
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return 1024 * int(line.split()[1])
    raise AssertionError(f"process {pid} has no Rss")


def is_traced(pid: int) -> bool:
    """Tell whether a debugger, such as strace, is attached to a process."""
    status = (PROC / str(pid) / "status").read_text()
    return "\nTracerPid:\t0\n" not in status


def threads_of(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(PROC / str(pid) / "task"))


def descriptors_of(pid: int) -> set[int]:
    """Return the descriptors that a process has open."""
    return {int(name) for name in os.listdir(PROC / str(pid) / "fd")}


def targets_of(pid: int) -> set[str]:
    """Return what the descriptors of a process are open on; but for those that it closes meanwhile."""
    targets = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):
            targets.add(os.readlink(link))
    return targets


def codes_of(pid: int) -> int:
    """Return how many descriptors a process has of files with the code of a generation."""
    found = 0
    for fd in descriptors_of(pid):
        with suppress(FileNotFoundError):
            found += "gaiod-code" in os.readlink(PROC / str(pid) / "fd" / str(fd))
    return found


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped by a signal."""
    return _stat(pid)[:1] == ["T"]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdecimal()]


def inodes_of(pid: int, address: str) -> set[int]:
    """Return the inodes of the sockets with which a process listens on an address over IPv4."""
    host, _, port = address.rpartition(":")
    where = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{int(port):04X}"
    lines = [line.split() for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]]
    listening = {int(line[9]) for line in lines if line[1] == where and line[3] == "0A"}
    targets = targets_of(pid)
    return {inode for inode in listening if f"socket:[{inode}]" in targets}


def status_of(pid: int) -> dict[str, str]:
    """Return what /proc/PID/status says; nothing of a process that ended meanwhile."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def files_of(pid: int) -> set[str]:
    """Return what a process has open, as /proc/PID/fd calls it."""
    found = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(link))
    return found


WORKER_MAX_KIB = 16 * 1024
"""Most of a process that serves nobody: 10.3 MiB with CPython 3.11, 13.7 with 3.15, of which half is Python's own."""


def private_kib(pid: int) -> int:
    """Return what one more such process costs: pages that are its own, and not those of program files.

    The kernel holds a program file once for all processes, and counts it in the resident size of each (`VmRSS`).
    """
    status = dict(line.split(":", 1) for line in (PROC / str(pid) / "status").read_text().splitlines())
    return int(status["RssAnon"].split()[0])
