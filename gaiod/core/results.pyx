# cython: language_level=3
"""One operation and what came of it, compiled: `results.py`, with memory that is used again for the next operation.

Only a `.pyx` may say so, and an operation is made for every read and every write.
"""

cimport cython
from libc.math cimport INFINITY


@cython.freelist(512)
cdef class OpResult:
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

    def __init__(
        self,
        operation,
        conn=None,
        *,
        buffer=None,
        size=None,
        error=None,
        context=None,
        is_swap_buffer=False,
    ):
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
        self.deadline = INFINITY

    def __repr__(self):
        outcome = "pending" if self.pending else "ok" if self.error is None else repr(self.error)
        name = getattr(self.operation, "name", "request")
        return f"<OpResult {name} {self.size} bytes, {outcome}, {self.conn!r}>"
