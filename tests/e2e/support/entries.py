"""Numbered entries that somebody adds all the time, and subscribers that are to get each of them once."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import redis

from e2e.support.clients import connect
from e2e.support.redis import RedisServer
from e2e.support.waiting import wait_until

PAUSE_S = 0.005


class Entries:
    """Adds to a stream of a Redis (`r 1`, `r 2`, ...) and to a file (`f 1`, ...), 200 of each in a second.

    Attributes:
        count: how many were added to each.
    """

    def __init__(self, server: RedisServer, stream: str, path: Path) -> None:
        self.count = 0
        self._server = server
        self._stream = stream
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._server.client() as client, self._path.open("a", buffering=1) as file:
            while not self._is_over.is_set():
                self._add(client, file.write)
                time.sleep(PAUSE_S)  # the rate, not a wait

    def _add(self, client: redis.Redis, write: Callable[[str], object]) -> None:
        number = self.count + 1
        client.xadd(self._stream, {"message": f"r {number}"})
        write(f"f {number}\n")
        self.count = number

    def __enter__(self) -> "Entries":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Add no more."""
        self._is_over.set()
        self._thread.join()


class Collector:
    """A subscriber that writes down what it gets."""

    def __init__(self, address: str) -> None:
        self.lines: list[str] = []
        self._sock = connect(address)
        self._sock.settimeout(None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(ConnectionError), self._sock.makefile("r") as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))

    def numbers(self, kind: str) -> list[int]:
        """Return the numbers of one kind, as they came."""
        return [int(line[2:]) for line in list(self.lines) if line.startswith(kind)]

    def wait_for(self, number: int) -> None:
        """Wait until entries of both kinds have come, up to a number."""
        for kind in "rf":
            wait_until(lambda kind=kind: self.numbers(kind)[-1] >= number, f"{kind} {number}")  # type: ignore[misc]

    def check(self) -> None:
        """Fail if one is missing between the first and the last, or came twice."""
        for kind in "rf":
            found = self.numbers(kind)
            assert found == list(range(found[0], found[-1] + 1)), f"{kind}: {_faults(found)}"

    def close(self) -> None:
        """Disconnect."""
        with suppress(OSError):  # it was disconnected
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()


def _faults(found: list[int]) -> str:
    return ", ".join(f"{one} then {other}" for one, other in pairwise(found) if other != one + 1)


@contextmanager
def collectors(address: str, count: int) -> Iterator[list[Collector]]:
    """Give so many subscribers, each of which has got something."""
    made: list[Collector] = []
    try:
        for _ in range(count):
            made.append(Collector(address))
        for each in made:
            wait_until(lambda each=each: each.numbers("r") and each.numbers("f"), "the first entries")  # type: ignore[misc]
        yield made
    finally:
        for each in made:
            each.close()
