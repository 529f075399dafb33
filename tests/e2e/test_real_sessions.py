"""Sessions of real servers survive reloads that change the options of their listener, and an upgrade."""

import os
import re
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.postgres import PostgresServer, client, postgres
from e2e.support.programs import serving
from e2e.support.redis import RedisServer
from e2e.support.starting import Start
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

RELOADS = 5
LONG_S = 6 * LIMIT_S

HEAD = 'metrics: {listen: "127.0.0.1:0"}\nworkers: 2\ndrain_timeout: 1s\nlisteners:\n'
"""What is not handed over would be cut within a second."""


def changed(running: Daemon, folder: Path, config: Callable[[int], str]) -> None:
    """Reload a few times, with other options each time, and upgrade; nobody may be cut by any of that."""
    for number in range(1, RELOADS + 1):
        (folder / "gaiod.yaml").write_text(config(number))
        done = running.gaiod("reload", limit_s=LONG_S)
        assert (done.returncode, "changed: with." in done.stdout) == (0, True), done
        settle(running)
    assert running.gaiod("upgrade", limit_s=LONG_S).returncode == 0
    assert running.wait() == 0, running.log()


def settle(running: Daemon) -> None:
    """Wait until the workers of before have ended."""
    wait_until(lambda: all(row["state"] == "serving" for row in running.ask("status")["workers"]), "their end", LONG_S)


def stays(running: Daemon) -> list[str]:
    """Return what the log says of connections that were not handed over."""
    return re.findall(r"handed .* stay: .*", running.log())


@contextmanager
def ended(running: Daemon) -> Iterator[None]:
    """End the daemon that it was upgraded to."""
    yield
    os.kill(running.ask("status")["pid"], signal.SIGTERM)


class Program:
    """A program that runs meanwhile, and what it says."""

    def __init__(self, command: Sequence[str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file)

    def say(self, text: str) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def said(self) -> str:
        """Return what it has said."""
        return self._output.read_text()

    def end(self) -> str:
        """Close its input, wait for it, and return what it has said."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(LONG_S) == 0, self.said()
        return self.said()

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait(LIMIT_S)
        assert self._process.stdin is not None
        self._process.stdin.close()


@contextmanager
def programs(folder: Path) -> Iterator[Callable[..., Program]]:
    """Give what runs programs; they end with the test."""
    with ExitStack() as stack:
        count = 0

        def run(*command: str) -> Program:
            nonlocal count
            count += 1
            program = Program(command, folder / f"program-{count}.log")
            stack.callback(program.kill)
            return program

        yield run


# -- PostgreSQL ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL that runs."""
    with postgres() as server:
        yield server


SLEEPS = "DO $$BEGIN WHILE NOT EXISTS (SELECT FROM kept WHERE n = 0) LOOP PERFORM pg_sleep(0.05); END LOOP; END$$"
"""One statement, which runs until somebody else has added a row."""


def bench_on(port: int, has_ended: threading.Event) -> list[str]:
    """Have pgbench run again and again, for a few seconds each time; return what it has said."""
    said = []
    while not has_ended.is_set():
        command = client("pgbench", port, "-n", "-c", "4", "-T", "5")
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=False)
        said.append(done.stdout)
        assert done.returncode == 0, done
    return said


def test_postgresql_sessions_survive(daemon: Start, tmp_path: Path, database: PostgresServer) -> None:
    """A running query, a COPY in either direction, a LISTEN, an open transaction, and transactions all the time."""

    def config(number: int) -> str:
        servers = f'servers: ["127.0.0.1:{database.port}"], connect_timeout: {5 + number}s'
        return HEAD + f'  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{{servers}}}}}\n'

    running = daemon(config(0))
    port = int(running.address("db").rpartition(":")[2])
    database.psql("CREATE TABLE rows (n int); CREATE TABLE kept (n int)")
    database.pgbench("-i", "-q")
    psql = client("psql", port, "-qtAX", "-v", "ON_ERROR_STOP=1")
    with ended(running), programs(tmp_path) as run:
        sleeps = run(*psql, "-c", SLEEPS)
        listens = run(*psql)
        listens.say("LISTEN news;\nSELECT 'listens';\n")
        copies = run(*psql, "-c", "COPY rows FROM STDIN")
        copies.say("0\n")
        commits = run(*psql)
        commits.say("BEGIN;\nINSERT INTO kept VALUES (1);\nSELECT 'inserted';\n")
        wait_until(lambda: "listens" in listens.said() and "inserted" in commits.said(), "the sessions")
        for number in range(1, RELOADS + 1):
            copies.say(f"{number}\n")
        with ThreadPoolExecutor(1) as pool:
            has_ended = threading.Event()
            benches = pool.submit(bench_on, port, has_ended)
            try:
                changed(running, tmp_path, config)
            finally:
                has_ended.set()
            for said in benches.result():
                assert "number of failed transactions: 0 " in said
                assert "aborted" not in said
        copies.say(f"{RELOADS + 1}\n")
        copies.end()
        assert database.psql("SELECT count(*), sum(n) FROM rows").stdout == "7|21\n"
        database.psql("NOTIFY news, 'after all of it'")
        listens.say("SELECT 'still there';\n")
        assert 'notification "news" with payload "after all of it"' in listens.end()
        commits.say("INSERT INTO kept VALUES (2);\nCOMMIT;\n")
        commits.end()
        assert database.psql("SELECT sum(n) FROM kept").stdout == "3\n"
        database.psql("INSERT INTO kept VALUES (0)")
        sleeps.end()
    assert not stays(running)


def test_large_result_of_postgresql_arrives_whole(daemon: Start, tmp_path: Path, database: PostgresServer) -> None:
    """Its reader is slow, so that the proxy and the kernel hold a part of it all the time."""

    def config(number: int) -> str:
        servers = f'servers: ["127.0.0.1:{database.port}"], connect_timeout: {5 + number}s'
        return HEAD + f'  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{{servers}}}}}\n'

    running = daemon(config(0))
    port = int(running.address("db").rpartition(":")[2])
    rows = 3_000_000
    command = client("psql", port, "-qtAX", "-c", f"COPY (SELECT generate_series(1, {rows})) TO STDOUT")
    with ended(running), subprocess.Popen(command, stdout=subprocess.PIPE) as reads:
        assert reads.stdout is not None
        first = reads.stdout.readline()
        changed(running, tmp_path, config)
        assert [first, *reads.stdout] == [b"%d\n" % number for number in range(1, rows + 1)]
    assert reads.returncode == 0
    assert not stays(running)


# -- Redis -----------------------------------------------------------------------------------------------


class Rhythm(threading.Thread):
    """Has a number more each time, so many times a second, until `stop`.

    Attributes:
        count: the last number.
    """

    def __init__(self, per_second: int, do: Callable[[int], object]) -> None:
        super().__init__()
        self.count = 0
        self._pause_s = 1 / per_second
        self._do = do
        self._ends = threading.Event()

    def run(self) -> None:
        due_s = time.monotonic()
        while not self._ends.wait(max(0.0, due_s - time.monotonic())):
            self._do(self.count + 1)
            self.count += 1
            due_s += self._pause_s

    def stop(self) -> int:
        """End it; return the last number."""
        self._ends.set()
        self.join()
        return self.count


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that runs."""
    tool("redis-server", "redis-server")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def test_redis_subscriptions_and_monitor_survive(daemon: Start, tmp_path: Path, redis_server: RedisServer) -> None:
    def config(number: int) -> str:
        servers = f'servers: ["unix:{redis_server.path}"], connect_timeout: {5 + number}s'
        return HEAD + f'  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{{servers}}}}}\n'

    running = daemon(config(0))
    port = running.address("db").rpartition(":")[2]
    cli = (tool("redis-cli", "redis-tools"), "-p", port)
    with ended(running), programs(tmp_path) as run, redis_server.client() as publisher:
        subscribed, matched, monitor = (
            run(*cli, "SUBSCRIBE", "news"),
            run(*cli, "PSUBSCRIBE", "n*"),
            run(*cli, "MONITOR"),
        )
        wait_until(lambda: "news" in subscribed.said() and "n*" in matched.said() and "OK" in monitor.said(), "them")
        rhythm = Rhythm(200, lambda number: publisher.publish("news", f"message {number}"))
        rhythm.start()
        try:
            changed(running, tmp_path, config)
        finally:
            last = rhythm.stop()
        wanted = [f"message {number}" for number in range(1, last + 1)]
        for program in (subscribed, matched, monitor):
            wait_until(lambda program=program: wanted[-1] in program.said(), "the last message")  # type: ignore[misc]
            assert re.findall(r"message \d+", program.said()) == wanted
    assert not stays(running)


# -- push behind haproxy -----------------------------------------------------------------------------------

SUBSCRIBERS = 300
PER_SECOND = 50

HAPROXY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend all
    bind unix@{socket}
    default_backend gaiod
backend gaiod
    server one {address}
"""


class Subscribers(threading.Thread):
    """Clients that get the same messages, and remember what came."""

    def __init__(self, address: str, count: int) -> None:
        super().__init__()
        self.socks = [connect(address) for _ in range(count)]
        self._got = {sock: bytearray() for sock in self.socks}
        self._ends = threading.Event()
        self.ended = 0

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in self.socks:
                selector.register(sock, selectors.EVENT_READ)
            while not self._ends.is_set():
                for key, _ in selector.select(0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    sock = key.fileobj
                    data = sock.recv(65536)
                    self._got[sock] += data
                    if not data:
                        self.ended += 1
                        selector.unregister(sock)

    def have(self, line: bytes) -> bool:
        """Tell whether all have got it, or have ended."""
        return all(got.endswith(line) for got in self._got.values())

    def stop(self) -> list[bytes]:
        """End; return what each has got."""
        self._ends.set()
        self.join()
        for sock in self.socks:
            sock.close()
        return [bytes(got) for got in self._got.values()]


def test_push_subscribers_behind_haproxy_miss_nothing(daemon: Start, tmp_path: Path, redis_server: RedisServer) -> None:
    def config(number: int) -> str:
        source = f'source: {{redis: "{redis_server.url}", streams: [ticks]}}'
        options = f"subscribe: false, topic: ticks, {source}, slow_consumer: {{limit: {16 + number}MiB}}"
        return HEAD + f'  ticks: {{bind: "127.0.0.1:0", handler: push, with: {{{options}}}}}\n'

    haproxy = tool("haproxy", "haproxy")
    running = daemon(config(0))
    front = tmp_path / "front.sock"
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(socket=front, address=running.address("ticks")))
    command = [haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")]
    with ended(running), serving(tmp_path, command, f"unix:{front}"), redis_server.client() as publisher:
        subscribers = Subscribers(f"unix:{front}", SUBSCRIBERS)
        wait_until(lambda: running.scrape().total("gaiod_push_subscribers") >= SUBSCRIBERS, "the subscriptions")
        wait_until(lambda: all(row["up"] for row in running.ask("status")["sources"]), "the source")
        subscribers.start()
        rhythm = Rhythm(PER_SECOND, lambda number: publisher.xadd("ticks", {"message": str(number)}))
        rhythm.start()
        try:
            changed(running, tmp_path, config)
            last = rhythm.stop()
            wait_until(lambda: subscribers.have(b"\n%d\n" % last), "the last message", LONG_S)
        finally:
            rhythm.stop()
            got = subscribers.stop()
        assert subscribers.ended == 0
        wanted = b"".join(b"%d\n" % number for number in range(1, last + 1))
        assert [each == wanted for each in got] == [True] * SUBSCRIBERS
    assert not stays(running)
