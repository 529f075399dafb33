"""A push listener whose messages are lines that the test writes to a unix socket of its."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from e2e.support.clients import Samples, connect
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.audience import Audience

PUSH = """\
workers: {workers}
drain_timeout: 5s
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  ticks:
    bind: "127.0.0.1:0"
    handler: push
    backlog: 4096
    with: {{topic: ticks, {with_}}}
"""


def push_config(with_: str, *, workers: int = 1) -> str:
    """Return a configuration with one push listener, `ticks`; `with_` is its `with:` but the topic."""
    return PUSH.format(workers=workers, with_=with_)


class Channel:
    """Where the test's lines go in."""

    def __init__(self, path: Path) -> None:
        def dial() -> socket.socket | None:
            try:
                return connect(f"unix:{path}")
            except (FileNotFoundError, ConnectionRefusedError):  # it is bound, and a moment later it listens
                return None

        sock = wait_until(dial, "the source's socket")
        assert sock is not None
        self._sock = sock

    def publish(self, data: bytes) -> None:
        """Hand over whole lines; wait while workers are behind."""
        self._sock.sendall(data)

    def close(self) -> None:
        """Disconnect."""
        self._sock.close()


@contextmanager
def pushed(daemon: Start, with_: str, *, workers: int = 1) -> Iterator[tuple[Daemon, Channel]]:
    """Give a daemon, and the channel of its listener."""
    with TemporaryDirectory() as folder:  # pytest's folders have names too long for a socket
        path = Path(folder) / "in.sock"
        running = daemon(push_config(f"source: {{lines: 'unix:{path}'}}, {with_}", workers=workers))
        channel = Channel(path)
        try:
            yield running, channel
        finally:
            channel.close()


def wait_for_subscribers(running: Daemon, count: int) -> None:
    """Wait until so many have the topic."""
    wait_until(lambda: subscribers(running.scrape()) == count, f"{count} subscribers")


def subscribers(samples: Samples) -> float:
    """Return how many have a topic, of all workers."""
    return samples.total("gaiod_push_subscribers", listener="ticks")


def deliveries(samples: Samples) -> float:
    """Return how many messages the kernel has taken, each counted once for each subscriber."""
    return samples.value("gaiod_push_deliveries_total", listener="ticks")


def dropped(samples: Samples) -> dict[str, float]:
    """Return how many messages subscribers did not get, by why."""
    name = "gaiod_push_dropped_total"
    found = {labels["reason"]: samples.value(name, **labels) for labels in samples.labels(name)}
    return {reason: value for reason, value in found.items() if value}


def take_what_waits(running: Daemon, audience: Audience) -> None:
    """Have the slow ones read until nothing waits for them."""

    def look() -> bool:
        for each in audience.slow:
            each.sock.setblocking(False)
            while each.read():
                pass
        return running.scrape().value("gaiod_push_queued_bytes", listener="ticks") == 0

    wait_until(look, "empty queues")
