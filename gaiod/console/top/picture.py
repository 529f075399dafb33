"""The picture that is drawn of a look: with rich, as large as it may be. What does not fit is cut, and never wrapped.

Nothing in it is markup, and nothing in it reaches the terminal as it came: names from the configuration and
addresses become plain text, what cannot be printed escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from gaiod.console.columns import (
    BAD,
    CONNECTIONS,
    FEEDER,
    GOOD,
    LISTENERS,
    NOTABLE,
    SOURCES,
    WORKERS,
    Column,
    Row,
    duration,
    in_top,
    shown,
    with_limits,
)
from gaiod.console.top.looks import SORTS, Look

STYLES = {GOOD: "green", NOTABLE: "yellow", BAD: "bold red", "": ""}

GAP = 2

SHARE_MAX = 4
"""A table of workers, listeners or sources takes a quarter of the height at most: connections are to be seen, too."""

ROWS_MIN = 2

CONNECTIONS_MIN = 6
"""Lines that connections get before tables are left out for them, the last one first."""

Section = tuple[Sequence[Column], Sequence[Row], int]
"""A table: its columns, its rows, and how many of them are not shown."""

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
    """Return what is drawn: `frame.height` lines at most."""
    lines: list[RenderableType] = [_line(frame.keys, "reverse")] if frame.keys else []
    lines += [_line(part, style) for part, style in _heading(look, frame)]
    sections = _sections(look.status, frame.height)
    if frame.height is None:
        left = ALL
    else:
        while len(sections) > 1 and len(lines) + sum(map(_height, sections)) + CONNECTIONS_MIN > frame.height:
            sections.pop()
        left = frame.height - len(lines) - sum(map(_height, sections))
    for columns, rows, hidden in sections:
        lines += ["", _table(columns, rows, frame.width)]
        if hidden:
            lines.append(_line(f"... and {hidden} more", "dim"))
    return Group(*lines, *_connections(look, frame.width, left))


def _heading(look: Look, frame: Frame) -> list[tuple[str, str]]:
    status = look.status
    state = str(status.get("state"))
    lines = [
        (
            f"gaiod {status.get('version')}  {state}, up {duration(status.get('uptime_s'))}, "
            f"generation {status.get('generation')}, process {status.get('pid')}, {status.get('engine')} engine",
            f"bold {STYLES[GOOD if status.get('ready') else NOTABLE]}",
        )
    ]
    reload = status.get("last_reload")
    if reload is not None and not reload["ok"]:
        why = shown((str(reload["error"]).splitlines() or [""])[0])
        lines.append((f"the last reload, {duration(look.at - reload['at'])} ago, failed: {why}", STYLES[BAD]))
    elif reload is not None:
        lines.append((f"last reload {duration(look.at - reload['at'])} ago", "dim"))
    if look.silent_workers:
        lines.append((f"did not answer: worker {', '.join(map(str, look.silent_workers))}", STYLES[BAD]))
    if frame.trouble:
        lines.insert(0, (shown(frame.trouble), f"reverse {STYLES[BAD]}"))
    return lines


def _sections(status: Mapping[str, Any], height: int | None) -> list[Section]:
    """Return the tables that come before the connections, what is most important first."""
    feeder = status.get("feeder")
    tables: tuple[tuple[Sequence[Column], Sequence[Row]], ...] = (
        (WORKERS, status.get("workers") or []),
        (LISTENERS, with_limits(status)),
        (FEEDER, [] if feeder is None else [feeder]),
        (SOURCES, status.get("sources") or []),
    )
    share = ALL if height is None else max(ROWS_MIN, height // SHARE_MAX)
    return [(columns, rows[:share], len(rows) - len(rows[:share])) for columns, rows in tables if rows]


def _height(section: Section) -> int:
    """Return its lines: an empty one, the titles, the rows, and what is said of those that are hidden."""
    _, rows, hidden = section
    return 2 + len(rows) + bool(hidden)


def _connections(look: Look, width: int, left: int) -> list[RenderableType]:
    """Return the connections in `left` lines: a title and a table for those asked for, then the stalled ones."""
    stalled = look.stalled
    room = left - 3 - (len(stalled) + 3 if stalled else 0)
    if stalled and room < ROWS_MIN:
        stalled, room = [], left - 3
    lines: list[RenderableType] = []
    if room >= 1:
        what = f"{look.total} connection{'s' if look.total != 1 else ''}"
        lines += ["", _line(f"{what}, by {look.sort}", "bold")]
        if look.connections:
            lines.append(_table(CONNECTIONS, look.connections[:room], width))
    if stalled:
        lines += ["", _line("stalled: nothing of what waits for them, or from them for others, is taken", "bold")]
        lines.append(_table(CONNECTIONS, stalled, width))
    return lines


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis", end="\n")


def _table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    columns = in_top(columns)
    cells = [[column.show(row) for column in columns] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold cyan")
    widths = _widths(columns, cells, width)
    for index, column_width in widths.items():
        column = columns[index]
        justify: JustifyMethod = "left" if column.is_text else "right"
        table.add_column(Text(column.title), justify=justify, width=column_width, no_wrap=True, overflow="ellipsis")
    for row, line in zip(rows, cells, strict=True):
        table.add_row(*(Text(line[index], style=STYLES[columns[index].mark(row)]) for index in widths))
    return table


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """Return the columns that there is room for, by their place, and how wide each is.

    Those of the highest rank are left out until the others fit, text being cut; then text gets what room there is.
    """
    widths = {
        index: max(cell_len(text) for text in (column.title, *(line[index] for line in cells)))
        for index, column in enumerate(columns)
    }
    least = {
        index: min(each, columns[index].least) if columns[index].is_text else each for index, each in widths.items()
    }
    while sum(least.values()) + GAP * (len(least) - 1) > width:
        rank = max(columns[index].rank or 0 for index in least)
        if rank == 0:
            break
        del least[max(index for index in least if columns[index].rank == rank)]
    widths = {index: widths[index] for index in least}
    while sum(widths.values()) + GAP * (len(widths) - 1) > width:
        elastic = [index for index in widths if widths[index] > least[index]]
        if not elastic:
            break
        widths[max(elastic, key=widths.__getitem__)] -= 1
    return widths


def keys_text(sort: str, listener: str | None) -> str:
    """Return the line that says which keys there are."""
    sorts = "  ".join(f"[{key}] {name}" if name == sort else f"{key} {name}" for key, name in SORTS.items())
    return f" q quit  {sorts}  l listener: {'all' if listener is None else shown(listener)}"
