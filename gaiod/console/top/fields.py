"""The tables of the view: what their columns show, and which of them a narrow terminal does without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gaiod.console.tables import (
    UNKNOWN,
    accept_queue,
    duration,
    lag,
    number,
    of,
    rate,
    rate_of,
    share,
    shown,
    size,
    size_rate,
    up_or_down,
)

Row = Mapping[str, Any]

BAD, NOTABLE, GOOD = "bold red", "yellow", "green"

BUSY_MUCH, LAG_MUCH_S, HEARTBEAT_LATE_S, FULL = 0.8, 0.05, 2.0, 0.9
"""From here on a number is coloured: nothing depends on it."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column.

    Attributes:
        title: above it.
        show: returns what a row has in it.
        rank: columns of the highest are left out first where the terminal is too narrow; 0: none that is.
        is_text: it is aligned to the left, and cut before a column is left out.
        style: returns how a row is coloured in it; "": not.
        least: what a text keeps of its width before columns are left out.
    """

    title: str
    show: Callable[[Row], str]
    rank: int
    is_text: bool = False
    style: Callable[[Row], str] = lambda row: ""
    least: int = 8


def _at_least(key: str, much: float, style: str = BAD) -> Callable[[Row], str]:
    return lambda row: style if (row.get(key) or 0) >= much else ""


def _state(row: Row) -> str:
    return GOOD if row.get("state") in ("serving", "running") else NOTABLE


def _pressure(side: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        held = (row.get("backpressure") or {}).get(side) or {}
        paused, buffered = held.get("paused_connections", 0), held.get("buffered_bytes", 0)
        return f"{paused}: {size(buffered)}" if paused or buffered else UNKNOWN

    return show


def _pressure_style(side: str) -> Callable[[Row], str]:
    show = _pressure(side)
    return lambda row: "" if show(row) == UNKNOWN else NOTABLE


def _open(row: Row) -> str:
    limit = row.get("limit")
    return number(row.get("connections")) + (f"/{limit}" if limit else "")


def _is_full(row: Row) -> str:
    limit = row.get("limit")
    return BAD if limit and (row.get("connections") or 0) >= FULL * limit else ""


WORKERS: Sequence[Field] = (
    Field("WORKER", of("worker", number), 0),
    Field("PID", of("pid", number), 4),
    Field("STATE", of("state", shown), 0, is_text=True, style=_state),
    Field("CONNS", of("connections", number), 1),
    Field("BUSY", of("busy", share), 1, style=_at_least("busy", BUSY_MUCH)),
    Field("LAG", of("loop_lag_s", lag), 2, style=_at_least("loop_lag_s", LAG_MUCH_S)),
    Field("HEARTBEAT", of("heartbeat_age_s", duration), 6, style=_at_least("heartbeat_age_s", HEARTBEAT_LATE_S)),
    Field("MEMORY", of("memory_bytes", size), 3),
    Field("CPU", of("cpu_seconds", duration), 5),
    Field("AGE", of("age_s", duration), 7),
    Field("GEN", of("generation", number), 8),
    Field("RESTARTS", of("restarts", number), 4, style=_at_least("restarts", 1, NOTABLE)),
)

LISTENERS: Sequence[Field] = (
    Field("LISTENER", of("listener", shown), 0, is_text=True),
    Field("STATE", of("state", shown), 5, is_text=True, style=_state),
    Field("OPEN/LIMIT", _open, 1, style=_is_full),
    Field("ACCEPTED", rate_of("accepted", rate), 2),
    Field("RECEIVED", rate_of("received_bytes", size_rate), 1),
    Field("SENT", rate_of("sent_bytes", size_rate), 1),
    Field("ACCEPT QUEUE", accept_queue, 4),
    Field("WAITING", of("waiting_for_server", number), 3, style=_at_least("waiting_for_server", 1, NOTABLE)),
    Field("CLIENTS PAUSED", _pressure("downstream"), 3, style=_pressure_style("downstream")),
    Field("SERVERS PAUSED", _pressure("upstream"), 3, style=_pressure_style("upstream")),
)

FEEDER: Sequence[Field] = (
    Field("FEEDER PID", of("pid", number), 0),
    Field("STATE", of("state", shown), 0, is_text=True, style=_state),
    Field("HEARTBEAT", of("heartbeat_age_s", duration), 2),
    Field("MEMORY", of("memory_bytes", size), 1),
    Field("CPU", of("cpu_seconds", duration), 2),
    Field("RESTARTS", of("restarts", number), 1, style=_at_least("restarts", 1, NOTABLE)),
)

SOURCES: Sequence[Field] = (
    Field("SOURCE OF", of("listener", shown), 0, is_text=True),
    Field("SOURCE", of("source", shown), 0, is_text=True),
    Field("STATE", up_or_down, 0, style=lambda row: GOOD if row.get("up") else BAD),
    Field("PUBLISHED", of("published", number), 1),
    Field("REFUSED", of("refused", number), 2),
    Field("RECONNECTS", of("reconnects", number), 3),
    Field("GAPS", of("gaps", number), 2, style=_at_least("gaps", 1, NOTABLE)),
)

CONNECTIONS: Sequence[Field] = (
    Field("ID", of("id", shown), 0),
    Field("LISTENER", of("listener", shown), 3, is_text=True),
    Field("PEER", of("peer", shown), 0, is_text=True, least=len("255.255.255.255:65535")),
    Field("SERVER", of("server", shown), 3, is_text=True),
    Field("TRAFFIC", of("bytes_per_s", size_rate), 1),
    Field("STALLED", of("waiting_s", lambda value: duration(value) if value else UNKNOWN), 1,
          style=_at_least("waiting_s", 1.0)),
    Field("BUFFERED", of("buffered_bytes", size), 2, style=_at_least("buffered_bytes", 1, NOTABLE)),
    Field("AGE", of("age_s", duration), 4),
    Field("IDLE", of("idle_s", duration), 5),
    Field("RECEIVED", of("received_bytes", size), 6),
    Field("SENT", of("sent_bytes", size), 6),
)  # fmt: skip
