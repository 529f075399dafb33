"""The layout of a watcher's counters: one array of 64-bit integers that others may map and read.

The watcher adds to them with plain stores and never reads them back, so counting costs it a few
instructions; whoever reads them (another process, through shared memory) sees each cell whole,
because an aligned 64-bit store is atomic on every machine CPython runs on.
"""

OPERATIONS = ("read", "write", "accept", "connect", "relay", "timer", "post")
"""Rows of the operation table, in the order of `OpType`."""

OUTCOMES = ("submitted", "complete", "eof", "error", "deadline")
"""Columns of the operation table. Pending = submitted - the sum of the others."""

SUBMITTED, COMPLETE, AT_EOF, FAILED, EXPIRED = range(len(OUTCOMES))
OUTCOME_COUNT = len(OUTCOMES)

LAG_BOUNDS_S = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of the loop-lag histogram's buckets, in seconds; one more bucket is unbounded."""

SINGLES = (
    "loop_iterations",
    "loop_events",
    "loop_busy_ns",
    "swap_buffer_exhausted",
    "conn_gc_found",
    "conn_gc_closed",
    "conn_freed",
    "unassigned_received_bytes",
    "unassigned_sent_bytes",
    "unassigned_pauses",
    "unassigned_resumes",
    "unassigned_paused_ns",
    "unassigned_buffered_bytes",
)

RECEIVED, SENT, PAUSES, RESUMES, PAUSED_NS, BUFFERED = range(6)
"""The cells that `Conn.traffic` is the first of.

Pauses are of relays to it: times that it did not take all. BUFFERED alone also goes down: bytes that relays
have received, and it has not taken.
"""

_FIRST_SINGLE = len(OPERATIONS) * len(OUTCOMES)
LAG = _FIRST_SINGLE + len(SINGLES)
"""Index of the loop-lag histogram's first bucket."""

SIZE = LAG + len(LAG_BOUNDS_S) + 1
"""Number of cells a watcher uses. What follows belongs to its owner."""


def index(name: str) -> int:
    """Return the cell of one of `SINGLES`."""
    return _FIRST_SINGLE + SINGLES.index(name)


def operation_index(operation: str, outcome: str) -> int:
    """Return the cell that counts `outcome` of `operation`."""
    return OPERATIONS.index(operation) * len(OUTCOMES) + OUTCOMES.index(outcome)
