"""What the control socket answers, as text for people: aligned, with units, at most 112 columns wide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH_MAX = 112
GAP = "  "
UNKNOWN = "-"
ELASTIC_MIN = 8
"""What is left of a long name in a crowded table: `unix:...lo.sock`, cut in the middle, is still recognised."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what a row shows in it. One of text is elastic: it is cut where the table gets too wide."""

    title: str
    show: Callable[[Row], str]
    is_text: bool = False


def status_text(status: Row, now: float) -> str:
    """Return what `gaiod status` prints. `now` is a Unix time."""
    lines = [
        f"gaiod {status.get('version')}, {status.get('engine')} engine, Python {status.get('python')}: "
        f"{status.get('state')}, up {duration(status.get('uptime_s'))}, process {status.get('pid')}",
        f"configuration {shown(status.get('config'))}, generation {status.get('generation')}",
        *_reload_lines(status.get("last_reload"), now),
        "",
        *table(WORKERS, status.get("workers") or []),
        "",
        *table(LISTENERS, status.get("listeners") or []),
        *_server_lines(status.get("servers") or []),
        *_feeder_lines(status.get("feeder"), status.get("sources") or []),
    ]
    return "\n".join(lines)


def connections_text(result: Row) -> str:
    """Return what `gaiod connections` prints."""
    connections, total = result["connections"], result["total"]
    silent = result.get("silent_workers")
    note = [f"without those of workers that did not answer: {', '.join(map(str, silent))}"] if silent else []
    if not connections:
        return "\n".join(["no connections", *note])
    lines = [*table(CONNECTIONS, connections), *note]
    if len(connections) < total:
        lines += ["", f"{len(connections)} of {total} connections; --limit shows more, --listener fewer"]
    return "\n".join(lines)


def table(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table: text to the left, numbers to the right."""
    cells = [[column.title for column in columns], *([column.show(row) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    elastic = [index for index, column in enumerate(columns) if column.is_text and widths[index] > ELASTIC_MIN]
    while elastic and sum(widths) + len(GAP) * (len(widths) - 1) > WIDTH_MAX:
        widest = max(elastic, key=widths.__getitem__)
        widths[widest] -= 1
        if widths[widest] == ELASTIC_MIN:
            elastic.remove(widest)
    return [
        GAP.join(
            _cut(cell, width).ljust(width) if column.is_text else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    ]


# -- what rows have in them, for all who draw tables ---------------------------------------------------


def of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    """Return how a column shows a value of a row."""
    return lambda row: show(row.get(key))


def rate_of(key: str, show: Callable[[Any], str]) -> Callable[[Row], str]:
    """Return how a column shows one of the rates of a listener."""
    return lambda row: show((row.get("rates") or {}).get(key))


def up_or_down(row: Row) -> str:
    """Return the state of a server or a source."""
    return "up" if row.get("up") else "down"


def accept_queue(row: Row) -> str:
    """Return how many clients of a listener wait to be accepted, of how many that may."""
    return f"{number(row.get('queue'))}/{number(row.get('queue_limit'))}"


def with_limits(status: Row) -> list[dict[str, Any]]:
    """Return the listeners of a status, and as `limit` how many connections each may have in all workers that serve."""
    serving = sum(worker.get("state") == "serving" for worker in status.get("workers") or [])
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


def shown(text: object) -> str:
    """Return text on one line and printable, whatever a client or a file system called itself."""
    if text is None:
        return UNKNOWN
    return str(text) if str(text).isprintable() else ascii(str(text))[1:-1]


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    """Return a number with the unit in which it is less than `base`."""
    if round(count) < base:
        return f"{round(count)} {units[0]}"
    power = 1
    while round(count / base**power, 1) >= base and power < len(units) - 1:
        power += 1
    return f"{count / base**power:.1f} {units[power]}"


def _cut(text: str, width: int) -> str:
    """Cut text in the middle: both ends of an address or a path tell more than that."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def _reload_lines(reload: Row | None, now: float) -> list[str]:
    if reload is None:
        return []
    ago = f"last reload {duration(now - reload['at'])} ago"
    if reload["ok"]:
        return [ago]
    return [f"{ago}: it failed, and changed nothing", *(f"  {shown(line)}" for line in reload["error"].splitlines())]


def _feeder_lines(feeder: Row | None, sources: Sequence[Row]) -> list[str]:
    """Return what is said of the sources, and of the process that runs them; nothing where there are none."""
    return [] if feeder is None else ["", *table(FEEDER, [feeder]), "", *table(SOURCES, sources)]


def _server_lines(servers: Sequence[Row]) -> list[str]:
    return ["", *table(SERVERS, servers)] if servers else []


# -- the tables --------------------------------------------------------------------------------------


def _handler(row: Row) -> str:
    """Return a handler without its folder: the file and the class tell enough."""
    return shown(row.get("handler")).rpartition("/")[2]


WORKERS = (
    Column("WORKER", of("worker", number)),
    Column("INSTANCE", of("instance", number)),
    Column("PID", of("pid", number)),
    Column("STATE", of("state", shown), is_text=True),
    Column("GEN", of("generation", number)),
    Column("AGE", of("age_s", duration)),
    Column("HEARTBEAT", of("heartbeat_age_s", duration)),
    Column("CONNS", of("connections", number)),
    Column("MEMORY", of("memory_bytes", size)),
    Column("CPU", of("cpu_seconds", duration)),
    Column("RESTARTS", of("restarts", number)),
)

LISTENERS = (
    Column("LISTENER", of("listener", shown), is_text=True),
    Column("BIND", of("bind", shown), is_text=True),
    Column("HANDLER", _handler, is_text=True),
    Column("STATE", of("state", shown), is_text=True),
    Column("CONNS", of("connections", number)),
    Column("ACCEPTED", rate_of("accepted", rate)),
    Column("RECEIVED", rate_of("received_bytes", size_rate)),
    Column("SENT", rate_of("sent_bytes", size_rate)),
    Column("ACCEPT QUEUE", accept_queue),
    Column("WAITING", of("waiting_for_server", number)),
)

SERVERS = (
    Column("LISTENER", of("listener", shown), is_text=True),
    Column("SERVER", of("server", shown), is_text=True),
    Column("STATE", up_or_down, is_text=True),
    Column("CONNS", of("connections", number)),
    Column("MADE", of("made", number)),
    Column("FAILED", of("failures", number)),
)

FEEDER = (
    Column("FEEDER PID", of("pid", number)),
    Column("STATE", of("state", shown), is_text=True),
    Column("AGE", of("age_s", duration)),
    Column("HEARTBEAT", of("heartbeat_age_s", duration)),
    Column("MEMORY", of("memory_bytes", size)),
    Column("CPU", of("cpu_seconds", duration)),
    Column("RESTARTS", of("restarts", number)),
)

SOURCES = (
    Column("LISTENER", of("listener", shown), is_text=True),
    Column("SOURCE", of("source", shown), is_text=True),
    Column("STATE", up_or_down, is_text=True),
    Column("PUBLISHED", of("published", number)),
    Column("REFUSED", of("refused", number)),
    Column("RECONNECTS", of("reconnects", number)),
    Column("GAPS", of("gaps", number)),
)

CONNECTIONS = (
    Column("ID", of("id", shown)),
    Column("LISTENER", of("listener", shown), is_text=True),
    Column("PEER", of("peer", shown), is_text=True),
    Column("SERVER", of("server", shown), is_text=True),
    Column("AGE", of("age_s", duration)),
    Column("IDLE", of("idle_s", duration)),
    Column("RECEIVED", of("received_bytes", size)),
    Column("SENT", of("sent_bytes", size)),
    Column("PENDING", of("buffered_bytes", size)),
    Column("STALLED", of("waiting_s", duration)),
)
