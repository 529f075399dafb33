"""A crowd: many clients in a process of their own, each of whose bytes is accounted for.

    python -m e2e.support.crowd '{"echo": {"address": "127.0.0.1:4711", "count": 100}, ...}'

It says a line when all are connected, and then answers each line on its standard input with what it has seen, as JSON.
One thread, one epoll: 7,500 clients at the default pace take a third of a CPU.
"""

import errno
import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S

from e2e.support.clients import connect

TICK_S = 0.02
STREAM = bytes((i * 167 + (i >> 8) * 59) & 0xFF for i in range((1 << 20) - 3))
DOUBLE = memoryview(STREAM + STREAM[: 1 << 17])
"""What bulk clients send, over and over. Its length is no multiple of anything: bytes at another place are others."""

AHEAD_MAX_BYTES = 1 << 20
"""What a bulk client may have sent and not received."""

RETRY_S = 0.02


def stream_at(offset: int, size: int) -> memoryview:
    """Return bytes of the endless stream."""
    first = offset % len(STREAM)
    return DOUBLE[first : first + size]


class Client:
    """One of them. `serve` is called when something has come; it returns what is wrong, or an empty text."""

    kind = ""
    pause_s = 0.0

    def __init__(self, crowd: "Crowd", number: int, address: str, pause_s: float) -> None:
        self.crowd = crowd
        self.number = number
        self.address = address
        self.pause_s = pause_s
        self.moves = 0
        self.dial()

    def dial(self) -> None:
        """Connect, and begin."""
        self.sock = connect(self.address)
        self.sock.setblocking(False)
        self.crowd.by_fd[self.sock.fileno()] = self
        self.crowd.epoll.register(self.sock.fileno(), select.EPOLLIN)
        self.heard_s = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Start anew on a new connection."""

    def take(self, data: bytes) -> str:
        """Take what has come; return what is wrong with it."""
        raise NotImplementedError

    def send(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0


class Echo(Client):
    """Sends a message, waits for all of it to come back, and rests."""

    kind = "echo"
    pause_s = 2.0

    def begin(self) -> None:
        self.message = b""
        self.answered = 0
        self.due()

    def due(self) -> None:
        """Speak after a rest; those of a crowd not all at once."""
        self.crowd.later(self.pause_s if self.moves else self.pause_s * (self.number % 97) / 97, self.speak)

    def speak(self) -> None:
        """Say the next message."""
        size = 12 + (self.number * 37 + self.moves * 101) % 2000
        head = self.number.to_bytes(4, "big") + self.moves.to_bytes(8, "big")
        self.message = (head + bytes(stream_at(self.number * 997 + self.moves, size)))[:size]
        self.answered = 0
        self.moves += 1
        self.begun_s = time.monotonic()
        sent = self.send(self.message)
        if sent != len(self.message):
            self.crowd.wrong.append(f"echo {self.number}: a socket that is empty took {sent} bytes")

    def take(self, data: bytes) -> str:
        if self.message[self.answered : self.answered + len(data)] != data:
            return f"message {self.moves}, at byte {self.answered}: {data[:40]!r}"
        self.answered += len(data)
        if self.answered == len(self.message):
            self.message = b""
            self.crowd.note_pause(time.monotonic() - self.begun_s)
            self.due()
        return ""


class Bulk(Client):
    """Sends a stream without an end at a bounded rate, gets it back, and now and then receives nothing for a while."""

    kind = "bulk"
    pause_s = 0.5
    burst_bytes = 32 << 10

    def begin(self) -> None:
        self.sent = self.received = self.rest = 0
        self.is_silent = False
        self.crowd.later(self.pause_s * (self.number % 23) / 23, self.speak)

    def speak(self) -> None:
        """Send the next part, and choose whether to receive until the next one."""
        self.moves += 1
        if self.sent - self.received < AHEAD_MAX_BYTES:
            self.sent += self.send(stream_at(self.sent, self.burst_bytes))
        silent = self.sent - self.received < AHEAD_MAX_BYTES and (self.moves + self.number) % 4 < 2
        if silent != self.is_silent:
            self.is_silent = silent
            self.crowd.epoll.modify(self.sock.fileno(), 0 if silent else select.EPOLLIN)
        self.crowd.later(self.pause_s, self.speak)

    def take(self, data: bytes) -> str:
        if self.received + len(data) > self.sent:
            return f"{self.received + len(data)} bytes of {self.sent}"
        if stream_at(self.received, len(data)) != data:
            return f"other bytes after {self.received} of {self.sent}"
        self.received += len(data)
        return ""


class Subscriber(Client):
    """Gets numbered lines: each one more than the one before."""

    kind = "push"

    def begin(self) -> None:
        self.part = b""
        self.last = 0

    def take(self, data: bytes) -> str:
        *lines, self.part = (self.part + data).split(b"\n")
        for line in lines:
            number = int(line)
            if self.last and number != self.last + 1:
                self.crowd.missed += max(0, number - self.last - 1)
                self.crowd.doubled += number <= self.last
                self.last = number
                continue
            self.last = number
            self.moves += 1
        return ""


class Crowd:
    """All of them, in this process."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.epoll = select.epoll()
        self.by_fd: dict[int, Client] = {}
        self.wrong: list[str] = []
        self.ends: list[list[Any]] = []
        self.missed = self.doubled = 0
        self.longest_s = 0.0
        self._is_again = wanted.pop("again", False)
        self._queues: dict[float, deque[tuple[float, Client, Callable[[], None]]]] = {}
        self.clients: list[Client] = []
        for kind in (Echo, Bulk, Subscriber):
            found = wanted.pop(kind.kind, None)
            if found is None:
                continue
            for number in range(found["count"]):
                self.clients.append(kind(self, number, found["address"], found.get("pause_s", kind.pause_s)))

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call a method of a client after a while, unless its connection has ended; equal delays share a queue."""
        client: Any = call.__self__  # type: ignore[attr-defined]
        queue = self._queues.setdefault(delay_s, deque())
        queue.append((time.monotonic() + delay_s, client.sock, call))

    def note_pause(self, took_s: float) -> None:
        """Take note of how long a message took."""
        self.longest_s = max(self.longest_s, took_s)

    def run(self) -> None:
        """Serve until the standard input ends."""
        self.epoll.register(0, select.EPOLLIN)
        while True:
            for fd, _ in self.epoll.poll(TICK_S):
                if fd == 0:
                    if not os.read(0, 1):
                        return
                    print(json.dumps(self.report()), flush=True)
                else:
                    self._serve(self.by_fd[fd])
            now_s = time.monotonic()
            for queue in list(self._queues.values()):
                while queue and queue[0][0] <= now_s:
                    _, sock, call = queue.popleft()
                    if call.__self__.sock is sock and sock.fileno() >= 0:  # type: ignore[attr-defined]
                        self._call(call)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except ConnectionError as error:
            self._end(call.__self__, errno.errorcode.get(error.errno or 0, "?"))  # type: ignore[attr-defined]

    def _serve(self, client: Client) -> None:
        try:
            data = client.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(client, errno.errorcode.get(error.errno or 0, "?"))
            return
        if not data:
            self._end(client, "FIN")
            return
        client.heard_s = time.monotonic()
        wrong = client.take(data)
        if wrong:
            self.wrong.append(f"{client.kind} {client.number}: {wrong}")
            self._end(client, "wrong")

    def _end(self, client: Client, how: str) -> None:
        self.ends.append([client.kind, client.number, how])
        del self.by_fd[client.sock.fileno()]
        client.sock.close()
        if self._is_again:
            client.dial()

    def report(self) -> dict[str, Any]:
        """Return what was seen."""
        now_s = time.monotonic()
        waiting = [now_s - each.begun_s for each in self.clients if isinstance(each, Echo) and each.message]
        moves: dict[str, int] = {}
        connected: dict[str, int] = {}
        for each in self.clients:
            moves[each.kind] = moves.get(each.kind, 0) + each.moves
            connected[each.kind] = connected.get(each.kind, 0) + (each.sock.fileno() >= 0)
        return {
            "connected": connected,
            "moves": moves,
            "bytes": sum(each.received for each in self.clients if isinstance(each, Bulk)),
            "ends": self.ends,
            "wrong": self.wrong,
            "missed": self.missed,
            "doubled": self.doubled,
            "longest_s": max([self.longest_s, *waiting]),
            "silent_s": max(now_s - each.heard_s for each in self.by_fd.values()) if self.by_fd else 0.0,
        }


class Seen:
    """What a crowd has seen; asked anew each time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("?")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        assert found, "the crowd has ended"
        return found


@contextmanager
def crowd(**wanted: Any) -> Iterator[Seen]:
    """Have a crowd of clients at work.

    Args:
        wanted: `echo`, `bulk`, `push`: the address, the count, and maybe `pause_s` of each; `again`: whether a client
            whose connection ends connects again.
    """
    command = [sys.executable, "-m", "e2e.support.crowd", json.dumps(wanted)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            yield Seen(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


if __name__ == "__main__":
    this = Crowd(json.loads(sys.argv[1]))
    print("connected", flush=True)
    this.run()
