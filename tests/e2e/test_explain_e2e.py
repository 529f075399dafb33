"""`gaiod explain`: where a connection stands, and why it closed, as an operator is told."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import reset
from core.support.waiting import TIME_UNIT

from e2e.support.clients import connect, exchange, is_ended
from e2e.support.daemons import ECHO, Daemon
from e2e.support.handlers import FLOODS, RAISES_WHEN_TOLD, beside
from e2e.support.starting import Start
from e2e.support.upstreams import address_of, config, pair, upstreams
from e2e.support.waiting import wait_until
from gaiod.control.protocol import ControlError
from gaiod.core import ENGINE

ENGINES = ["interpreted"] if ENGINE == "interpreted" else ["compiled", "interpreted"]


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the sockets that it is given."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a daemon: what workers are asked, both engines answer."""
    return {"GAIOD_ENGINE": request.param}


def _id(running: Daemon) -> str:
    """Return the name of the only connection."""

    def look() -> str | None:
        rows = running.ask("connections")["connections"]
        return rows[0]["id"] if rows else None

    found = wait_until(look, "a connection")
    assert found is not None
    return found


def _explain(running: Daemon, name: str) -> str:
    done = running.gaiod("explain", name)
    assert done.returncode == 0, done
    return done.stdout


def _closed(running: Daemon, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told = running.ask("explain", connection=name)
        return told if told["state"] == "closed" else None

    told = wait_until(look, f"the end of {name}")
    assert told is not None
    return told


def test_client_that_does_not_read_is_who_is_waited_for(
    daemon: Start, clients: ExitStack, tmp_path: Path, engine: dict[str, str]
) -> None:
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside(), environment=engine)
    sock = clients.enter_context(connect(running.address("mine")))
    name = _id(running)
    wait_until(lambda: running.ask("explain", connection=name)["sides"][0]["blocked_s"], "a stall")
    text = _explain(running, name)
    assert f"connection {name} is open: listener mine, worker 0, from {'{}:{}'.format(*sock.getsockname())}" in text
    assert "MiB wait for the client, who has taken nothing for " in text
    assert "Reading: the handler asks for nothing from the client now." in text
    assert " in its send queue, 0 B not read yet." in text
    assert "TCP: established, round trip" in text
    peer = "{}:{}".format(*sock.getsockname())
    reset(sock)
    told = _closed(running, name)
    assert (told["reason"], told["peer"]) == ("peer_reset", peer), "the kernel knows whom, although he is gone"


def test_proxy_whose_server_does_not_read_is_told_on_both_sides(
    daemon: Start, clients: ExitStack, engine: dict[str, str]
) -> None:
    with upstreams(1) as (server,):
        running = daemon(config(f"servers: [{address_of(server)}], buffer_limit: 64KiB"), environment=engine)
        client, far = pair(running, server)
        clients.enter_context(client)
        clients.enter_context(far)
        client.setblocking(False)
        name = _id(running)

        def stalls() -> bool:
            try:
                client.send(bytes(1 << 20))
            except BlockingIOError:
                pass
            reading = running.ask("explain", connection=name)["sides"][0]["reading"]
            return bool(reading and reading["held_bytes"])

        wait_until(stalls, "a server that is waited for")
        told = running.ask("explain", connection=name)
        downstream, upstream = told["sides"]
        assert 0 < downstream["reading"]["held_bytes"] <= downstream["reading"]["limit_bytes"] == 64 * 1024
        assert downstream["reading"]["to"] == upstream["id"]
        assert upstream["pending_bytes"] == downstream["reading"]["held_bytes"]
        text = _explain(running, name)
        assert "because the server has not taken " in text
        assert "(at most 64.0 KiB)" in text
        assert re.search(r"[0-9.]+ (B|KiB) wait for the server, who has taken nothing for ", text), text
        assert "Its server is 127.0.0.1:" in text
        assert _explain(running, upstream["id"]).count(f"connection {name}") == 1, "from the other end, too"
        (row,) = running.ask("connections", sort="stalled")["connections"]
        assert row["waiting_s"] > 0
        listener = running.ask("status")["listeners"][0]
        assert listener["backpressure"]["upstream"]["paused_connections"] == 1
        assert listener["backpressure"]["upstream"]["buffered_bytes"] == row["buffered_bytes"]


def test_proxied_client_that_waits_for_a_server_says_which(daemon: Start, clients: ExitStack) -> None:
    """A listener of which the queue is full answers no SYN."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        running = daemon(config(f"servers: [{address_of(full)}], connect_timeout: 60s"))
        clients.enter_context(connect(running.address("db")))
        text = _explain(running, _id(running))
        assert "It is being connected to 127.0.0.1:" in text
        assert "It is being connected; that ends in " in text


def test_subscriber_that_does_not_read_is_told_with_what_waits_for_it(
    daemon: Start, clients: ExitStack, engine: dict[str, str]
) -> None:
    push = (
        'metrics: {listen: "127.0.0.1:0"}\n'
        'listeners: {news: {bind: "127.0.0.1:0", handler: push, with: {topic: news, slow_consumer: {limit: 64MiB}}}}\n'
    )
    running = daemon(push, environment=engine)
    clients.enter_context(connect(running.address("news")))
    name = _id(running)
    assert "Subscribed to news: nothing waits." in _explain(running, name)

    def waits() -> bool:
        for _ in range(50):
            running.ask("publish", topic="news", message="x" * 40_000, listener=None)
        return bool(running.ask("explain", connection=name)["sides"][0]["group"]["waiting_messages"])

    wait_until(waits, "messages that wait")
    text = _explain(running, name)
    assert "Subscribed to news: " in text
    assert "of at most 64.0 MiB (disconnect); nothing was taken for " in text


@pytest.mark.parametrize(
    ("end", "reason", "sentence"),
    [
        (lambda running, sock, name: sock.close(), "peer_eof", "The client sent its end"),
        (lambda running, sock, name: reset(sock), "peer_reset", "The client reset it"),
        (lambda running, sock, name: running.gaiod("kill", name), "admin", "An operator closed it"),
        (lambda running, sock, name: sock.sendall(b"raise"), "handler_error", "A hook of its handler raised"),
        (lambda running, sock, name: None, "idle", "Nothing moved for idle_timeout"),
    ],
    ids=["peer_eof", "peer_reset", "admin", "handler_error", "idle"],
)
def test_closed_connection_says_what_closed_it(
    daemon: Start, clients: ExitStack, tmp_path: Path, end: Any, reason: str, sentence: str
) -> None:
    (tmp_path / "mine.py").write_text(RAISES_WHEN_TOLD)
    idle_s = 2 if reason == "idle" else 60  # on a busy machine, a client's first bytes may come a second late
    idle = f"    idle_timeout: {idle_s * TIME_UNIT:g}s\n"
    running = daemon("log: {connections: {open: true}}\n" + beside(idle))
    sock = clients.enter_context(connect(running.address("mine")))
    peer = "{}:{}".format(*sock.getsockname())
    assert exchange(sock, b"ping") == b"ping"
    running.wait_for("conn=")
    name = running.log().partition("conn=")[2].split()[0]  # a question might come after the idle one's end
    end(running, sock, name)
    told = _closed(running, name)
    assert (told["reason"], told["peer"], told["listener"]) == (reason, peer, "mine")
    assert told["received_bytes"] == (9 if reason == "handler_error" else 4)
    text = _explain(running, name)
    assert f"connection {name} is closed: {reason}\n  {sentence}" in text
    assert f"It was from {peer}, on listener mine, worker 0." in text
    assert json.loads(running.gaiod("explain", name, "--json").stdout)["reason"] == reason


def test_connection_that_drains_goes_on_being_explained(daemon: Start, clients: ExitStack) -> None:
    running = daemon(f"drain_timeout: 60s\nhandover: {{enabled: false}}\n{ECHO}")
    sock = clients.enter_context(connect(running.address()))
    assert exchange(sock, b"ping") == b"ping"
    name = _id(running)
    assert running.gaiod("reload").returncode == 0
    assert "is open: listener echo" in _explain(running, name)
    sock.close()
    wait_until(lambda: len(running.ask("status")["workers"]) == 1, "the end of the old worker")
    assert f"connection {name} is closed: peer_eof" in _explain(running, name)


def test_closed_connection_is_remembered_over_death_reload_recycling_and_upgrade(
    daemon: Start, clients: ExitStack
) -> None:
    """What closes in the old daemon after the upgrade is, too."""
    running = daemon(f"drain_timeout: 60s\nhandover: {{enabled: false}}\n{ECHO}")
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        name = _id(running)
    told = _closed(running, name)
    os.kill(running.workers[0], signal.SIGKILL)

    def remembered() -> bool:
        again = running.ask("explain", connection=name)
        return {key: told[key] for key in told if key != "closed_ago_s"} == {
            key: again[key] for key in again if key != "closed_ago_s"
        }

    wait_until(lambda: len(running.workers) == 1, "another worker")
    assert remembered()
    assert running.gaiod("reload").returncode == 0
    assert remembered()
    assert running.gaiod("workers", "restart").returncode == 0
    assert remembered()
    last = clients.enter_context(connect(running.address()))
    assert exchange(last, b"ping") == b"ping"
    later = _id(running)
    new = running.ask("upgrade")["pid"]
    try:
        assert remembered()
        last.close()
        assert _closed(running, later)["reason"] == "peer_eof"
        assert running.wait() == 0
        assert _closed(running, later)["reason"] == "peer_eof"
    finally:
        os.kill(new, signal.SIGTERM)


def test_connection_that_nobody_knows_is_an_error(daemon: Start) -> None:
    running = daemon()
    done = running.gaiod("explain", "1-999999")
    assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")
    assert "it closed longer ago than is remembered, was lost with its worker, or never was" in done.stderr
    assert running.gaiod("explain", "nonsense").returncode == os.EX_USAGE
    with pytest.raises(ControlError):
        running.ask("explain", connection="x")


def test_asking_costs_the_connection_nothing(daemon: Start, clients: ExitStack, engine: dict[str, str]) -> None:
    running = daemon(environment=engine)
    sock = clients.enter_context(connect(running.address()))
    assert exchange(sock, b"ping") == b"ping"
    name = _id(running)
    for _ in range(20):
        assert running.ask("explain", connection=name)["state"] == "open"
        assert exchange(sock, b"still") == b"still"
    sock.shutdown(socket.SHUT_WR)
    assert is_ended(sock)
