"""What the control socket answers, as text for people: aligned, with units, at most 112 columns wide."""

from collections.abc import Sequence

from gaiod.console.columns import (
    BANS,
    CERTIFICATES,
    CONNECTIONS,
    FEEDER,
    FILES,
    LISTENERS,
    SERVERS,
    SOURCES,
    WORKERS,
    Column,
    Row,
    duration,
    in_text,
    rate,
    shown,
)

WIDTH_MAX = 112
GAP = "  "
ELASTIC_MIN = 8
"""What is left of a long name in a crowded table: `unix:...lo.sock`, cut in the middle, is still recognised."""


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
        *_rejected_lines(status.get("listeners") or []),
        *_server_lines(status.get("servers") or []),
        *_feeder_lines(status.get("feeder"), status.get("sources") or []),
        *_file_lines(status.get("files") or []),
        *_ban_lines(status.get("bans") or 0),
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


def balance_text(result: Row) -> str:
    """Return what `gaiod rebalance` prints."""
    moved, stayed, listeners = result["moved"], result["stayed"], result["listeners"]
    lines = [f"moved: {moved} connection{'s'[: moved != 1]}{'' if result['even'] else '; they are not even yet'}"]
    if all(len(row["workers"]) < 2 for row in listeners):
        lines = ["nothing to do: one worker serves"]
    for row in listeners:
        counts = ", ".join(f"worker {each['worker']}: {each['before']} -> {each['after']}" for each in row["workers"])
        lines.append(f"  {shown(row['listener'])}: {counts}")
    if stayed:
        reasons = ", ".join(f"{count} {shown(reason)}" for reason, count in sorted(stayed.items()))
        lines.append(f"  {sum(stayed.values())} did not move: {reasons}")
    lines += [f"  {shown(name)} was left out: {shown(why)}" for name, why in result["left_out"].items()]
    return "\n".join(lines)


def certificates_text(certificates: Sequence[Row]) -> str:
    """Return what `gaiod certificates` prints."""
    if not certificates:
        return "no certificates: no listener speaks TLS"
    return "\n".join([*table(CERTIFICATES, certificates), *_broken_lines(certificates)])


def renewal_text(files: Sequence[Row]) -> str:
    """Return what `gaiod certificates reload` prints."""
    if not files:
        return "no certificates: no listener speaks TLS"
    return "\n".join([*(f"{shown(row['file'])}: {row['result']}" for row in files), *_broken_lines(files)])


def table(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table: text to the left, numbers to the right."""
    columns = in_text(columns)
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


def _rejected_lines(listeners: Sequence[Row]) -> list[str]:
    """Return what is said of listeners that turn clients away at the moment."""
    rejecting = [row for row in listeners if row.get("rejected")]
    told = [", ".join(f"{rate(count)} {shown(why)}" for why, count in row["rejected"].items()) for row in rejecting]
    return [f"  {shown(row['listener'])} rejects {text}" for row, text in zip(rejecting, told, strict=True)]


def _feeder_lines(feeder: Row | None, sources: Sequence[Row]) -> list[str]:
    """Return what is said of the sources, and of the process that runs them; nothing where there are none."""
    return [] if feeder is None else ["", *table(FEEDER, [feeder]), "", *table(SOURCES, sources)]


def _file_lines(files: Sequence[Row]) -> list[str]:
    """Return what is said of the files that are read again when they change, and of what is wrong with them."""
    return ["", *table(FILES, files), *_broken_lines(files)] if files else []


def _broken_lines(rows: Sequence[Row]) -> list[str]:
    """Return what is wrong with files, once where more rows are about the same."""
    errors = dict.fromkeys(row["error"] for row in rows if row["error"] is not None)
    return [f"  what it had before stays in force: {shown(error)}" for error in errors]


def _ban_lines(bans: int) -> list[str]:
    return ["", f"{bans} network{'s'[: bans != 1]} banned: gaiod bans shows them"] if bans else []


def bans_text(bans: Sequence[Row]) -> str:
    """Return what `gaiod bans` prints."""
    return "\n".join(table(BANS, bans)) if bans else "nobody is banned"


def servers_text(servers: Sequence[Row]) -> str:
    """Return what `gaiod server LISTENER` prints."""
    return "\n".join(table(SERVERS, servers))


def _server_lines(servers: Sequence[Row]) -> list[str]:
    return ["", *table(SERVERS, servers)] if servers else []
