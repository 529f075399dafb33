"""What there is to see of a daemon, column by column: one set for `gaiod status`, `gaiod top` and the status page.

A view takes the columns that are for it (`in_text`, `in_top`, `on_page`). What is notable or bad is said once, here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gaiod.wording import printable

UNKNOWN = "-"

Row = Mapping[str, Any]

GOOD, NOTABLE, BAD = "good", "notable", "bad"

BUSY_MUCH, LAG_MUCH_S, HEARTBEAT_LATE_S, FULL, STALLED_S = 0.9, 0.1, 2.0, 0.9, 1.0
"""From here on a number is marked as bad: nothing depends on it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        title: above it, in text.
        show: returns what a row has in it.
        is_text: it is aligned to the left, and cut where the table gets too wide.
        is_name: it says what the row is about.
        mark: returns GOOD, NOTABLE, BAD, or "": nothing about it is worth saying.
        in_text: `gaiod status` and `gaiod connections` have it.
        rank: `gaiod top` has it, and leaves out those of the highest rank first where the terminal is too narrow;
            0: never; None: it does not have it.
        least: what a text keeps of its width in `gaiod top` before columns are left out.
        heading: above it on the status page; "": that does not have it.
    """

    title: str
    show: Callable[[Row], str]
    is_text: bool = False
    is_name: bool = False
    mark: Callable[[Row], str] = lambda row: ""
    in_text: bool = True
    rank: int | None = None
    least: int = 8
    heading: str = ""


def in_text(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that a printed table has."""
    return [column for column in columns if column.in_text]


def in_top(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that the live view has where there is room."""
    return [column for column in columns if column.rank is not None]


def on_page(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that the status page has: what whoever may see the metrics may see."""
    return [column for column in columns if column.heading]


def with_limits(status: Row) -> list[dict[str, Any]]:
    """Return the listeners of a status, and as `limit` how many connections each may have in all workers."""
    serving = sum(worker.get("state") in ("serving", "keeping") for worker in status.get("workers") or [])
    listeners = status.get("listeners") or []
    return [{**row, "limit": serving * (row.get("connections_max") or 0)} for row in listeners]


# -- units -------------------------------------------------------------------------------------------


def size(count: float | None) -> str:
    """Return a number of bytes: `12.3 MiB`."""
    return UNKNOWN if count is None else _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def rate(count: float | None) -> str:
    """Return a number per second: `0.3/s`, `12/s`, `3.2 k/s`."""
    if count is None:
        return UNKNOWN
    if 0 < count < 9.95:
        return f"{count:.1f}/s"
    return _scaled(count, 1000, ("", "k", "M", "G")).rstrip() + "/s"


def size_rate(count: float | None) -> str:
    """Return bytes per second: `12.3 MiB/s`."""
    return UNKNOWN if count is None else f"{size(count)}/s"


def duration(seconds: float | None) -> str:
    """Return a time span, its two largest units: `0.4s`, `42s`, `4m 10s`, `3d 4h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def share(value: float | None) -> str:
    """Return a part of a whole: `42%`."""
    return UNKNOWN if value is None else f"{100 * value:.0f}%"


def lag(bound_s: float | None) -> str:
    """Return what nearly all rounds of a loop took less than: `<5ms`."""
    return UNKNOWN if bound_s is None else f"<{1000 * bound_s:g}ms" if bound_s < 1 else f"<{bound_s:g}s"


def number(count: float | None) -> str:
    """Return a number as it is."""
    return UNKNOWN if count is None else str(count)


def date(seconds: float | None) -> str:
    """Return a Unix time as a date: `2026-11-30 08:15` (UTC)."""
    return UNKNOWN if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def shown(text: object) -> str:
    """Return text on one line and printable, whatever a client or a file system called itself."""
    return UNKNOWN if text is None else printable(str(text))


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    """Return a number with the unit in which it is less than `base`."""
    if round(count) < base:
        return f"{round(count)} {units[0]}"
    power = 1
    while round(count / base**power, 1) >= base and power < len(units) - 1:
        power += 1
    return f"{count / base**power:.1f} {units[power]}"


# -- what rows have in them --------------------------------------------------------------------------


def _of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: show(row.get(key))


def _rate_of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: show((row.get("rates") or {}).get(key))


def _from(key: str, much: float, mark: str = BAD) -> Callable[[Row], str]:
    return lambda row: mark if (row.get(key) or 0) >= much else ""


def _mark_of_state(row: Row) -> str:
    return GOOD if row.get("state") in ("serving", "running") else NOTABLE


def _up_or_down(row: Row) -> str:
    return "up" if row.get("up") else "down"


def _mark_of_up(row: Row) -> str:
    return GOOD if row.get("up") else BAD


def _server_state(row: Row) -> str:
    """Return what an operator wants of a server; where that is nothing, whether it is up."""
    admin = row.get("admin") or "ready"
    return _up_or_down(row) if admin == "ready" else shown(admin)


def _mark_of_server(row: Row) -> str:
    return _mark_of_up(row) if _server_state(row) in ("up", "down") else NOTABLE


def _file_state(row: Row) -> str:
    """Return whether what a file has is in force, or what it had before."""
    return "in force" if row.get("ok") else "broken"


def _names(row: Row) -> str:
    return ", ".join(map(shown, row.get("names") or ())) or UNKNOWN


def _handler(row: Row) -> str:
    """Return a handler without its folder: the file and the class tell enough."""
    return shown(row.get("handler")).rpartition("/")[2]


def _open(row: Row) -> str:
    limit = row.get("limit")
    return number(row.get("connections")) + (f"/{limit}" if limit else "")


def _mark_of_open(row: Row) -> str:
    limit = row.get("limit")
    return BAD if limit and (row.get("connections") or 0) >= FULL * limit else ""


def _accept_queue(row: Row) -> str:
    return UNKNOWN if row.get("queue") is None else f"{row['queue']}/{number(row.get('queue_limit'))}"


def _mark_of_accept_queue(row: Row) -> str:
    limit = row.get("queue_limit")
    return BAD if limit and (row.get("queue") or 0) >= FULL * limit else ""


def _paused(side: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        held = (row.get("backpressure") or {}).get(side) or {}
        paused, buffered = held.get("paused_connections", 0), held.get("buffered_bytes", 0)
        return f"{paused}: {size(buffered)}" if paused or buffered else UNKNOWN

    return show


def _mark_of_paused(side: str) -> Callable[[Row], str]:
    show = _paused(side)
    return lambda row: "" if show(row) == UNKNOWN else NOTABLE


def _stalled(row: Row) -> str:
    waiting_s = row.get("waiting_s")
    return duration(waiting_s) if waiting_s else UNKNOWN


# -- the columns -------------------------------------------------------------------------------------

LISTENER = Column("LISTENER", _of("listener", shown), is_text=True, is_name=True, rank=0, heading="listener")
UP = Column("STATE", _up_or_down, is_text=True, mark=_mark_of_up, rank=0, heading="state")
HEARTBEAT = Column(
    "HEARTBEAT", _of("heartbeat_age_s", duration), mark=_from("heartbeat_age_s", HEARTBEAT_LATE_S), rank=6,
    heading="heartbeat",
)  # fmt: skip
MEMORY = Column("MEMORY", _of("memory_bytes", size), rank=3, heading="memory")
CPU = Column("CPU", _of("cpu_seconds", duration), rank=5, heading="CPU time")
RESTARTS = Column(
    "RESTARTS", _of("restarts", number), mark=_from("restarts", 1, NOTABLE), rank=4, heading="died or hung"
)


def _state(rank: int = 0) -> Column:
    return Column("STATE", _of("state", shown), is_text=True, mark=_mark_of_state, rank=rank, heading="state")


WORKERS = (
    Column("WORKER", _of("worker", number), is_name=True, rank=0, heading="worker"),
    Column("INSTANCE", _of("instance", number)),
    Column("PID", _of("pid", number), rank=4),
    _state(),
    Column("CONNS", _of("connections", number), rank=1, heading="connections"),
    Column("BUSY", _of("busy", share), mark=_from("busy", BUSY_MUCH), in_text=False, rank=1, heading="busy"),
    Column(
        "LAG", _of("loop_lag_s", lag), mark=_from("loop_lag_s", LAG_MUCH_S), in_text=False, rank=2, heading="loop lag"
    ),
    HEARTBEAT,
    MEMORY,
    CPU,
    Column("AGE", _of("age_s", duration), rank=7),
    Column("GEN", _of("generation", number), rank=8),
    RESTARTS,
)  # fmt: skip

LISTENERS = (
    LISTENER,
    Column("BIND", _of("bind", shown), is_text=True),
    Column("HANDLER", _handler, is_text=True, heading="handler"),
    _state(5),
    Column("CONNS", _of("connections", number)),
    Column("OPEN/LIMIT", _open, mark=_mark_of_open, in_text=False, rank=1, heading="open / limit"),
    Column("ACCEPTED", _rate_of("accepted", rate), rank=2, heading="accepted"),
    Column("RECEIVED", _rate_of("received_bytes", size_rate), rank=1, heading="received"),
    Column("SENT", _rate_of("sent_bytes", size_rate), rank=1, heading="sent"),
    Column("ACCEPT QUEUE", _accept_queue, mark=_mark_of_accept_queue, rank=4, heading="accept queue"),
    Column("WAITING", _of("waiting_for_server", number), mark=_from("waiting_for_server", 1, NOTABLE), rank=3,
           heading="waiting for a server"),
    Column("CLIENTS PAUSED", _paused("downstream"), mark=_mark_of_paused("downstream"), in_text=False, rank=3,
           heading="paused clients"),
    Column("SERVERS PAUSED", _paused("upstream"), mark=_mark_of_paused("upstream"), in_text=False, rank=3,
           heading="paused servers"),
)  # fmt: skip

SERVERS = (
    LISTENER,
    Column("SERVER", _of("server", shown), is_text=True, is_name=True, heading="server"),
    Column("STATE", _server_state, is_text=True, mark=_mark_of_server, rank=0, heading="state"),
    Column("WEIGHT SET", _of("weight", number), mark=lambda row: "" if row.get("weight") is None else NOTABLE,
           heading="weight set"),
    Column("CONNS", _of("connections", number), heading="open"),
    Column("MADE", _of("made", number), heading="connections made"),
    Column("FAILED", _of("failures", number), mark=_from("failures", 1, NOTABLE), heading="failed to connect"),
)  # fmt: skip

FEEDER = (
    Column("FEEDER PID", _of("pid", number), rank=0),
    _state(),
    Column("AGE", _of("age_s", duration)),
    HEARTBEAT,
    MEMORY,
    CPU,
    RESTARTS,
)

SOURCES = (
    LISTENER,
    Column("SOURCE", _of("source", shown), is_text=True, is_name=True, rank=0, heading="source"),
    UP,
    Column("PUBLISHED", _of("published", number), rank=1, heading="published"),
    Column("REFUSED", _of("refused", number), rank=2, heading="refused"),
    Column("RECONNECTS", _of("reconnects", number), rank=3, heading="reconnects"),
    Column("GAPS", _of("gaps", number), mark=_from("gaps", 1, NOTABLE), rank=2, heading="gaps"),
)

FILES = (
    Column("FILE", _of("file", shown), is_text=True, is_name=True, heading="file"),
    Column("KIND", _of("kind", shown), is_text=True, heading="kind"),
    Column("STATE", _file_state, is_text=True, mark=lambda row: GOOD if row.get("ok") else BAD, heading="state"),
    Column("READ AGO", _of("read_age_s", duration), heading="read ago"),
)

CERTIFICATES = (
    LISTENER,
    Column("NAMES", _names, is_text=True, is_name=True),
    Column("ENDS", _of("not_after", date)),
    Column("DAYS LEFT", _of("days_left", number)),
    Column("STATE", _file_state, is_text=True),
    Column("SINCE", _of("since", date)),
    Column("SERIAL", _of("serial", shown), is_text=True),
    Column("FILE", lambda row: shown((row.get("files") or [None])[0]), is_text=True),
)

BANS = (
    Column("BANNED", _of("network", shown), is_text=True, is_name=True),
    Column("TIME LEFT", _of("left_s", duration)),
)

CONNECTIONS = (
    Column("ID", _of("id", shown), rank=0),
    Column("LISTENER", _of("listener", shown), is_text=True, rank=3),
    Column("PEER", _of("peer", shown), is_text=True, rank=0, least=len("255.255.255.255:65535")),
    Column("SERVER", _of("server", shown), is_text=True, rank=3),
    Column("TRAFFIC", _of("bytes_per_s", size_rate), in_text=False, rank=1),
    Column("STALLED", _stalled, mark=_from("waiting_s", STALLED_S), rank=1),
    Column("BUFFERED", _of("buffered_bytes", size), mark=_from("buffered_bytes", 1, NOTABLE), rank=2),
    Column("AGE", _of("age_s", duration), rank=4),
    Column("IDLE", _of("idle_s", duration), rank=5),
    Column("RECEIVED", _of("received_bytes", size), rank=6),
    Column("SENT", _of("sent_bytes", size), rank=6),
)
