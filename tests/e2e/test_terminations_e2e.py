"""Who ended a connection, and where: what the log says of real connections, each ended in another way."""

import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import listen, reset

from e2e.support.clients import connect, is_ended
from e2e.support.daemons import Daemon
from e2e.support.handlers import FLOODS
from e2e.support.starting import Start
from e2e.support.upstreams import accept, address_of, upstreams
from e2e.support.waiting import wait_until

LOGGED = 'log: {connections: {close: true}}\ndrain_timeout: 1s\nmetrics: {listen: "127.0.0.1:0"}\n'

Told = tuple[str, str, str, str | None, str]
"""reason, who, how, cause, phase"""


def _config(options: str, more: str = "") -> str:
    return f'{LOGGED}listeners: {{db: {{bind: "127.0.0.1:0", handler: proxy, {more} with: {{{options}}}}}}}\n'


def _lines(running: Daemon) -> list[dict[str, str]]:
    """Return the fields of the log's lines about connections that closed."""
    lines = [line for line in running.log().splitlines() if "connection closed" in line]
    return [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]


def _told(line: dict[str, str]) -> Told:
    return line["reason"], line["who"], line["how"], line.get("cause"), line["phase"]


def _one(running: Daemon) -> dict[str, str]:
    wait_until(lambda: _lines(running), "the line of the connection")
    (line,) = _lines(running)
    return line


Act = Callable[[Daemon, socket.socket, socket.socket], object]


def _drain(running: Daemon, client: socket.socket, far: socket.socket) -> None:
    running.gaiod("drain", "db")


def _kill(running: Daemon, client: socket.socket, far: socket.socket) -> None:
    (row,) = running.ask("connections")["connections"]
    running.gaiod("kill", row["id"])


def _both_end(first: socket.socket, second: socket.socket) -> None:
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    second.close()


def _half_close(first: socket.socket, second: socket.socket) -> None:
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""


ENDS: list[tuple[str, str, str, Act, Told]] = [
    ("client FIN", "", "", lambda d, c, s: _both_end(c, s), ("peer_eof", "client", "fin", None, "data")),
    ("server FIN", "", "", lambda d, c, s: _both_end(s, c), ("server_eof", "server", "fin", None, "data")),
    ("client reset", "", "", lambda d, c, s: reset(c), ("peer_reset", "client", "reset", "ECONNRESET", "data")),
    ("server reset", "", "", lambda d, c, s: reset(s), ("server_reset", "server", "reset", "ECONNRESET", "data")),
    (
        "idle", "", "idle_timeout: 200ms,", lambda d, c, s: None,
        ("idle", "gaiod", "timeout", "idle_timeout", "data"),
    ),
    (
        "half_closed_timeout", ", half_closed_timeout: 1s", "", lambda d, c, s: _half_close(c, s),
        ("half_closed_timeout", "gaiod", "timeout", "half_closed_timeout", "closing"),
    ),
    ("max_age", ", max_age: 1s", "", lambda d, c, s: None, ("max_age", "gaiod", "timeout", "max_age", "data")),
    ("drain", "", "", _drain, ("drain", "gaiod", "drain", None, "data")),
    ("stop", "", "", lambda d, c, s: d.send(signal.SIGTERM), ("drain", "gaiod", "drain", None, "data")),
    ("kill", "", "", _kill, ("admin", "gaiod", "kill", None, "data")),
]  # fmt: skip


@pytest.mark.parametrize(("options", "more", "act", "told"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_line_of_a_proxied_connection_says_who_ended_it_and_where(
    daemon: Start, options: str, more: str, act: Act, told: Told
) -> None:
    with upstreams(1) as (upstream,), ExitStack() as stack:
        running = daemon(_config(f"servers: [{address_of(upstream)}]{options}", more))
        client = stack.enter_context(connect(running.address("db")))
        far = stack.enter_context(accept(upstream))
        client.sendall(b"hello")
        assert far.recv(5) == b"hello"
        act(running, client, far)
        line = _one(running)
        assert _told(line) == told
        assert line["server"] == address_of(upstream).strip("'")
        assert line["received"] == "5"


def test_what_the_log_says_is_what_explain_says(daemon: Start) -> None:
    with upstreams(1) as (upstream,):
        running = daemon(_config(f"servers: [{address_of(upstream)}]"))
        with connect(running.address("db")) as client:
            far = accept(upstream)
            wait_until(lambda: running.ask("connections")["connections"][0]["phase"] == "data", "the relays")
            (row,) = running.ask("connections")["connections"]
            assert row["server"] == address_of(upstream).strip("'")
            reset(far)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        line = _one(running)
        explained = running.ask("explain", connection=row["id"])
        for key in ("reason", "who", "how", "cause", "phase", "server"):
            assert explained[key] == line[key]
        text = running.gaiod("explain", row["id"]).stdout
        assert f"Ended by: server; how: reset (ECONNRESET); phase: data; its server was {line['server']}." in text
        assert running.scrape().total("gaiod_connections_closed_total", listener="db", reason="server_reset") == 1


def test_client_whose_window_stays_closed_ends_by_the_user_timeout(daemon: Start, tmp_path: Path) -> None:
    """The kernel says ETIMEDOUT, which was a reset by the peer before."""
    (tmp_path / "mine.py").write_text(FLOODS)
    listener = "{bind: '127.0.0.1:0', handler: ./mine.py:Floods, user_timeout: 1s}"
    running = daemon(f"{LOGGED}listeners: {{mine: {listener}}}\n")
    with connect(running.address("mine")):
        line = _one(running)
    assert _told(line) == ("user_timeout", "client", "timeout", "user_timeout", "data")


def test_server_whose_window_stays_closed_ends_by_the_user_timeout(daemon: Start) -> None:
    """The same of a proxy's server, which is not its client's doing."""
    with upstreams(1) as (upstream,):
        running = daemon(_config(f"servers: [{address_of(upstream)}], tcp: {{user_timeout: 1s}}"))
        with connect(running.address("db")) as client, accept(upstream):
            client.settimeout(0.1)
            try:
                while not _lines(running):
                    client.send(bytes(1 << 20))
            except OSError:
                pass  # it takes no more, or it is over
            line = _one(running)
    assert _told(line) == ("user_timeout", "server", "timeout", "user_timeout", "data")


# -- no server -------------------------------------------------------------------------------------------


def _unused() -> str:
    with listen() as sock:
        return address_of(sock)


NONE: list[tuple[str, str, Told]] = [
    (
        "refused", "servers: [{unused}], retries: 0",
        ("no_server", "server", "error", "connect_refused", "connect"),
    ),
    (
        "connect_timeout", "servers: [{hole}], retries: 0, connect_timeout: 200ms",
        ("no_server", "server", "timeout", "connect_timeout", "connect"),
    ),
    (
        "full", "servers: [{{address: {server}, connections_max: 1}}], queue: {{length: 0}}",
        ("no_server", "gaiod", "limit", "full", "queue"),
    ),
    (
        "queue_timeout", "servers: [{{address: {server}, connections_max: 1}}], queue: {{timeout: 2s}}",
        ("no_server", "gaiod", "timeout", "queue_timeout", "queue"),
    ),
    (
        "unresolved", "servers: ['no-such-name.invalid:80'], queue: {{timeout: 200ms}}",
        ("no_server", "server", "error", "unresolved", "queue"),
    ),
    (
        "down", "servers: [{unused}], check: {{interval: 50ms, timeout: 50ms, fall: 1}}",
        ("no_server", "server", "error", "down", "queue"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "told"), [none[1:] for none in NONE], ids=[none[0] for none in NONE])
def test_line_of_a_client_without_a_server_says_why(daemon: Start, options: str, told: Told) -> None:
    with upstreams(1) as (upstream,), listen(backlog=0) as hole, ExitStack() as stack:
        for _ in range(3):  # its queue is full: the kernel answers no further SYN
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(hole.getsockname())
        filled = options.format(unused=_unused(), hole=address_of(hole), server=address_of(upstream))
        running = daemon(_config(filled))
        if "connections_max" in options:
            stack.enter_context(connect(running.address("db")))
            stack.enter_context(accept(upstream))
        if "check" in options:
            wait_until(lambda: not running.ask("status")["servers"][0]["up"], "the server being down")
        with connect(running.address("db")) as client:
            if told[3] == "queue_timeout":
                row = wait_until(lambda: _waiting(running), "the client waiting")
                assert row == (1, ["data", "queue"])
            assert is_ended(client)
        line = _one(running)
        assert _told(line) == told
        assert ("server" in line) == (told[4] == "connect"), "the one that was tried last"
        unavailable = running.scrape().total("gaiod_upstream_unavailable_total", upstream="db", cause=told[3])
        assert unavailable == 1


def _waiting(running: Daemon) -> tuple[int, list[str]] | None:
    """Return how many clients `gaiod status` shows as waiting for a server, and the phases of all; None: none does."""
    waiting = running.ask("status")["listeners"][0]["waiting_for_server"]
    phases = sorted(row["phase"] for row in running.ask("connections")["connections"])
    return (waiting, phases) if waiting and "queue" in phases else None
