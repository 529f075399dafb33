"""Load: many clients in one thread, each of whose bytes is accounted for.

A client connects, is told which worker serves it (`NAMED` in `daemons.py`: four bytes), and from then on sends
one numbered message after the other, each once the echo of the one before is complete and a pause is over.
A client whose connection ends connects again at once. Lost is what was sent and not answered, and
what came although it was not, or not yet, or twice.
"""

import errno
import select
import socket
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass
from threading import Thread
from types import TracebackType

from core.support.waiting import LIMIT_S
from e2e.support.waiting import wait_until

NAME_BYTES = 4
RETRY_S = 0.02
"""After a connect that failed: not to fail a million times."""


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended that its client had not closed.

    Attributes:
        at_s: when, in `time.monotonic()`.
        worker: the process that served it; None if it had not been accepted yet, as far as the client knows.
        lost: bytes that were sent, and not answered.
        error: the errno of a reset; 0 if it was closed in order.
    """

    at_s: float
    worker: int | None
    lost: int
    error: int


class _Client:
    __slots__ = ("answered", "begun_s", "connected", "message", "name", "number", "serial", "sock", "worker")

    def __init__(self, number: int) -> None:
        self.number = number
        self.serial = 0  # of the next message, over all its connections
        self.begin(socket.socket())

    def begin(self, sock: socket.socket) -> None:
        """Start over, with a new connection."""
        self.sock = sock
        self.connected = False
        self.worker: int | None = None
        self.name = b""
        self.message = b""
        self.answered = 0
        self.begun_s = 0.0


class Load:
    """Clients that are busy from the beginning of a `with` to its end, where what is under way is completed.

    Attributes:
        ends: the connections that others ended.
        connect_errors: the errno of every connect that failed.
        wrong: what was received and is not what was sent.
        answered: the messages whose echo is complete.
        closed: connections that their client has closed, because they had had their messages.
    """

    def __init__(
        self,
        address: str,
        clients: int,
        *,
        pause_s: float,
        message_bytes: int = 64,
        messages_per_connection: int | None = None,
    ) -> None:
        """Prepare clients.

        Args:
            address: where to connect to.
            clients: how many.
            pause_s: between the answer to one message and the next message.
            message_bytes: how long a message is, 16 at least.
            messages_per_connection: after so many a client closes, and connects again; None: never.
        """
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._pause_s = pause_s
        self._filler = bytes(range(256)) * (message_bytes // 256 + 1)
        self._message_bytes = message_bytes
        self._per_connection = messages_per_connection
        self._clients = [_Client(number) for number in range(clients)]
        self._by_fd: dict[int, _Client] = {}
        self._due: deque[tuple[float, _Client]] = deque()
        self._retries: deque[tuple[float, _Client]] = deque()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="load", daemon=True)
        self._times, self._latencies, self._servers = array("d"), array("d"), array("q")
        self.ends: list[End] = []
        self.connect_errors: list[int] = []
        self.wrong: list[str] = []
        self.closed = 0

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what tests ask ------------------------------------------------------------------------------

    @property
    def answered(self) -> int:
        return len(self._latencies)

    @property
    def workers(self) -> Counter[int]:
        """How many clients each worker serves now, as far as they were told."""
        return Counter(client.worker for client in self._clients if client.worker is not None)

    def wait_until_served(self) -> None:
        """Wait until every client knows its worker."""
        wait_until(lambda: self.workers.total() == len(self._clients), "all clients served", limit_s=2 * LIMIT_S)

    def percentile_s(self, share: float, since_s: float, until_s: float, *, worker: int | None = None) -> float:
        """Return what this share of the messages took at most that were answered in a period, by one worker or any."""
        found = sorted(
            latency_s
            for at_s, latency_s, server in zip(self._times, self._latencies, self._servers, strict=False)
            if since_s <= at_s < until_s and worker in (None, server)
        )
        assert found, "no message was answered in that period"
        return found[min(int(share * len(found)), len(found) - 1)]

    def stop(self) -> None:
        """Let what is under way be answered, and close."""
        self._stopping = True
        self._thread.join(2 * LIMIT_S)
        assert not self._thread.is_alive()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        self._epoll = select.epoll()
        try:
            for client in self._clients:
                self._connect(client)
            self._loop()
        except BaseException as failure:
            self._failure = failure
        finally:
            for client in self._clients:
                client.sock.close()
            self._epoll.close()

    def _loop(self) -> None:
        until_s = float("inf")
        while True:
            now_s = time.monotonic()
            if self._stopping:
                until_s = min(until_s, now_s + LIMIT_S)
                if now_s > until_s or not any(client.message for client in self._clients):
                    break
            for fd, _events in self._epoll.poll(self._sleep_s(now_s)):
                if fd in self._by_fd:
                    self._take(self._by_fd[fd])
            now_s = time.monotonic()
            while self._retries and self._retries[0][0] <= now_s:
                self._connect(self._retries.popleft()[1])
            while self._due and self._due[0][0] <= now_s:
                client = self._due.popleft()[1]
                if client.connected and not client.message and not self._stopping:
                    self._send(client)
        for client in self._clients:
            if client.message:
                self.ends.append(
                    End(time.monotonic(), client.worker, len(client.message) - client.answered, errno.ETIMEDOUT)
                )

    def _sleep_s(self, now_s: float) -> float:
        next_s = min(queue[0][0] if queue else now_s + 0.05 for queue in (self._due, self._retries))
        return min(max(next_s - now_s, 0.0), 0.05)

    def _connect(self, client: _Client) -> None:
        if client.sock.fileno() >= 0:
            client.sock.close()
        sock = socket.socket()
        sock.setblocking(False)
        client.begin(sock)
        error = sock.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            self._failed_to_connect(client, error)
            return
        self._by_fd[sock.fileno()] = client
        self._epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def _failed_to_connect(self, client: _Client, error: int) -> None:
        self._by_fd.pop(client.sock.fileno(), None)
        client.sock.close()
        self.connect_errors.append(error)
        self._retries.append((time.monotonic() + RETRY_S, client))

    def _take(self, client: _Client) -> None:
        if not client.connected:
            error = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._failed_to_connect(client, error)
                return
            try:
                client.sock.getpeername()
            except OSError:
                return  # the first edge of a socket that is not connected yet
            client.connected = True
            if not self._stopping:
                self._send(client)
        while client.connected:
            try:
                data = client.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError as failure:
                self._ended(client, failure.errno or errno.EIO)
                return
            if not data:
                self._ended(client, 0)
                return
            self._receive(client, data)

    def _send(self, client: _Client) -> None:
        serial = client.serial.to_bytes(8, "big") + client.number.to_bytes(8, "big")
        client.message = (serial + self._filler)[: self._message_bytes]
        client.serial += 1
        client.answered = 0
        client.begun_s = time.monotonic()
        try:
            sent = client.sock.send(client.message)
        except OSError as failure:
            self._ended(client, failure.errno or errno.EIO)
            return
        assert sent == len(client.message), "a socket that is empty took only a part of a message"

    def _receive(self, client: _Client, data: bytes) -> None:
        if client.worker is None:
            missing = NAME_BYTES - len(client.name)
            client.name += data[:missing]
            data = data[missing:]
            if len(client.name) < NAME_BYTES:
                return
            client.worker = int.from_bytes(client.name, "big")
        if client.message[client.answered : client.answered + len(data)] != data:
            self.wrong.append(
                f"client {client.number}, message {client.serial - 1}, at {client.answered}: {data[:40]!r}"
            )
        client.answered += len(data)
        if data and client.answered >= len(client.message):
            self._complete(client)

    def _complete(self, client: _Client) -> None:
        now_s = time.monotonic()
        self._times.append(now_s)
        self._servers.append(client.worker or 0)
        self._latencies.append(now_s - client.begun_s)
        client.message = b""
        if self._per_connection is not None and client.serial % self._per_connection == 0:
            self.closed += 1
            self._by_fd.pop(client.sock.fileno())
            self._connect(client)
        else:
            self._due.append((now_s + self._pause_s, client))

    def _ended(self, client: _Client, error: int) -> None:
        self.ends.append(End(time.monotonic(), client.worker, len(client.message) - client.answered, error))
        self._by_fd.pop(client.sock.fileno())
        self._connect(client)
