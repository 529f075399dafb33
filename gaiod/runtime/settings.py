"""The settings a worker runs with: plain frozen data, validated before a worker ever sees them.

`gaiod.config` is where the YAML text, its units and its defaults become these; the worker receives
them from its supervisor and trusts them. Every number carries its unit in its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener: where it binds, which handler answers, and its limits."""

    name: str
    bind: str
    """`HOST:PORT` with a numeric host, `[V6]:PORT`, or `unix:/absolute/path`."""
    handler: str
    """The name of an entry point, `package.module:Class`, or `/absolute/file.py:Class`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The handler's own options as plain values: durations in seconds, sizes in bytes."""
    connections_max: int = 10_000
    """Per worker; connections beyond it are closed as soon as they are accepted."""
    idle_timeout_s: float = 300.0
    backlog: int = 1024
    nodelay: bool = True
    keepalive_s: float | None = 60.0
    """Idle seconds before the first TCP keep-alive probe; None: no probes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything one configuration file says."""

    listeners: tuple[ListenerSettings, ...]
    workers: int = 1
    metrics_listen: str = "127.0.0.1:9464"
    """As `ListenerSettings.bind`."""
