"""Readers of the files that are read again while the daemon runs: one for each kind of `gaiod.watched_files`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from gaiod.config.admission.access import read_networks
from gaiod.config.errors import Refused
from gaiod.watched_files import Files

__all__ = ["READERS", "Refused"]

READERS: dict[str, Callable[[Files], Any]] = {"access": lambda files: asdict(read_networks(files[0]))}
"""By the name of the kind. Each returns what `FileKind.renewed` takes, or raises Refused with what is wrong."""
