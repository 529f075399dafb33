"""This process's file descriptors: which are open, how many may be."""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("/proc/self/fd")


def open_descriptors() -> dict[int, str]:
    """Return what is open, and on what."""
    found: dict[int, str] = {}
    for name in os.listdir(FOLDER):
        try:
            found[int(name)] = os.readlink(FOLDER / name)
        except OSError:
            continue  # the one that listed the folder
    return dict(sorted(found.items()))


def leaked_since(before: dict[int, str]) -> dict[int, str]:
    """Return what was opened since and is still open, when all garbage is collected."""
    if open_descriptors() == before:
        return {}
    gc.collect()
    return {fd: target for fd, target in open_descriptors().items() if before.get(fd) != target}


def eventpolls() -> set[int]:
    """Return the descriptors of epoll instances."""
    return {fd for fd, target in open_descriptors().items() if "eventpoll" in target}


@contextmanager
def descriptors_limited_to(free: int) -> Iterator[None]:
    """Let the process open `free` more descriptors than it has, at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = open_descriptors()
    numbers = (number for number in range(soft) if number not in taken)
    for _ in range(free):
        next(numbers)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(numbers), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def can_open(wanted: int) -> bool:
    """Raise the soft limit to `wanted` descriptors if need be; tell whether they are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True
