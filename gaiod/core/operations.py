"""Operations: what was asked of a watcher, and what came of it."""

from enum import IntEnum
from math import inf
from typing import Any


class OpType(IntEnum):
    """What an operation does."""

    READ = 0
    WRITE = 1
    ACCEPT = 2
    CONNECT = 3
    RELAY = 4
    TIMER = 5
    POST = 6
    CLOSE = 7
    """Not submitted: the report of a watcher with `report_closes` that a connection closed. Its buffer is the peer's
    address as the kernel has it (`sockets.peer_of_name`)."""
    HANGUP = 8
    """Not submitted: the report of a watcher with `report_hangups` that a peer is gone while no read of the connection
    is pending that would tell. Its error says how, its size how many bytes of the peer's can still be read."""


READ, WRITE, ACCEPT, CONNECT, RELAY, TIMER, POST, CLOSED, HANGUP = range(9)
"""`OpResult.kind`: OpType as plain numbers, which compile to C."""

SHUTDOWN, FINISH, FREE, RESET, CANCEL, AFFINITY, STOP, PAUSE = range(9, 17)
"""Kinds of requests, which go the same ways as operations but have no completion."""

UNSEEN, SEEN, TOLD = range(3)
"""`Conn.hung`: what is known of its peer's hang-up, and whether somebody was told."""

OPERATION_TYPES = list(OpType)


class OpResult:
    """One operation, pending and then complete.

    `buffer[:size]` is what was moved, whatever the outcome. A swap buffer (`is_swap_buffer`) is the
    watcher's and valid until the next `wait_io()`; any other is whose it was.

    Attributes:
        operation: which kind.
        context: what was given with it, or else its connection's `context`.
        conn: its connection; for ACCEPT the new one; None for TIMER and POST.
        buffer: the bytes read or written; None for the other kinds (but see CLOSE), and for a read that failed.
        is_swap_buffer: whether `buffer` belongs to the watcher.
        size: bytes moved, also when the operation failed midway.
        error: None, or why it failed: EOFError at the end of the stream, OSError with its errno
            from the network, DeadlineExceeded, ConnClosed, WatcherClosed.
    """

    __slots__ = (
        "buffer", "conn", "context", "deadline", "error", "full", "is_swap_buffer", "kind", "length", "next",
        "operation", "pending", "pinned", "silent", "size",
    )  # fmt: skip

    def __init__(
        self,
        operation: OpType,
        conn: Any = None,
        *,
        buffer: Any = None,
        size: int | None = None,
        error: Exception | None = None,
        context: Any = None,
        is_swap_buffer: bool = False,
    ) -> None:
        """Make a completed operation: for tests of code that takes completions."""
        self.kind = int(operation)
        self.operation = operation
        self.conn = conn
        self.context = context
        self.buffer = buffer
        self.is_swap_buffer = is_swap_buffer
        self.size = (0 if buffer is None else len(buffer)) if size is None else size
        self.error = error
        self.deadline = inf
        self.full = False
        self.length = self.size
        self.next: OpResult | None = None
        self.pending = False
        self.silent = False  # the watcher's own: it is not told of
        self.pinned: Any = None

    def __repr__(self) -> str:
        outcome = "pending" if self.pending else "ok" if self.error is None else repr(self.error)
        name = getattr(self.operation, "name", "request")
        return f"<OpResult {name} {self.size} bytes, {outcome}, {self.conn!r}>"
