"""The picture that is drawn of a look: with rich, as large as it may be. What does not fit is cut, and never wrapped.

Nothing in it is markup, and nothing in it reaches the terminal as it came: names from the configuration and
addresses become plain text, what cannot be printed escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gaiod.supervisor.tables import duration, shown
from gaiod.top.fields import BAD, CONNECTIONS, FEEDER, GOOD, LISTENERS, NOTABLE, SOURCES, WORKERS, Field, Row
from gaiod.top.looks import SORTS, Look

TEXT_MIN = 8
"""What a column of text keeps at least before other columns are left out."""

GAP = 2

SHARE_MAX = 4
"""A table of workers, listeners or sources takes a quarter of the height at most: connections are to be seen, too."""

ROWS_MIN = 2

ALL = 10_000
"""Rows where the height has no bound."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How large a picture may be, and what is said of the view itself.

    Attributes:
        width: columns of the terminal.
        height: its lines; None: as many as there are.
        keys: the line about keys; "": none.
        trouble: why there is no newer look; "": there is.
    """

    width: int
    height: int | None = None
    keys: str = ""
    trouble: str = ""


def picture(look: Look, frame: Frame) -> Group:
    """Return what is drawn: exactly `frame.height` lines, or fewer."""
    lines: list[RenderableType] = [_line(part, style) for part, style in _heading(look, frame)]
    status = look.status
    share = ALL if frame.height is None else max(ROWS_MIN, frame.height // SHARE_MAX)
    used = len(lines)
    feeder = status.get("feeder")
    for fields, rows in (
        (WORKERS, status.get("workers") or []),
        (LISTENERS, _with_limits(status)),
        (FEEDER, [] if feeder is None else [feeder]),
        (SOURCES, status.get("sources") or []),
    ):
        if rows:
            lines += ["", _table(fields, rows[:share], frame.width)]
            used += 2 + len(rows[:share])
            if len(rows) > share:
                lines.append(_line(f"... and {len(rows) - share} more", "dim"))
                used += 1
    left = ALL if frame.height is None else frame.height - used - bool(frame.keys)
    lines += _connections(look, frame.width, left)
    if frame.keys:
        body = lines if frame.height is None else [Group(*lines)]
        return Group(_line(frame.keys, "reverse"), *body)
    return Group(*lines)


def rows_of(height: int) -> int:
    """Return how many connections are worth asking for."""
    return max(1, height)


def _heading(look: Look, frame: Frame) -> list[tuple[str, str]]:
    status = look.status
    state = str(status.get("state"))
    lines = [
        (
            f"gaiod {status.get('version')}  {state}, up {duration(status.get('uptime_s'))}, "
            f"generation {status.get('generation')}, process {status.get('pid')}, {status.get('engine')} engine",
            f"bold {GOOD if status.get('ready') else NOTABLE}",
        )
    ]
    reload = status.get("last_reload")
    if reload is not None and not reload["ok"]:
        why = shown((str(reload["error"]).splitlines() or [""])[0])
        lines.append((f"the last reload, {duration(look.at - reload['at'])} ago, failed: {why}", BAD))
    elif reload is not None:
        lines.append((f"last reload {duration(look.at - reload['at'])} ago", "dim"))
    if look.silent_workers:
        lines.append((f"did not answer: worker {', '.join(map(str, look.silent_workers))}", BAD))
    if frame.trouble:
        lines.insert(0, (shown(frame.trouble), f"reverse {BAD}"))
    return lines


def _with_limits(status: Mapping[str, Any]) -> list[Row]:
    """Return the listeners, the limit of each over all workers that serve."""
    serving = sum(worker.get("state") == "serving" for worker in status.get("workers") or [])
    return [
        {**row, "limit": serving * (row.get("connections_max") or 0)} for row in status.get("listeners") or []
    ]  # fmt: skip


def _connections(look: Look, width: int, left: int) -> list[RenderableType]:
    """Return the connections in `left` lines: a title and a table for those asked for, then the stalled ones."""
    stalled = look.stalled
    room = left - 3 - (len(stalled) + 3 if stalled else 0)
    if stalled and room < ROWS_MIN:
        stalled, room = [], left - 3
    lines: list[RenderableType] = []
    if room >= 1:
        lines += ["", _line(f"{look.total} connections, by {look.sort}", "bold")]
        if look.connections:
            lines.append(_table(CONNECTIONS, look.connections[:room], width))
    if stalled:
        lines += ["", _line("stalled: nothing of what waits for them, or from them for others, is taken", "bold")]
        lines.append(_table(CONNECTIONS, stalled, width))
    return lines


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis", end="\n")


def _table(fields: Sequence[Field], rows: Sequence[Row], width: int) -> Table:
    cells = [[field.show(row) for field in fields] for row in rows]
    kept = _fitting(fields, cells, width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold cyan")
    for index in kept:
        field = fields[index]
        table.add_column(
            Text(field.title),
            justify="left" if field.is_text else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None
            if field.is_text
            else max(cell_len(line[index]) for line in (*cells, [f.title for f in fields])),
        )
    for row, line in zip(rows, cells, strict=True):
        table.add_row(*(Text(line[index], style=fields[index].style(row)) for index in kept))
    return table


def _fitting(fields: Sequence[Field], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns that there is room for: those of the highest rank go first."""
    kept = list(range(len(fields)))

    def least(index: int) -> int:
        widest = max(cell_len(text) for text in (fields[index].title, *(line[index] for line in cells)))
        return min(widest, TEXT_MIN) if fields[index].is_text else widest

    while sum(least(index) + GAP for index in kept) - GAP > width:
        rank = max(fields[index].rank for index in kept)
        if rank == 0:
            break
        kept.remove(max(index for index in kept if fields[index].rank == rank))
    return kept


def keys_text(sort: str, listener: str | None) -> str:
    """Return the line that says which keys there are."""
    sorts = "  ".join(f"[{key}] {name}" if name == sort else f"{key} {name}" for key, name in SORTS.items())
    return f" {sorts}  l listener: {'all' if listener is None else shown(listener)}  q quit"
