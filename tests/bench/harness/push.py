"""One publisher and many subscribers: the publishers that are compared, and one run of one of them."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.processes import BenchError, Child, running
from harness.procfs import anonymous_bytes, cpu_counters
from harness.runs import IDLE_WARMUP_CONNECTIONS, LOAD_TIMEOUT_S, Bench, Run, parse_stopped, settled_bytes
from harness.servers import BENCH, Contestant, Measured, Programs, Server

PUSH_REFERENCES = ("uvloop", "c", "c-writev", "uvloop-each")
PUSH_NAMES = ("gaiod", *PUSH_REFERENCES, "asyncio", "gaiod-interpreted")
BURST = 16
"""Messages that are due at once, where as much is published as a server can."""
RATE_MAX = 100
DELIVERIES_PER_S_MAX = 50_000
"""A paced load is one that every server keeps up with: 10,000 subscribers get 5 messages a second."""
IDLE_MESSAGE_BYTES = 64
COUNT_INTERVAL_S = 0.01


@dataclass(frozen=True)
class Fanout:
    """One load: so many subscribers, and what is published to all of them."""

    subscribers: int
    message_bytes: int
    burst: int
    interval_ns: int
    """From a burst to the next; 0: as soon as the kernel has all of the one before."""

    def __str__(self) -> str:
        how = f"{1e9 / self.interval_ns:g}/s" if self.interval_ns else f"bursts of {self.burst}"
        return f"{self.subscribers} x {self.message_bytes}, {how}"


@dataclass(frozen=True)
class PushRun(Run):
    """What one run measured: its messages are deliveries, one for each message and subscriber."""

    skew_p50_us: float
    """Between a message's receipt by the first subscriber and by the last."""
    skew_p99_us: float

    @property
    def messages_per_cpu_s(self) -> float:
        return 1e6 / self.cpu_us


def paced(subscribers: int, message_bytes: int) -> Fanout:
    """Return the load that publishes a message every so often."""
    rate = min(RATE_MAX, max(1, DELIVERIES_PER_S_MAX // subscribers))
    return Fanout(subscribers, message_bytes, 1, 10**9 // rate)


def saturated(subscribers: int, message_bytes: int) -> Fanout:
    """Return the load that publishes as much as the server can."""
    return Fanout(subscribers, message_bytes, BURST, 0)


def known_publishers(programs: Programs) -> dict[str, Server]:
    """Return every publisher by name, in the order in which they run: gaiod between its two references."""
    python_server = (sys.executable, str(BENCH / "servers" / "asyncio_push.py"))
    gaiod_server = (sys.executable, str(BENCH / "servers" / "gaiod_push.py"))
    servers = (
        Server("c", (str(programs.push_epoll), "send")),
        Server("gaiod", gaiod_server, {"GAIOD_ENGINE": "compiled"}),
        Server("uvloop", (*python_server, "--uvloop")),
        Server("uvloop-each", (*python_server, "--uvloop", "--each")),
        Server("c-writev", (str(programs.push_epoll), "writev")),
        Server("asyncio", python_server),
        Server("gaiod-interpreted", gaiod_server, {"GAIOD_ENGINE": "interpreted"}),
    )
    return {server.name: server for server in servers}


class Publisher:
    """A server's publisher, told what to do over a connection of its own: `push_epoll.c` lists the requests."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._socket = socket.create_connection(("127.0.0.1", port), LOAD_TIMEOUT_S)
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        """Let go of the connection."""
        self._answers.close()
        self._socket.close()

    def expect_subscribers(self, count: int) -> None:
        """Wait until the server has so many.

        Raises:
            BenchError: it has not within 15 s.
        """
        until_s = time.monotonic() + LOAD_TIMEOUT_S
        while (found := self._ask("count")) != count:
            if time.monotonic() > until_s:
                raise BenchError(f"{self.name}: has {found} of {count} subscribers")
            time.sleep(COUNT_INTERVAL_S)

    def publish(self, fanout: Fanout, seconds: float) -> int:
        """Have it publish for some time; return how many messages it has published.

        Raises:
            BenchError: it does not end.
        """
        self._socket.settimeout(seconds + LOAD_TIMEOUT_S)
        request = (fanout.message_bytes, fanout.burst, fanout.interval_ns, round(seconds * 1e9))
        return self._ask("publish " + " ".join(map(str, request)))

    def _ask(self, request: str) -> int:
        try:
            self._socket.sendall(request.encode() + b"\n")
            answer = self._answers.readline()
        except OSError as error:
            raise BenchError(f"{self.name}: did not answer `{request}`: {error}") from None
        if not answer.endswith(b"\n"):
            raise BenchError(f"{self.name}: closed the connection after `{request}`: its messages are above")
        return int(answer)


@contextmanager
def publishing(bench: Bench, server: Contestant) -> Iterator[tuple[Measured, int, Publisher]]:
    """Run a server pinned to its core; yield it, its port, and its publisher."""
    with server.serving(bench.server_cpu) as (child, port):
        publisher = Publisher(server.name, port)
        try:
            yield child, port, publisher
        finally:
            publisher.close()


@contextmanager
def subscribed(bench: Bench, name: str, port: int, subscribers: int, message_bytes: int) -> Iterator[Child]:
    """Subscribe so many connections; yield the load, which waits for a line before it receives."""
    command = (str(bench.programs.subscribe), str(port), str(subscribers), str(message_bytes))
    with running(f"{subscribers} subscribers of {name}", command, bench.load_cpu) as load:
        load.expect("started", LOAD_TIMEOUT_S)
        yield load


def _publish(publisher: Publisher, load: Child, fanout: Fanout, seconds: float) -> dict[str, float]:
    load.go_on()
    published = publisher.publish(fanout, seconds)
    figures = parse_stopped(load.expect("stopped", LOAD_TIMEOUT_S))
    if figures["published"] != published or figures["messages"] != published * fanout.subscribers:
        raise BenchError(f"{publisher.name}: {published} messages were published, and received: {figures}")
    return figures


def run_push(bench: Bench, server: Contestant, fanout: Fanout) -> PushRun:
    """Run a fresh server under one load.

    No message is on its way when the counters are read.

    Raises:
        BenchError: the server or the load failed, or a subscriber did not get every message once, and in order.
    """
    with (
        publishing(bench, server) as (child, port, publisher),
        subscribed(bench, server.name, port, fanout.subscribers, fanout.message_bytes) as load,
    ):
        publisher.expect_subscribers(fanout.subscribers)
        _publish(publisher, load, fanout, bench.warmup_s)
        load.expect("started", LOAD_TIMEOUT_S)
        before = cpu_counters(child.pid)
        figures = _publish(publisher, load, fanout, bench.seconds)
        cpu = cpu_counters(child.pid) - before
    return PushRun(
        int(figures["messages"]),
        figures["seconds"],
        figures["p50_us"],
        figures["p99_us"],
        figures["p999_us"],
        cpu,
        figures["skew_p50_us"],
        figures["skew_p99_us"],
    )


def run_push_idle(bench: Bench, server: Contestant, subscribers: int) -> float:
    """Return the bytes of server memory per idle subscriber.

    Each has got one message before it falls idle. The first 200 are not counted: they pay for what a server
    allocates once.

    Raises:
        BenchError: the server or the load failed, or a subscriber did not get its message.
    """
    with (
        publishing(bench, server) as (child, port, publisher),
        subscribed(bench, server.name, port, IDLE_WARMUP_CONNECTIONS, IDLE_MESSAGE_BYTES) as first,
    ):
        publisher.expect_subscribers(IDLE_WARMUP_CONNECTIONS)
        _publish(publisher, first, paced(IDLE_WARMUP_CONNECTIONS, IDLE_MESSAGE_BYTES), 0)
        before_bytes = settled_bytes(lambda: anonymous_bytes(child.pid))
        with subscribed(bench, server.name, port, subscribers, IDLE_MESSAGE_BYTES) as load:
            publisher.expect_subscribers(IDLE_WARMUP_CONNECTIONS + subscribers)
            _publish(publisher, load, paced(subscribers, IDLE_MESSAGE_BYTES), 0)
            after_bytes = settled_bytes(lambda: anonymous_bytes(child.pid))
    return (after_bytes - before_bytes) / subscribers
