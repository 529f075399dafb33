"""The layout of a watcher's counters: one array of 64-bit integers that others may map and read.

The watcher adds to them with plain stores and never reads them back, so counting costs it a few
instructions; whoever reads them (another process, through shared memory) sees each cell whole,
because an aligned 64-bit store is atomic on every machine CPython runs on.
"""

OPERATIONS = ("read", "write", "accept", "connect", "relay", "handshake", "timer", "post")
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
    "handshake_steps_delayed",
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

FANOUT_BOUNDS_S = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the buckets of the fan-out histogram, in seconds; one more bucket is unbounded."""

GROUP_CELLS = (
    "subscribers",
    "published",
    "deliveries",
    "dropped_oldest",
    "dropped_newest",
    "dropped_replaced",
    "dropped_memory",
    "dropped_disconnect",
    "dropped_closed",
    "queued_bytes",
    "held_bytes",
    "fanout_ns",
    *(f"fanout_le_{bound}" for bound in FANOUT_BOUNDS_S),
    "fanout_le_inf",
)
"""What a group counts. Subscribers and bytes also go down.

Of what was published, each member has had it delivered, or dropped (for whatever reason), or it waits in its queue.
"""

(
    SUBSCRIBERS, PUBLISHED, DELIVERED, DROPPED_OLDEST, DROPPED_NEWEST, DROPPED_REPLACED, DROPPED_MEMORY,
    DROPPED_DISCONNECT, DROPPED_CLOSED, QUEUED_BYTES, HELD_BYTES, FANOUT_NS, FANOUT,
) = range(13)  # fmt: skip
"""Their order. FANOUT is the histogram's first bucket."""

_FIRST_SINGLE = len(OPERATIONS) * len(OUTCOMES)
LAG = _FIRST_SINGLE + len(SINGLES)
"""Index of the loop-lag histogram's first bucket."""

GROUP = LAG + len(LAG_BOUNDS_S) + 1
"""Index of the first of `GROUP_CELLS`, of groups that are not told where else to count."""

SIZE = GROUP + len(GROUP_CELLS)
"""Number of cells a watcher uses. What follows belongs to its owner."""


def index(name: str) -> int:
    """Return the cell of one of `SINGLES`."""
    return _FIRST_SINGLE + SINGLES.index(name)


def operation_index(operation: str, outcome: str) -> int:
    """Return the cell that counts `outcome` of `operation`."""
    return OPERATIONS.index(operation) * len(OUTCOMES) + OUTCOMES.index(outcome)
