"""The tables of the view: what their columns show, and which of them a narrow terminal does without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gaiod.supervisor.tables import UNKNOWN, duration, lag, number, rate, share, shown, size, size_rate

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


def _of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: show(row.get(key))


def _at_least(key: str, much: float, style: str = BAD) -> Callable[[Row], str]:
    return lambda row: style if (row.get(key) or 0) >= much else ""


def _state(row: Row) -> str:
    return GOOD if row.get("state") in ("serving", "running") else NOTABLE


def _rate_of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: show((row.get("rates") or {}).get(key))


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
    Field("WORKER", _of("worker", number), 0),
    Field("PID", _of("pid", number), 4),
    Field("STATE", _of("state", shown), 0, is_text=True, style=_state),
    Field("CONNS", _of("connections", number), 1),
    Field("BUSY", _of("busy", share), 1, style=_at_least("busy", BUSY_MUCH)),
    Field("LAG", _of("loop_lag_s", lag), 2, style=_at_least("loop_lag_s", LAG_MUCH_S)),
    Field("HEARTBEAT", _of("heartbeat_age_s", duration), 6, style=_at_least("heartbeat_age_s", HEARTBEAT_LATE_S)),
    Field("MEMORY", _of("memory_bytes", size), 3),
    Field("CPU", _of("cpu_seconds", duration), 5),
    Field("AGE", _of("age_s", duration), 7),
    Field("GEN", _of("generation", number), 8),
    Field("RESTARTS", _of("restarts", number), 4, style=_at_least("restarts", 1, NOTABLE)),
)

LISTENERS: Sequence[Field] = (
    Field("LISTENER", _of("listener", shown), 0, is_text=True),
    Field("STATE", _of("state", shown), 5, is_text=True, style=_state),
    Field("OPEN/LIMIT", _open, 1, style=_is_full),
    Field("ACCEPTED", _rate_of("accepted", rate), 2),
    Field("RECEIVED", _rate_of("received_bytes", size_rate), 1),
    Field("SENT", _rate_of("sent_bytes", size_rate), 1),
    Field("QUEUE", lambda row: f"{number(row.get('queue'))}/{number(row.get('queue_limit'))}", 4),
    Field("CLIENTS PAUSED", _pressure("downstream"), 3, style=_pressure_style("downstream")),
    Field("SERVERS PAUSED", _pressure("upstream"), 3, style=_pressure_style("upstream")),
)

FEEDER: Sequence[Field] = (
    Field("FEEDER PID", _of("pid", number), 0),
    Field("STATE", _of("state", shown), 0, is_text=True, style=_state),
    Field("HEARTBEAT", _of("heartbeat_age_s", duration), 2),
    Field("MEMORY", _of("memory_bytes", size), 1),
    Field("CPU", _of("cpu_seconds", duration), 2),
    Field("RESTARTS", _of("restarts", number), 1, style=_at_least("restarts", 1, NOTABLE)),
)

SOURCES: Sequence[Field] = (
    Field("SOURCE OF", _of("listener", shown), 0, is_text=True),
    Field("SOURCE", _of("source", shown), 0, is_text=True),
    Field("STATE", lambda row: "up" if row.get("up") else "down", 0, style=lambda row: GOOD if row.get("up") else BAD),
    Field("PUBLISHED", _of("published", number), 1),
    Field("REFUSED", _of("refused", number), 2),
    Field("RECONNECTS", _of("reconnects", number), 3),
    Field("GAPS", _of("gaps", number), 2, style=_at_least("gaps", 1, NOTABLE)),
)

CONNECTIONS: Sequence[Field] = (
    Field("ID", _of("id", shown), 0),
    Field("LISTENER", _of("listener", shown), 3, is_text=True),
    Field("PEER", _of("peer", shown), 0, is_text=True, least=len("255.255.255.255:65535")),
    Field("TRAFFIC", _of("bytes_per_s", size_rate), 1),
    Field("STALLED", _of("waiting_s", lambda value: duration(value) if value else UNKNOWN), 1,
          style=_at_least("waiting_s", 1.0)),
    Field("BUFFERED", _of("buffered_bytes", size), 2, style=_at_least("buffered_bytes", 1, NOTABLE)),
    Field("AGE", _of("age_s", duration), 4),
    Field("IDLE", _of("idle_s", duration), 5),
    Field("RECEIVED", _of("received_bytes", size), 6),
    Field("SENT", _of("sent_bytes", size), 6),
)  # fmt: skip
