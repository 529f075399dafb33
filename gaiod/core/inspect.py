"""Where a connection stands: what is pending on it, whom each direction waits for, and since when.

It only looks, for whoever has to explain a connection: in the thread that calls `wait_io()`, between its calls.
"""

from math import inf
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.group import POLICIES, Group
from gaiod.core.operations import CONNECT, FINISH, FLUSH, HANDSHAKE, READ, RELAY, SHUTDOWN, WRITE

READING = {READ: "read", RELAY: "relay", HANDSHAKE: "handshake"}
WRITING = {WRITE: "write", CONNECT: "connect", SHUTDOWN: "shutdown", FINISH: "close", FLUSH: "write"}
POLICY_NAMES = {number: name for name, number in POLICIES.items()}


def waiting_s(conn: Conn, now_s: float) -> float:
    """Return for how long nothing has been taken of what there is for its peer, or for whom it is relayed to.

    The longer of the two; 0.0: there is nothing, or it is being taken.
    """
    longest = 0.0
    if not conn.writable and conn.pending_write_bytes > 0:
        longest = now_s - conn.blocked_s
    operation = conn.read_head
    if operation is not None and operation.kind == RELAY:
        flow = operation.pinned
        sink = flow.sink
        if flow.left > 0 and not sink.writable:
            longest = max(longest, now_s - sink.blocked_s)
    return max(0.0, longest)


def buffered_bytes(conn: Conn) -> int:
    """Return how many bytes wait for its peer, or were received from it and wait for whom it is relayed to."""
    held = 0
    operation = conn.read_head
    if operation is not None and operation.kind == RELAY:
        flow = operation.pinned
        held = flow.left
    return conn.pending_write_bytes + held


def relay_sink(conn: Conn) -> Conn | None:
    """Return whom it is relayed to; None: nobody."""
    operation = conn.read_head
    if operation is None or operation.kind != RELAY:
        return None
    flow = operation.pinned
    sink: Conn = flow.sink
    return sink


def state_of(conn: Conn, now_s: float) -> dict[str, Any]:
    """Return what is pending in both directions of a connection, as plain values.

    `reading` and `writing` tell of the oldest operation of each, None if there is none; `blocked_s`: for how long the
    kernel has taken no more for its peer, None: it does; `group`: what waits for it as the member of one.
    """
    return {
        "at_eof": bool(conn.at_eof),
        "is_closing": bool(conn.closing),
        "blocked_s": None if conn.writable else max(0.0, now_s - conn.blocked_s),
        "reading": reading(conn, now_s),
        "writing": writing(conn, now_s),
        "group": membership(conn, now_s),
    }


def reading(conn: Conn, now_s: float) -> dict[str, Any] | None:
    """Return what is being waited for of its peer. Of a relay: how much of `limit_bytes` is held, and since when."""
    operation = conn.read_head
    if operation is None:
        return None
    told: dict[str, Any] = {
        "operation": READING.get(operation.kind, "other"),
        "deadline_in_s": None if operation.deadline == inf else operation.deadline - now_s,
    }
    if operation.kind == RELAY:
        flow = operation.pinned
        told["held_bytes"] = flow.left
        told["limit_bytes"] = flow.wanted
        told["paused_s"] = max(0.0, now_s - flow.paused_s) if flow.left else None
    return told


def writing(conn: Conn, now_s: float) -> dict[str, Any] | None:
    """Return what is under way to its peer."""
    operation = conn.write_head
    if operation is None:
        return None
    return {
        "operation": WRITING.get(operation.kind, "other"),
        "deadline_in_s": None if operation.deadline == inf else operation.deadline - now_s,
    }


def membership(conn: Conn, now_s: float) -> dict[str, Any] | None:
    """Return what waits for the member of a group; None: it is in none."""
    outbox = conn.outbox
    if outbox is None:
        return None
    group: Group = outbox.group
    spool = group.spool
    return {
        "topics": [topic.name for topic in outbox.topics],
        "waiting_messages": outbox.count,
        "waiting_bytes": outbox.waiting_bytes,
        "limit_bytes": spool.limit,
        "policy": POLICY_NAMES[spool.policy],
        "behind_s": max(0.0, now_s - outbox.progress_s) if outbox.count else None,
    }
