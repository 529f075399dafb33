"""The handler API: what decides what to do with the bytes."""

from collections.abc import Callable
from typing import Any, ClassVar

from gaiod.core.connection import Conn
from gaiod.core.operations import OpResult

HOOKS = ("on_open", "on_read", "on_write", "on_eof", "on_close", "on_tick", "on_connect", "on_relay")


class Handler:
    """Answers the connections of one listener. One instance per listener and worker, one thread.

    A hook must not block: it starts operations on its connection (`conn.read()`, `conn.write(data)`,
    `conn.close()`, ...), and another hook is called when one completes. The defaults close the
    connection, so a handler says everything it does. What belongs to one connection goes into
    `conn.data`.

    An exception in a hook closes that connection only; it is logged and counted.

    Attributes:
        Options: a dataclass, if the handler has options: it is the schema of `with:` in the
            configuration, and `self.options` an instance of it.
        tick_interval_s: seconds between calls of `on_tick`.
    """

    Options: ClassVar[type[Any] | None] = None
    tick_interval_s: ClassVar[float] = 1.0

    _connect: Callable[..., Conn] | None = None

    def __init__(self, options: Any = None) -> None:
        self.options = options

    def __init_subclass__(cls) -> None:
        """Refuse a hook that does not exist: it would never be called, and nobody would know why."""
        super().__init_subclass__()
        for name in vars(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise TypeError(f"{cls.__qualname__}.{name} is not a hook; {_advice(name)}")

    def on_open(self, conn: Conn) -> None:
        """Take a new connection."""
        conn.close()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        """Take what a read brought: `result.buffer`, valid until this returns (copy what is kept)."""
        conn.close()

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Go on after a write: the kernel has taken all of it."""
        conn.close()

    def on_eof(self, conn: Conn) -> None:
        """Go on after a read found the end of the stream: the peer sends no more, and may still receive."""
        conn.close()

    def on_close(self, conn: Conn, reason: str) -> None:
        """Let go of what belongs to a connection that has closed, whatever the reason."""

    def on_tick(self) -> None:
        """Do what is to be done every `tick_interval_s`."""

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        """Go on after `connect()`: established, or failed with `result.error`."""
        conn.close()

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        """Go on after `conn.relay_to()`: the end of its stream was passed on, or it failed with `result.error`."""
        conn.close()

    def connect(self, address: Any, *, data: Any = None, deadline: float | None = None) -> Conn:
        """Open a connection of this handler's own; `on_connect` comes when it is established or failed.

        Args:
            address: `(host, port)` with a numeric host, or the path of a unix socket.
            data: goes into `conn.data`.
            deadline: in `time.monotonic()` seconds.

        Raises:
            RuntimeError: the handler does not serve a listener yet.
            As `Watcher.connect`.
        """
        if self._connect is None:
            raise RuntimeError("connect() works once the handler serves a listener: call it from a hook")
        return self._connect(address, data, deadline)


def _advice(name: str) -> str:
    from difflib import get_close_matches  # late: a worker whose handlers are right never needs it

    near = get_close_matches(name, HOOKS, n=1)
    return f"did you mean {near[0]}?" if near else f"the hooks are {', '.join(HOOKS)}"
