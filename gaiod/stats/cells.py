"""Where a worker counts, and its supervisor reads, in shared memory.

It is a run of 64-bit cells: the watcher's own (`gaiod.core.counters`), Python's garbage collector's,
the worker's, one row per listener, and one per server of a listener. Both sides compute the same
layout from the listeners' settings. Gauges are differences of counters, taken by the reader, where they
can be: a worker only ever adds, but to the few that are named `*_GAUGES` here.
"""

from bisect import bisect_left
from dataclasses import dataclass

from gaiod.core import counters
from gaiod.core.tls import FAILURES, VERSIONS
from gaiod.core.tls import SERVER_FAILURES as SERVER_TLS_FAILURES

HOOKS = (
    "on_start", "on_open", "on_read", "on_write", "on_eof", "on_close", "on_tick", "on_timer", "on_post", "on_connect",
    "on_relay", "on_tls", "on_hangup", "on_message", "on_error", "on_share", "on_leader", "on_admin_state", "on_leave",
    "on_arrive",
)  # fmt: skip
"""What a handler may have: calls of each are counted by themselves where they raise or are slow."""

CALLS = (*HOOKS, "handle")
"""What is called of a handler: its hooks, or the coroutine of a connection."""

GC_GENERATIONS = 3
GC_PAUSE_BOUNDS_S = (0.0001, 0.001, 0.01, 0.1, 1.0)
GC_CELLS = (
    "collections",
    "collected",
    "uncollectable",
    "pause_ns",
    *(f"pause_le_{bound}" for bound in GC_PAUSE_BOUNDS_S),
    "pause_le_inf",
)

HEARTBEAT = "heartbeat_ns"
WORKER_CELLS = (HEARTBEAT, "connection_log_dropped", "log_lost", "code_changed")
"""HEARTBEAT is no counter: when the loop last completed a pass, in `time.monotonic_ns()`. `code_changed` counts the
files that this one process has loaded although the configuration was checked with others."""

WORKER_LOST = "worker_lost"
"""Why connections closed that were open when their worker died. The supervisor counts them: nobody else can."""

CLOSE_REASONS = (
    "peer_eof", "peer_reset", "user_timeout", "keepalive", "unreachable", "server_eof", "server_reset", "server_down",
    "no_server", "tls_truncated", "tls_error", "handler", "idle", "half_closed_timeout", "max_age", "deadline",
    "slow_consumer", "drain", "admin", "ban", "handler_error", "forgotten", "error", WORKER_LOST,
)  # fmt: skip
RESTART_REASONS = ("exit", "signal", "watchdog", "reload", "recycle", "admin")
"""Why a worker was replaced by another."""

REJECT_REASONS = ("limit", "daemon_limit", "proxy_protocol", "access", "per_address", "rate", "ban", "tls")
"""Why a connection was closed before its handler saw it."""

ACCEPT_ERRORS = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "other")
PAUSE_REASONS = ("fd", "memory")
"""Why a listener accepted nobody for a while."""

STAY_REASONS = (
    "handler", "version", "not_quiet", "hook_error", "refused", "limit", "descriptors", "feed", "size", "timeout",
    "lost", "tls",
)  # fmt: skip
"""Why a connection was not handed over to another worker: it stays where it is, and drains."""

HANDOVER_BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
"""For how long nobody moved its bytes."""

DURATION_BOUNDS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0)

TLS_RESULTS = ("full", "resumed")
"""How a handshake went that did not fail; why one has failed: `gaiod.core.tls.FAILURES`."""

UPSTREAM_TLS_FAILURES = (*FAILURES, *SERVER_TLS_FAILURES)
"""Why a handshake with a server has failed."""

SIDES = ("downstream", "upstream")
TRAFFIC_CELLS = ("received_bytes", "sent_bytes", "pauses", "resumes", "paused_ns", "buffered_bytes")
"""What `Conn.traffic` is the index of, as `gaiod.core.counters` has it."""

HANDSHAKE_BOUNDS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the histogram of handshakes with clients, in seconds; one more bucket is unbounded."""

CONNECT_BOUNDS_S = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)

UNAVAILABLE_CAUSES = (
    "down", "full", "queue_timeout", "unresolved", "no_resources", "connect_refused", "connect_timeout",
    "connect_unreachable", "connect_reset", "connect_other", "drained", "connect_tls",
    "no_route",
)  # fmt: skip
"""Why no server could be had. A handler may also count `upstream_unavailable` without one."""

ROUTE_RESULTS = ("sni", "alpn", "unknown_name", "no_name", "http", "not_tls", "malformed", "timeout")
"""What was made of what a client asked for: what has decided about its servers, or why nothing did."""

HANDLER_CELLS = (
    "upstream_retries",
    "upstream_queue_timeouts",
    "upstream_queued",
    "upstream_unavailable",
    *(f"upstream_unavailable_{cause}" for cause in UNAVAILABLE_CAUSES),
    *(f"upstream_route_{result}" for result in ROUTE_RESULTS),
)
"""What `Handler.count` adds to."""

LISTENER_CELLS = (
    *(f"{side}_{cell}" for side in SIDES for cell in TRAFFIC_CELLS),
    "accepted",
    *(f"closed_{reason}" for reason in CLOSE_REASONS),
    *(f"rejected_{reason}" for reason in REJECT_REASONS),
    *(f"tls_{result}_{version}" for result in TLS_RESULTS for version in VERSIONS),
    *(f"tls_failed_{reason}" for reason in FAILURES),
    "tls_handshake_ns",
    *(f"tls_handshake_le_{bound}" for bound in HANDSHAKE_BOUNDS_S),
    "tls_handshake_le_inf",
    *(f"accept_error_{name}" for name in ACCEPT_ERRORS),
    *(f"accept_paused_{reason}_ns" for reason in PAUSE_REASONS),
    *(f"handler_error_{hook}" for hook in CALLS),
    *(f"slow_hook_{hook}" for hook in CALLS),
    "threads_calls",
    "threads",
    "threads_queued",
    "threads_oldest_ns",
    "duration_ns",
    *(f"duration_le_{bound}" for bound in DURATION_BOUNDS_S),
    "duration_le_inf",
    *HANDLER_CELLS,
    *(f"upstream_tls_{result}_{version}" for result in TLS_RESULTS for version in VERSIONS),
    *(f"upstream_tls_failed_{reason}" for reason in UPSTREAM_TLS_FAILURES),
    "connect_ns",
    *(f"connect_le_{bound}" for bound in CONNECT_BOUNDS_S),
    "connect_le_inf",
    *(f"push_{cell}" for cell in counters.GROUP_CELLS),
    "feed_gaps",
    "shared_values",
    "shared_values_delayed",
    "feed_resent",
    "moved_in",
    "moved_out",
    *(f"stayed_{reason}" for reason in STAY_REASONS),
    "handover_ns",
    *(f"handover_le_{bound}" for bound in HANDOVER_BOUNDS_S),
    "handover_le_inf",
)
CELL = {name: index for index, name in enumerate(LISTENER_CELLS)}
"""Cells of a listener's row, by name."""

SERVER_FAILURES = ("refused", "timeout", "unreachable", "reset", "other", "tls")
"""Why a server could not be connected to."""

SERVER_CELLS = (
    "connections",
    "arrived",
    "closed",
    *(f"failed_{reason}" for reason in SERVER_FAILURES),
    "checks_passed",
    "checks_failed",
    "down",
)
SERVER_CELL = {name: index for index, name in enumerate(SERVER_CELLS)}
"""Cells of a server's row, by name."""

PUSH_DROP_REASONS = ("oldest", "newest", "replaced", "memory", "disconnect", "closed")
"""Why a message that was for a subscriber did not reach it."""

LISTENER_GAUGES = (
    "downstream_buffered_bytes", "upstream_buffered_bytes", "upstream_queued", "push_subscribers", "push_queued_bytes",
    "push_held_bytes", "threads", "threads_queued", "threads_oldest_ns",
)  # fmt: skip
SERVER_GAUGES = ("down",)
"""Cells that go down again: what a worker leaves in them when it ends is true of nothing any more."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are, counted in cells of 8 bytes. `servers` is how many each listener has."""

    servers: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many cells there are."""
        return self.server(len(self.servers), 0)

    def gc(self, generation: int, cell: str) -> int:
        """Return the cell of one of `GC_CELLS`."""
        return counters.SIZE + generation * len(GC_CELLS) + GC_CELLS.index(cell)

    def worker(self, cell: str) -> int:
        """Return the cell of one of `WORKER_CELLS`."""
        return counters.SIZE + GC_GENERATIONS * len(GC_CELLS) + WORKER_CELLS.index(cell)

    def row(self, listener: int) -> int:
        """Return the first cell of a listener's row; add `CELL[name]`."""
        return counters.SIZE + GC_GENERATIONS * len(GC_CELLS) + len(WORKER_CELLS) + listener * len(LISTENER_CELLS)

    def server(self, listener: int, server: int) -> int:
        """Return the first cell of the row of a listener's server; add `SERVER_CELL[name]`."""
        before = sum(self.servers[:listener]) + server
        return self.row(len(self.servers)) + before * len(SERVER_CELLS)


def open_connections(row: list[int]) -> int:
    """Return how many connections are open according to a listener's cells; not below 0, whatever was read when."""
    came, gone = row[CELL["accepted"]] + row[CELL["moved_in"]], row[CELL["moved_out"]]
    return max(0, came - gone - sum(row[CELL[f"closed_{reason}"]] for reason in CLOSE_REASONS))


def open_to_server(row: list[int]) -> int:
    """Return the same for connections to a server, according to its cells."""
    came = row[SERVER_CELL["connections"]] + row[SERVER_CELL["arrived"]]
    return max(0, came - row[SERVER_CELL["closed"]])


def bucket_of(value: float, bounds: tuple[float, ...]) -> int:
    """Return the index of the first bound that `value` does not exceed; `len(bounds)` if it exceeds all."""
    return bisect_left(bounds, value)
