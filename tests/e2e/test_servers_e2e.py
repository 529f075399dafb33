"""A handler with servers: what it counts of them is exported, and outlives its workers and its configuration."""

import os
import signal
from pathlib import Path

from core.support.sockets import receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import Samples, connect
from e2e.support.daemons import Daemon
from e2e.support.handlers import IMPORTS, beside
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

COUNTS = (
    IMPORTS
    + """
import threading


@dataclass
class Options:
    servers: list[str]
    buffer: gaiod.Size = 65536


class Counts(gaiod.Handler):
    \"\"\"Does as the first line of a client says: `METHOD SERVER ARGUMENT` or `count NAME AMOUNT`.\"\"\"

    Options = Options

    @classmethod
    def servers_of(cls, options):
        return tuple(options.servers)

    @classmethod
    def buffer_limit_of(cls, options):
        return options.buffer

    def on_start(self):
        self.timer(0.0, self.options.servers[0])
        threading.Thread(target=self.post, args=(self.options.servers[-1],)).start()

    def on_timer(self, data):
        self.server(data).checked(True)

    def on_post(self, data):
        self.server(data).checked(False)

    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        what, name, argument = bytes(result.buffer).decode().split()
        if what == "count":
            self.count(name, int(argument))
        elif what == "down":
            self.server(name).up = False
        elif what == "connected":
            self.server(name).connected(float(argument))
        else:
            self.server(name).failed(argument)
        conn.write(b"done")

    def on_write(self, conn, result):
        conn.read()
"""
)


def _config(*servers: str) -> str:
    return beside(f"    with: {{servers: [{', '.join(servers)}]}}\n")


def _tell(running: Daemon, *lines: str) -> None:
    """Have a worker count, and close the connection."""
    with connect(running.address("mine")) as sock:
        for line in lines:
            sock.sendall(line.encode())
            assert receive(sock, 4) == b"done"


def _of(samples: Samples, name: str, server: str, **labels: str) -> float:
    return samples.value(f"gaiod_upstream_{name}", upstream="mine", server=server, **labels)


def _checks(running: Daemon) -> int:
    """Return how many checks were counted: one of a timer and one of a post for each worker that has begun."""
    return int(running.scrape().total("gaiod_upstream_health_checks_total"))


def test_what_a_handler_counts_is_exported_and_outlives_its_worker(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTS)
    running = daemon(_config("one", "two"))
    wait_until(lambda: _checks(running) == 2, "the timer and the post")
    lines = ["connected one 0.002"] * 3 + ["failed two refused", "down two -"]
    _tell(running, *lines, "count upstream_retries 2", "count upstream_queued 5")

    before = running.scrape()
    assert _of(before, "health_checks_total", "one", result="passed") == 1
    assert _of(before, "health_checks_total", "two", result="failed") == 1
    assert [_of(before, name, "one") for name in ("connections_total", "connections_active", "up")] == [3, 3, 1]
    assert _of(before, "connect_failures_total", "two", reason="refused") == 1
    assert _of(before, "up", "two") == 0
    assert before.value("gaiod_upstream_connect_duration_seconds_count", upstream="mine") == 3
    assert before.value("gaiod_upstream_retries_total", upstream="mine") == 2
    assert before.value("gaiod_upstream_queue_length", upstream="mine") == 5
    assert before.value("gaiod_buffer_limit_bytes", listener="mine", side="upstream") == 65536

    os.kill(running.worker, signal.SIGKILL)
    wait_until(lambda: _checks(running) == 4, "another worker's start")
    after = running.scrape()
    assert [_of(after, name, "one") for name in ("connections_total", "connections_active", "up")] == [3, 0, 1]
    assert _of(after, "connect_failures_total", "two", reason="refused") == 1
    assert _of(after, "up", "two") == 1, "the one that said it was down is gone"
    assert after.value("gaiod_upstream_retries_total", upstream="mine") == 2
    assert after.value("gaiod_upstream_queue_length", upstream="mine") == 0


def test_server_that_stays_keeps_its_counts_over_a_reload_and_one_that_goes_does_not(
    daemon: Start, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(COUNTS)
    running = daemon(_config("one", "two"))
    _tell(running, "connected one 0.1", "connected two 0.1", "connected two 0.1")
    for servers in (["three", "two"], ["two", "one"]):
        (old,) = running.workers
        (tmp_path / "gaiod.yaml").write_text(_config(*servers))
        running.ask("reload")
        wait_until(lambda old=old: old not in running.workers, "the old worker's end", limit_s=LIMIT_S)  # type: ignore[misc]
        samples = running.scrape()
        labels = samples.labels("gaiod_upstream_connections_total")
        assert sorted(each["server"] for each in labels) == sorted(servers)
        assert _of(samples, "connections_total", "two") == 2
    assert _of(samples, "connections_total", "one") == 0, "it was forgotten when it was not configured"


def test_servers_that_are_called_the_same_are_refused_with_their_place(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTS)
    running = daemon(_config("one", "one"), ready=False)
    assert running.wait() == 78
    assert "gaiod.yaml:6:11: listeners.mine.with: has 2 servers called 'one'; give each a name" in running.log()
