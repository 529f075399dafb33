"""From completions to whoever they concern. Compiled with the core: it is in every message's way."""

from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.operations import OpResult

READ, WRITE, TIMER, POST = 0, 1, 5, 6  # values of OpType


class Target:
    """What the `context` of a connection has to be.

    Attributes:
        on_read, on_write: called with (conn, result) for a read or a write that succeeded.
    """

    def __init__(self, on_read: Any, on_write: Any) -> None:
        self.on_read = on_read
        self.on_write = on_write

    def take(self, result: OpResult) -> None:
        """Take every other completion: an error, the end of the stream, an accept, a connect, a close."""
        raise NotImplementedError

    def failed(self, hook: str, conn: Conn | None) -> None:
        """Deal with the exception being handled, which `on_read` or `on_write` raised. The daemon's own: a bug."""
        raise  # noqa: PLE0704 - called from the except clause below


def dispatch(results: list[OpResult]) -> None:
    """Hand every completion over. A timer's or a post's context is called with the completion.

    What succeeded on a connection that has closed since is nobody's any more.
    """
    for result in results:
        kind = result.kind
        if kind == READ or kind == WRITE:
            conn = result.conn
            target = conn.context
            if result.error is not None:
                target.take(result)
                continue
            if conn.closed:
                continue  # by a hook that was called a moment ago: there is nothing to go on with
            try:
                if kind == READ:
                    target.on_read(conn, result)
                else:
                    target.on_write(conn, result)
            except Exception:
                target.failed("on_read" if kind == READ else "on_write", conn)
        elif kind == TIMER or kind == POST:
            if result.error is None:
                result.context(result)
        else:
            result.context.take(result)
