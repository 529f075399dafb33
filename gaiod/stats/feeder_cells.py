"""Where the feeder counts, and its supervisor reads, in shared memory: 64-bit cells, a row for each source.

Which row is whose the supervisor says. A row is given away again only when the feeder has said that nobody counts in
it any more.
"""

HEARTBEAT = 0
"""The cell that says when the feeder's loop last completed a pass, in `time.monotonic_ns()`."""

CODE_CHANGED = 1
"""The cell that counts the files whose code the feeder runs although the configuration was checked with others."""

FORGOTTEN = 2
"""The cell that counts topics whose last message was dropped, because there were too many."""

RESETS = ("restored", "anew")
"""How what a source reads is not what it was: as it was earlier, or made anew."""

SOURCE_CELLS = ("published", "refused", "up", "reconnects", "gaps", *RESETS, "keeps")
SOURCE_CELL = {name: index for index, name in enumerate(SOURCE_CELLS)}
"""Cells of a source's row, by name. `up` alone goes down again. `keeps`: its positions are kept."""

ROWS_MAX = 65_536
"""What is not used takes no memory; 64 sources of each of a thousand listeners."""

_FIRST_ROW = 16
"""With room. A feeder compares the size with its supervisor's: by that it knows another version, such as 0.6 with 8."""

SIZE = _FIRST_ROW + ROWS_MAX * len(SOURCE_CELLS)
"""Number of cells."""


def row(number: int) -> int:
    """Return the first cell of a row; add `SOURCE_CELL[name]`."""
    return _FIRST_ROW + number * len(SOURCE_CELLS)
