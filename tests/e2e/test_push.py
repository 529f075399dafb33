"""The push handler through `gaiod serve`: every source, every framing, and what a reload leaves alone."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core.support.sockets import reset
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.redis import RedisServer
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

HEAD = 'metrics: {listen: "127.0.0.1:0"}\nworkers: 2\ndrain_timeout: 10s\nlisteners:\n'


def listener(with_: str, name: str = "ticks") -> str:
    """Return a push listener's part of a configuration."""
    return f'  {name}: {{bind: "127.0.0.1:0", handler: push, with: {{{with_}}}}}\n'


@contextmanager
def subscriber(running: Daemon, *topics: str) -> Iterator[socket.socket]:
    """Give a client that has a listener's topic, or these, from now on."""
    before = running.scrape().total("gaiod_push_subscribers")
    with connect(running.address("ticks")) as sock:
        sock.settimeout(LIMIT_S)
        if topics:
            sock.sendall(f"SUBSCRIBE {' '.join(topics)}\n".encode())
        wait_until(lambda: running.scrape().total("gaiod_push_subscribers") > before, "the subscription")
        yield sock
        reset(sock)  # a FIN would end it later
    wait_until(lambda: running.scrape().total("gaiod_push_subscribers") == before, "the end of the subscription")


def line_of(sock: socket.socket) -> bytes:
    """Return the next line, byte by byte: what comes behind it stays."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        assert byte, f"the connection ended, with {line!r}"
        line += byte
    return line


def source_states(running: Daemon) -> dict[str, bool]:
    """Return whether each source is up, as `gaiod status` has it."""
    return {row["source"]: row["up"] for row in running.ask("status")["sources"]}


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that runs."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def test_messages_of_every_source_reach_a_subscriber(daemon: Start, tmp_path: Path, redis_server: RedisServer) -> None:
    file, fifo, inbox, http = (tmp_path / name for name in ("file", "fifo", "inbox", "http"))
    file.write_text("before\n")
    os.mkfifo(fifo)
    sources = [
        '{name: clock, topic: clock, every: 10ms, message: "tick {sequence}"}',
        f"{{name: file, topic: file, lines: {file}}}",
        f"{{name: fifo, topic: fifo, lines: {fifo}}}",
        f'{{name: inbox, topic: inbox, lines: "unix:{inbox}"}}',
        f'{{name: http, http: "unix:{http}"}}',
        f'{{name: channels, redis: "{redis_server.url}", channels: ["c.*"]}}',
        f'{{name: streams, redis: "{redis_server.url}", streams: [orders]}}',
    ]
    running = daemon(HEAD + listener(f"subscribe: {{topics_max: 20}}, source: [{', '.join(sources)}]"))
    names = ["publish", "clock", "file", "fifo", "inbox", "http", "channels", "streams"]
    wait_until(lambda: source_states(running) == dict.fromkeys(names, True), "every source being up")
    with subscriber(running, "clock") as sock:
        first = int(line_of(sock).split()[1])
        assert [line_of(sock) for _ in range(3)] == [b"tick %d\n" % (first + number) for number in (1, 2, 3)]
    with subscriber(running, "file", "fifo", "inbox", "posts", "c.news", "orders", "by-hand") as sock:
        with file.open("a") as appended:
            appended.write("of the file\n")
        assert line_of(sock) == b"of the file\n"
        fifo.write_text("of the FIFO\n")
        assert line_of(sock) == b"of the FIFO\n"
        with socket.socket(socket.AF_UNIX) as producer:
            producer.connect(str(inbox))
            producer.sendall(b"of the socket\n")
            assert line_of(sock) == b"of the socket\n"
        post = ["curl", "-sf", "--unix-socket", str(http), "--data-binary", "of curl", "http://gaiod/posts"]
        subprocess.run(post, check=True, timeout=LIMIT_S)
        assert line_of(sock) == b"of curl\n"
        redis_server.do("PUBLISH", "c.news", "of a channel")
        assert line_of(sock) == b"of a channel\n"
        redis_server.do("XADD", "orders", "*", "message", "of a stream")
        assert line_of(sock) == b"of a stream\n"
        assert running.gaiod("publish", "by-hand", "by hand").returncode == 0
        assert line_of(sock) == b"by hand\n"
    samples = running.scrape()
    for name in ("file", "fifo", "inbox", "http", "channels", "streams", "publish"):
        assert samples.value("gaiod_push_published_total", listener="ticks", source=name) == 1
    assert samples.value("gaiod_push_deliveries_total", listener="ticks") >= 7


def test_standard_input_is_a_source(daemon: Start) -> None:
    """Of a daemon in a pipe; the tests' own has none to read: it ends at once, and is not down for that."""
    running = daemon(HEAD + listener('source: {lines: "-"}'))
    wait_until(lambda: "standard input has ended" in running.log(), "its end")
    assert source_states(running) == {"publish": True, "lines": True}
    with subscriber(running) as sock:
        assert running.gaiod("publish", "default", "all the same").returncode == 0
        assert line_of(sock) == b"all the same\n"


@pytest.mark.parametrize(
    ("framing", "message", "wanted"),
    [
        ("lines", "hello", b"hello\n"),
        ("length_prefixed", "two\nlines", struct.pack(">I", 9) + b"two\nlines"),
        ("raw", "hello", b"hello"),
    ],
)
def test_framing_tells_messages_apart(daemon: Start, framing: str, message: str, wanted: bytes) -> None:
    running = daemon(HEAD + listener(f"framing: {framing}"))
    with subscriber(running) as sock:
        assert running.gaiod("publish", "default", message).returncode == 0
        assert sock.recv(len(wanted), socket.MSG_WAITALL) == wanted


def test_last_value_greets_a_new_subscriber(daemon: Start) -> None:
    running = daemon(HEAD.replace("workers: 2", "workers: 1") + listener("topic: price, last_value: true"))
    for value in ("1.20", "1.25"):
        assert running.gaiod("publish", "price", value).returncode == 0
    with subscriber(running) as sock:
        assert line_of(sock) == b"1.25\n"


STALE_MAX_BYTES = 1 << 20
"""What its own kernel has for a subscriber on the loopback that has not read for a while, generously."""


def test_subscriber_that_reads_again_gets_little_that_is_out_of_date_and_then_the_latest(
    daemon: Start, tmp_path: Path
) -> None:
    """Neither do MiB wait in the kernel, nor is the latest missing behind a message that was begun."""
    inbox = tmp_path / "inbox"
    slow = "slow_consumer: {policy: latest_only, limit: 64KiB}"
    running = daemon(HEAD + listener(f'{slow}, source: {{lines: "unix:{inbox}"}}'))
    wait_until(lambda: inbox.exists() and source_states(running)["lines"], "the source")
    with subscriber(running) as sock, socket.socket(socket.AF_UNIX) as producer:
        producer.connect(str(inbox))
        for number in range(2000):
            producer.sendall(b"%08d%s\n" % (number, b"x" * 8000))

        def have_come() -> bool:
            samples = running.scrape()
            return samples.value("gaiod_push_published_total", listener="ticks", source="lines") == 2000

        wait_until(have_come, "all of them being published")
        size = 0
        with sock.makefile("rb") as lines:
            while not (line := lines.readline()).startswith(b"00001999"):
                size += len(line)
        assert size < STALE_MAX_BYTES


def test_subscription_that_is_wrong_is_answered_and_ended(daemon: Start) -> None:
    running = daemon(HEAD + listener("subscribe: {topics: [news, sport]}"))
    with connect(running.address("ticks")) as sock:
        sock.sendall(b"SUBSCRIBE news weather\n")
        sock.shutdown(socket.SHUT_WR)
        said = line_of(sock)
        assert said.startswith(b"ERROR ")
        assert b"weather" in said
        assert sock.recv(1) == b""
    assert running.scrape().total("gaiod_push_subscribers") == 0


def test_reload_leaves_subscribers_and_unchanged_sources_alone(daemon: Start, tmp_path: Path) -> None:
    """The clock goes on counting, and whoever is there goes on getting what it says."""
    clock = 'source: {every: 10ms, message: "{sequence}"}'
    running = daemon(HEAD + listener(clock))
    with subscriber(running) as old:
        before = int(line_of(old))
        (tmp_path / "gaiod.yaml").write_text(HEAD + listener(clock) + listener("topic: more", name="more"))
        assert running.gaiod("reload").returncode == 0
        assert running.gaiod("publish", "more", "to the new listener").returncode == 0
        with subscriber(running) as new:
            after = int(line_of(new))
            assert after > before
            numbers = [int(line_of(old)) for _ in range(after - before + 5)]
            assert numbers == list(range(before + 1, after + 6))
            assert [int(line_of(new)) for _ in range(3)] == [after + 1, after + 2, after + 3]
