"""One operation and what came of it, for the interpreted engine. The compiled one has `results.pyx` by that name."""

from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaiod.core.operations import OpType


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

    kind: int
    operation: "OpType"
    conn: Any
    context: Any
    buffer: Any
    is_swap_buffer: bool
    size: int
    error: Exception | None
    deadline: float
    full: bool
    length: int
    next: "OpResult | None"
    pending: bool
    silent: bool
    pinned: Any

    def __new__(cls, *arguments: Any, **options: Any) -> "OpResult":
        """Make one that is nothing yet, as C has it: the watcher sets only what is otherwise."""
        self = super().__new__(cls)
        self.kind = self.size = self.length = 0
        self.conn = self.context = self.buffer = self.error = self.next = self.pinned = None
        self.is_swap_buffer = self.full = self.pending = self.silent = False
        return self

    def __init__(
        self,
        operation: "OpType",
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
        self.length = self.size
        self.error = error
        self.deadline = inf

    def __repr__(self) -> str:
        outcome = "pending" if self.pending else "ok" if self.error is None else repr(self.error)
        name = getattr(self.operation, "name", "request")
        return f"<OpResult {name} {self.size} bytes, {outcome}, {self.conn!r}>"
