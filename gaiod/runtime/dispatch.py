"""From completions to whoever they concern.

A connection's `context` is a target: it has `on_read` and `on_write` for what succeeded, and `take`
for everything else. A timer's or a post's context is called with the completion.
"""

from typing import Protocol

from gaiod.core.connection import Conn
from gaiod.core.operations import OpResult, OpType

READ, WRITE, TIMER, POST = OpType.READ, OpType.WRITE, OpType.TIMER, OpType.POST


class Target(Protocol):
    """What a connection's context must be able to take."""

    def on_read(self, conn: Conn, result: OpResult) -> None:
        """Bytes were read."""

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Bytes were written."""

    def take(self, result: OpResult) -> None:
        """Anything else: an error, the end of the stream, an accept, a connect, a close."""


def dispatch(results: list[OpResult]) -> None:
    """Hand every completion over. An exception of one's hook is dealt with by its target, if it can."""
    for result in results:
        operation = result.operation
        conn = result.conn
        if operation is READ:
            if result.error is not None:
                conn.context.take(result)
                continue
            try:
                conn.context.on_read(conn, result)
            except Exception:
                _failed(conn, "on_read")
        elif operation is WRITE:
            if result.error is not None:
                conn.context.take(result)
                continue
            try:
                conn.context.on_write(conn, result)
            except Exception:
                _failed(conn, "on_write")
        elif operation is TIMER or operation is POST:
            if result.error is None:
                result.context(result)
        else:
            result.context.take(result)


def _failed(conn: Conn, hook: str) -> None:
    failed = getattr(conn.context, "failed", None)
    if failed is None:
        raise  # the daemon's own: a bug, and not to be hidden
    failed(hook, conn)
