"""A daemon whose listener takes messages: its handler, its sources, and clients that collect what they get."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.waiting import wait_until

PUSHES = '''\
"""A handler that sends each message to every connection, a line each, and the sources that feed it."""

import os
import threading
import time
from dataclasses import dataclass, field

import gaiod


class Clock(gaiod.Source):
    """Counts, from 1."""

    def __init__(self, name, every, topic):
        self.name = name
        self._every = every
        self._topic = topic
        self._count = 0

    def start(self, outlet):
        self._outlet = outlet
        self._tick()

    def _tick(self):
        self._count += 1
        self._outlet.publish(f"{self.name} {self._count}".encode(), self._topic)
        self._outlet.timer(self._every, self._tick)


class Flood(gaiod.Source):
    """Publishes `messages` of `size` bytes once there is a file `go`, as fast as workers take them, in a thread."""

    name = "flood"

    def __init__(self, messages, size):
        self._messages = messages
        self._size = size

    def start(self, outlet):
        self._outlet = outlet
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        self._is_stopped.set()
        self._thread.join()

    def _run(self):
        while not os.path.exists("go") and not self._is_stopped.is_set():
            time.sleep(0.005)
        for number in range(self._messages):
            if self._is_stopped.is_set():
                return
            self._outlet.publish(f"flood {number}".encode().ljust(self._size, b"."), "flood")


class Inlet(gaiod.Source):
    """Publishes each line that somebody sends to its address."""

    name = "inlet"

    def __init__(self, bind):
        self.listens_on = [bind]

    def start(self, outlet):
        outlet.serve(self.listens_on[0], Lines(outlet))


class Lines(gaiod.Handler):
    def __init__(self, outlet):
        super().__init__()
        self._outlet = outlet

    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        for line in bytes(result.buffer).splitlines():
            self._outlet.publish(line, "inlet")
        conn.read()


class Broken(gaiod.Source):
    """Cannot be started while there is a file `broken`."""

    name = "broken"

    def start(self, outlet):
        if os.path.exists("broken"):
            raise RuntimeError("it is broken")
        outlet.publish(b"mended", "broken")


@dataclass
class Options:
    greeting: str = ""
    clocks: list[str] = field(default_factory=list)
    every: gaiod.Duration = 0.01
    flood: int = 0
    size: gaiod.Size = 100
    inlet: str = ""
    broken: bool = False


class Pushes(gaiod.Handler):
    Options = Options

    @classmethod
    def sources_of(cls, options):
        sources = [Clock(name, options.every, "time") for name in options.clocks]
        if options.flood:
            sources.append(Flood(options.flood, options.size))
        if options.inlet:
            sources.append(Inlet(options.inlet))
        if options.broken:
            sources.append(Broken())
        return sources

    @classmethod
    def encode_message(cls, options, topic, data):
        if b"\\n" in data:
            raise ValueError("it has a newline; leave that out")
        if topic == "nowhere":
            raise ValueError("nobody can subscribe to it")
        return options.greeting.encode() + data + b"\\n"

    def on_start(self):
        self.conns = set()

    def on_open(self, conn):
        self.conns.add(conn)
        conn.write(b"open %d\\n" % os.getpid())

    def on_write(self, conn, result):
        pass

    def on_close(self, conn, reason):
        self.conns.discard(conn)

    def on_message(self, topic, data):
        for conn in self.conns:
            try:
                conn.write(data)
            except gaiod.ConnClosed:
                pass
'''


def config(with_: str = "", *, workers: int = 2, name: str = "mine", more: str = "") -> str:
    """Return a configuration with one listener; `with_` is its `with:` without the braces."""
    return (
        f'metrics: {{listen: "127.0.0.1:0"}}\nworkers: {workers}\ndrain_timeout: 10s\nheartbeat_timeout: 60s\n'
        "listeners:\n"
        f'  {name}: {{bind: "127.0.0.1:0", handler: "./mine.py:Pushes", with: {{{with_}}}}}\n{more}'
    )


class Subscriber:
    """A client, and the lines it gets.

    Attributes:
        worker: the process that serves it.
    """

    def __init__(self, address: str) -> None:
        self.sock = connect(address)
        self._lines = self.sock.makefile("rb")
        self.worker = int(self.line().removeprefix("open "))

    def line(self) -> str:
        """Return the next line; fail if the connection has ended."""
        line = self._lines.readline()
        assert line.endswith(b"\n"), f"the connection ended, with {line!r}"
        return line.decode().rstrip("\n")

    def lines(self, count: int) -> list[str]:
        """Return the next lines."""
        return [self.line() for _ in range(count)]

    @property
    def number(self) -> int:
        """The number at the end of the next line, which a clock has written."""
        return int(self.line().split()[-1])

    def after_the_first(self) -> None:
        """Skip lines of a clock up to one that is not its first: when a first one comes now, it has begun anew."""
        while self.number == 1:
            pass

    def until(self, wanted: str) -> None:
        """Skip lines up to one, which has to come soon."""
        until_s = time.monotonic() + LIMIT_S
        while (line := self.line()) != wanted:
            assert time.monotonic() < until_s, f"no {wanted!r}, but {line!r}"

    def close(self) -> None:
        """Disconnect."""
        self._lines.close()
        self.sock.close()


@contextmanager
def subscribers(running: Daemon, workers: int = 2, *, but: tuple[int, ...] = ()) -> Iterator[list[Subscriber]]:
    """Give a client of each worker but some: the kernel chooses, so it is tried until every one has one."""
    (address,) = (row["bind"] for row in running.ask("status")["listeners"] if row["listener"] == "mine")
    with ExitStack() as stack:
        found: dict[int, Subscriber] = {}

        def look() -> bool:
            made = Subscriber(address)
            if made.worker in (*found, *but):
                made.close()
            else:
                stack.callback(made.close)
                found[made.worker] = made
            return len(found) == workers

        wait_until(look, f"a client of each of {workers} workers")
        yield list(found.values())


def feeder_of(running: Daemon) -> int:
    """Return the process of the feeder, once it runs."""

    def look() -> int | None:
        row = running.ask("status")["feeder"]
        return row["pid"] if row["state"] == "running" else None

    found = wait_until(look, "a feeder")
    assert found is not None
    return found
