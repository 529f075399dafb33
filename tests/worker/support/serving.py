"""A listener in this process, stepped by the test: real sockets, a real watcher, nobody else's time."""

import socket
from contextlib import ExitStack
from typing import Any

from core.support.sockets import listen
from core.support.waiting import LIMIT_S

from gaiod import Conn, Handler, OpResult, Termination, Watcher, WatcherClosed
from gaiod.process.dispatch import dispatch
from gaiod.settings import ListenerSettings
from gaiod.stats import closes
from gaiod.stats.cells import CELL, CLOSE_REASONS, DURATION_BOUNDS_S, SERVER_CELL, Layout
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.inspect.recent_closes import RecentCloses
from gaiod.worker.listener import Common, Listener
from gaiod.worker.names import Names
from worker.support.stepping import Stepped


class Kept(RecentCloses):
    """Remembers the last connections that closed, and which those were."""

    def __init__(self) -> None:
        self.memory = bytearray(closes.FILE_BYTES)
        super().__init__(self.memory)
        self.names: list[tuple[int, int]] = []

    def add(
        self,
        parts: tuple[int, int],
        listener: str,
        conn: Conn,
        name: bytes | None,
        termination: Termination,
        *,
        server: str | None,
        now_s: float,
    ) -> None:
        self.names.append(parts)
        super().add(parts, listener, conn, name, termination, server=server, now_s=now_s)

    def find(self, name: str, now_s: float) -> dict[str, Any] | None:
        """Return what others read of a connection."""
        return closes.find(bytes(self.memory), name, now_s)


class Serving(Stepped):
    """One listener of one handler, and its clients."""

    def __init__(
        self,
        handler: Handler,
        *,
        name: str = "front",
        kind: str = "test",
        sock: socket.socket | None = None,
        connection_log: ConnectionLog | None = None,
        names: Names | None = None,
        common: Common | None = None,
        **settings: Any,
    ) -> None:
        plain = ListenerSettings(name=name, bind="127.0.0.1:0", handler=kind, **settings)
        self._layout = Layout((len(plain.servers),))
        self.cells = memoryview(bytearray(8 * self._layout.size)).cast("q")
        super().__init__(Watcher(counters=self.cells, report_closes=True, report_hangups=True))
        self.recent_closes = Kept()
        self.names = names if names is not None else Names(0)
        self.listener = Listener(
            plain,
            handler,
            self.watcher,
            self.cells,
            self._layout,
            number=0,
            connection_log=connection_log,
            names=self.names,
            recent_closes=self.recent_closes,
            common=common,
        )
        self._clients = ExitStack()
        with sock or listen() as sock:
            self.address = sock.getsockname()
            self.listener.start()
            self.listener.open([sock])

    # -- clients -------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """Return a client that the listener has seen: it was served, or rejected."""
        before = self._seen()
        sock = self.dial()
        self.step_until(lambda: self._seen() > before, "a connection being accepted")
        return sock

    def dial(self) -> socket.socket:
        """Return a client that the kernel has accepted."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = self._clients.enter_context(socket.socket(family))
        sock.settimeout(LIMIT_S)
        sock.connect(self.address)
        return sock

    def _seen(self) -> int:
        return self.count("accepted") + self.count("rejected_limit")

    def receive(self, sock: socket.socket, n: int) -> bytes:
        """Return the next `n` bytes that come, or fewer at the end of the stream."""
        received = bytearray()
        sock.setblocking(False)

        def look() -> bool:
            try:
                part = sock.recv(n - len(received))
            except BlockingIOError:
                return False
            received.extend(part)
            return not part or len(received) == n

        self.step_until(look, f"{n} bytes")
        sock.settimeout(LIMIT_S)
        return bytes(received)

    def exchange(self, sock: socket.socket, data: bytes) -> bytes:
        """Send, and return as many bytes."""
        sock.sendall(data)
        return self.receive(sock, len(data))

    def is_ended(self, sock: socket.socket) -> bool:
        """Wait for a connection's end or its next byte; tell whether it was the end."""
        try:
            return self.receive(sock, 1) == b""
        except ConnectionError:
            return True

    def stop(self) -> None:
        """Have the listener end what it can in order."""
        self.listener.stop_accepting()
        self.listener.close_all()

    def end_all(self, reason: str) -> None:
        """Close its connections at once, for a reason."""
        for conn in self.listener.clients():
            self.listener.end(conn, reason, abort=True)

    # -- what was counted ------------------------------------------------------------------------------

    def count(self, cell: str) -> int:
        """Return one of the listener's cells."""
        return self.cells[self._layout.row(0) + CELL[cell]]

    def count_of_server(self, cell: str, number: int = 0) -> int:
        """Return one of the cells of one of the listener's servers."""
        return self.cells[self._layout.server(0, number) + SERVER_CELL[cell]]

    def closes(self) -> dict[str, int]:
        """Return how many connections closed, by why; what never happened is left out."""
        return {reason: n for reason in CLOSE_REASONS if (n := self.count(f"closed_{reason}"))}

    def ends(self) -> list[tuple[str, ...]]:
        """Return the termination states of those that closed, oldest first: reason, who, how, cause, phase, server."""
        told = [
            self.recent_closes.find(f"{instance}-{serial}", 0.0) or {} for instance, serial in self.recent_closes.names
        ]
        keys = ("reason", "who", "how", "cause", "phase", "server")
        return [tuple(str(each.get(key) or "-") for key in keys) for each in told]

    def durations(self) -> list[int]:
        """Return the buckets of the duration histogram."""
        return [self.count(f"duration_le_{bound}") for bound in (*DURATION_BOUNDS_S, "inf")]

    def close(self) -> None:
        """End it, taking every completion."""
        self._clients.close()
        self.watcher.close()
        try:
            while True:
                dispatch(self.watcher.wait_io())
        except WatcherClosed:
            pass


class Recorder(Handler):
    """An echo that notes which hooks were called."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.calls: list[str] = []
        self.reasons: list[str] = []

    def on_open(self, conn: Conn) -> None:
        self.calls.append("on_open")
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self.calls.append("on_read")
        conn.write(result.buffer)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        self.calls.append("on_write")
        conn.read()

    def on_eof(self, conn: Conn) -> None:
        self.calls.append("on_eof")
        conn.close()

    def on_close(self, conn: Conn, reason: str) -> None:
        self.calls.append("on_close")
        self.reasons.append(reason)
