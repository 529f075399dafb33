"""Looks at a daemon that nobody runs."""

from typing import Any

from rich.console import Console
from supervisor.support.answers import AT, STATUS_RESULT

from gaiod.console.top.looks import Look
from gaiod.console.top.picture import Frame, picture

CONNECTION: dict[str, Any] = {
    "id": "3-1831",
    "listener": "echo",
    "worker": 0,
    "peer": "192.0.2.1:50000",
    "age_s": 250.0,
    "idle_s": 0.4,
    "received_bytes": 2**20,
    "sent_bytes": 17,
    "pending_bytes": 0,
    "stalled_s": 0.0,
    "waiting_s": 0.0,
    "buffered_bytes": 0,
    "bytes_per_s": 1234.0,
}

STALLED: dict[str, Any] = {
    **CONNECTION,
    "id": "3-7",
    "peer": "192.0.2.7:7",
    "waiting_s": 70.0,
    "buffered_bytes": 100_000,
    "bytes_per_s": 0.0,
}

WORKER: dict[str, Any] = {**STATUS_RESULT["workers"][0], "busy": 0.12, "loop_lag_s": 0.001}
LISTENER: dict[str, Any] = {
    **STATUS_RESULT["listeners"][0],
    "connections_max": 10_000,
    "backpressure": {
        "downstream": {"paused_connections": 0, "buffered_bytes": 0},
        "upstream": {"paused_connections": 3, "buffered_bytes": 2**20},
    },
}
STATUS: dict[str, Any] = {**STATUS_RESULT, "workers": [WORKER], "listeners": [LISTENER]}

FEEDER: dict[str, Any] = {
    "pid": 820,
    "state": "running",
    "heartbeat_age_s": 0.1,
    "memory_bytes": 2**24,
    "cpu_seconds": 2.0,
}
SOURCE: dict[str, Any] = {"listener": "ticks", "source": "every", "up": True, "published": 173, "refused": 0, "gaps": 0}


def look(**more: Any) -> Look:
    """Return a look: of one connection, unless it is told otherwise; `status` is added to the usual."""
    status = {**STATUS, **more.pop("status", {})}
    usual: dict[str, Any] = {
        "at": AT,
        "sort": "traffic",
        "connections": [CONNECTION],
        "stalled": [],
        "total": 1,
        "silent_workers": [],
    }
    return Look(**{**usual, "status": status, **more})


def drawn(seen: Look, width: int = 140, height: int | None = None, **more: Any) -> list[str]:
    """Return the lines of a picture, as a terminal of that width gets them."""
    console = Console(width=width, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(picture(seen, Frame(width, height, **more)))
    return [line.rstrip() for line in capture.get().splitlines()]
