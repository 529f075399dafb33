"""Health checks: what results add up to, and what a server must do to pass one."""

import errno
import logging
import re
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from core.support.sockets import reset
from gaiod.handlers.proxy.health import Probe, Verdict
from gaiod.handlers.proxy.options import CheckOptions
from worker.support.proxying import Backend, Proxying, closed_address, text_of

Start = Callable[..., Proxying]

QUICK = {"interval": 0.05, "timeout": 0.5, "rise": 2, "fall": 2}


@pytest.mark.parametrize(
    ("rise", "fall", "results", "verdicts"),
    [
        (2, 3, "+--- ++ ---", "uuud du uud"),
        (2, 3, "+--+--+ ---", "uuuuuuu uud"),
        (2, 3, "+---+-+-++", "uuudddddd" + "u"),
        (1, 1, "-+-+", "dudu"),
        (3, 1, "+++-++-+++", "uuudddddd" + "u"),
        (2, 3, "-++--- ++", "dduuud du"),
    ],
)
def test_verdict_changes_after_so_many_results_in_a_row(rise: int, fall: int, results: str, verdicts: str) -> None:
    """A first one that is a failure is enough: nothing has spoken for the server yet."""
    verdict = Verdict(CheckOptions(rise=rise, fall=fall))
    before = False
    for result, expected in zip(results.replace(" ", ""), verdicts.replace(" ", ""), strict=True):
        changed = verdict.take(result == "+")
        assert ("d" if verdict.is_down else "u") == expected
        assert changed == (verdict.is_down != before)
        before = verdict.is_down


@pytest.fixture
def proxying(start: Start) -> Start:
    """A starter of proxies that check one server."""

    def begin(server: Any, check: dict[str, Any] | None = None, **values: Any) -> Proxying:
        values = {"passive": {"slow_start": 0.0}, **values}
        return start(server, check={**QUICK, **(check or {})}, **values)

    return begin


def answer(proxy: Proxying, backend: Backend, data: bytes) -> bytes:
    """Answer the next check with `data`; return what it had asked."""
    sock = proxy.accepted_by(backend)
    if data:
        sock.sendall(data)
    before = proxy.count_of_server("checks_passed") + proxy.count_of_server("checks_failed")
    proxy.step_until(
        lambda: proxy.count_of_server("checks_passed") + proxy.count_of_server("checks_failed") > before, "a result"
    )
    asked = sock.recv(1000)
    sock.close()
    return asked


def test_server_that_takes_connections_passes(proxying: Start, backend: Backend) -> None:
    proxy = proxying(backend)
    proxy.step_until(lambda: proxy.count_of_server("checks_passed") >= 3, "three checks")
    assert proxy.count_of_server("checks_failed") == 0
    assert backend.waiting() >= 3


def test_server_that_refuses_goes_down_and_comes_up_again(proxying: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    address = closed_address()
    proxy = proxying(text_of(address))
    stats = proxy.handler.pool.servers[0].stats
    proxy.step_until(lambda: not stats.up, "the server being down")
    assert proxy.count_of_server("checks_failed") == 1, "the first is enough"
    with proxy.connect() as client:
        assert proxy.is_ended(client)
    assert proxy.closes() == {"no_server": 1}
    assert proxy.unavailable() == {"down": 1}
    again = Backend(socket.create_server(address))
    proxy.step_until(lambda: stats.up, "the server being up")
    client, far = proxy.pair(again)
    proxy.carry(client, far, b"hello")
    label = proxy.handler.pool.servers[0].label
    down, up = caplog.messages[:2]
    assert re.fullmatch(
        rf"listener front: server {label} is down: its checks fail; connect: Connection refused, after \d+ ms", down
    )
    assert up == f"listener front: server {label} is up: its checks pass"
    again.close()


def test_server_has_to_answer_what_is_expected(proxying: Start, backend: Backend) -> None:
    proxy = proxying(backend, check={"send": "PING\r\n", "expect": "PONG"})
    assert answer(proxy, backend, b"+PONG\r\n") == b"PING\r\n"
    assert proxy.count_of_server("checks_passed") == 1
    answer(proxy, backend, b"-LOADING\r\n" + bytes(4096))
    assert proxy.count_of_server("checks_failed") == 1


def test_answer_may_come_in_parts(proxying: Start, backend: Backend) -> None:
    proxy = proxying(backend, check={"expect": "ready"})
    sock = proxy.accepted_by(backend)
    for part in (b"220 I am re", b"ad", b"y\r\n"):
        sock.sendall(part)
        proxy.step()
    proxy.step_until(lambda: proxy.count_of_server("checks_passed") == 1, "the check")


def test_answer_is_looked_at_up_to_a_bound_only(proxying: Start, backend: Backend) -> None:
    proxy = proxying(backend, check={"expect": "ready"})
    answer(proxy, backend, bytes(4092) + b"ready")
    assert proxy.count_of_server("checks_failed") == 1


@pytest.mark.parametrize("how", ["silence", "end", "reset"])
def test_server_that_does_not_answer_fails(proxying: Start, backend: Backend, how: str) -> None:
    proxy = proxying(backend, check={"send": "PING", "expect": "PONG", "timeout": 0.1 if how == "silence" else 10.0})
    sock = proxy.accepted_by(backend)
    if how == "end":
        sock.close()
    elif how == "reset":
        reset(sock)
    proxy.step_until(lambda: proxy.count_of_server("checks_failed") == 1, "the check")
    assert proxy.count_of_server("checks_passed") == 0


def why(proxy: Proxying, caplog: pytest.LogCaptureFixture) -> str:
    """Wait until the server is down, and return what the log says of that."""
    proxy.step_until(lambda: not proxy.handler.pool.servers[0].stats.up, "the server being down")
    (line,) = (message for message in caplog.messages if "is down" in message)
    return re.sub(r"after \d+ ms$", "after some ms", line.partition("its checks fail; ")[2])


@pytest.mark.parametrize(
    ("check", "answer", "how", "expected"),
    [
        ({"expect": "PONG"}, b"-LOADING\r\n", "end", 'got "-LOADING\\r\\n"; the server closed the connection'),
        ({"expect": "PONG"}, b'"', "end", 'got "\\""; the server closed the connection'),
        ({"expect": "PONG"}, b"", "reset", "got nothing; the server reset the connection"),
        ({"expect": "PONG"}, b"x" * 70, "silence", f'got "{"x" * 60}..."; no answer in time'),
        ({"expect": "PONG"}, bytes(4096), "silence", f'got "{chr(92)}x00'),
    ],
)
def test_log_says_why_a_check_failed(
    proxying: Start,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
    check: dict[str, Any],
    answer: bytes,
    how: str,
    expected: str,
) -> None:
    """The step, what was expected, what came, and how long it took."""
    proxy = proxying(backend, check={"send": "PING\r\n", "timeout": 0.5 if how == "silence" else 10.0, **check})
    sock = proxy.accepted_by(backend)
    proxy.receive(sock, 6)
    sock.sendall(answer)
    if how == "end":
        sock.close()
    elif how == "reset":
        reset(sock)
    text = why(proxy, caplog)
    assert text.startswith(f'expect: expected "PONG", {expected}')
    assert text.endswith(", after some ms")


def test_log_says_that_a_check_was_not_even_connected_in_time(
    proxying: Start, caplog: pytest.LogCaptureFixture, black_hole: str
) -> None:
    assert why(proxying(black_hole, check={"timeout": 0.1}), caplog) == "connect: no answer in time, after some ms"


def test_check_for_which_this_machine_lacks_something_says_nothing_about_the_server(
    proxying: Start, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = proxying(backend)
    probes = []

    def begin(self: Probe, conn: Any, deadline_s: float) -> None:
        probes.append(conn)
        error = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        self.connected(conn, SimpleNamespace(error=error))

    monkeypatch.setattr(Probe, "begin", begin)
    proxy.step_until(lambda: len(probes) >= 2, "a second check")
    assert proxy.count_of_server("checks_failed") == 0
    assert proxy.handler.pool.servers[0].stats.up


def test_check_may_be_any_bytes(proxying: Start, backend: Backend) -> None:
    proxy = proxying(backend, check={"send_hex": "00 84 FF", "expect_hex": "84"})
    assert answer(proxy, backend, b"\xff\x84") == b"\x00\x84\xff"
    assert proxy.count_of_server("checks_passed") == 1


@pytest.mark.quiet
def test_server_that_is_back_is_used_within_an_interval_whatever_rise_says(proxying: Start) -> None:
    """The checks that bring it up follow each other soon."""
    address = closed_address()
    proxy = proxying(text_of(address), check={"interval": 0.5, "rise": 3})
    stats = proxy.handler.pool.servers[0].stats
    proxy.step_until(lambda: not stats.up, "the server being down")
    again = Backend(socket.create_server(address))
    began_s = time.monotonic()
    proxy.step_until(lambda: proxy.count_of_server("checks_passed") >= 1, "a check that passes")
    first_s = time.monotonic()
    proxy.step_until(lambda: stats.up, "the server being up")
    assert proxy.count_of_server("checks_passed") == 3
    assert time.monotonic() - first_s < 0.4, f"three intervals are 1.5 s; the first took {first_s - began_s:.2f} s"
    again.close()


def test_check_that_passes_brings_an_ejected_server_back(proxying: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    address = closed_address()
    passive = {"failures": 1, "eject": 300.0, "slow_start": 0.0}
    proxy = proxying(text_of(address), passive=passive)
    stats = proxy.handler.pool.servers[0].stats
    proxy.connect()
    proxy.step_until(lambda: bool(proxy.handler.pool.servers[0].endpoints[0].ejections), "the ejection")
    again = Backend(socket.create_server(address))
    proxy.step_until(lambda: stats.up, "the server being up")
    assert caplog.messages[-1].endswith(("which ends its ejection", "its checks pass"))
    client, far = proxy.pair(again)
    proxy.carry(client, far, b"hello")
    again.close()


def test_server_passes_with_having_been_sent_something_where_nothing_is_expected(
    proxying: Start, backend: Backend
) -> None:
    proxy = proxying(backend, check={"send": "QUIT\r\n"})
    sock = proxy.accepted_by(backend)
    proxy.step_until(lambda: proxy.count_of_server("checks_passed") == 1, "the check")
    assert sock.recv(100) == b"QUIT\r\n"
    assert sock.recv(100) == b""


@pytest.mark.parametrize(("version", "header"), [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0")])
def test_check_of_a_server_that_wants_proxy_headers_has_one(
    proxying: Start, backend: Backend, version: str, header: bytes
) -> None:
    """It says that the connection is the proxy's own."""
    proxy = proxying(backend, send_proxy=version)
    sock = proxy.accepted_by(backend)
    proxy.step_until(lambda: proxy.count_of_server("checks_passed") == 1, "the check")
    assert sock.recv(100).startswith(header)


def test_checks_are_no_clients_and_are_not_counted_as_connections(proxying: Start, backend: Backend) -> None:
    proxy = proxying(backend)
    proxy.step_until(lambda: proxy.count_of_server("checks_passed") >= 2, "two checks")
    assert proxy.count_of_server("connections") == 0
    assert proxy.closes() == {}
    assert proxy.listener.active == 0


@pytest.mark.parametrize(("on_down", "is_closed"), [("close", True), ("keep", False)])
def test_connections_of_a_server_that_goes_down(
    proxying: Start, backend: Backend, on_down: str, is_closed: bool
) -> None:
    proxy = proxying(backend, on_down=on_down, check={"expect": "ready", "timeout": 0.1})
    stats = proxy.handler.pool.servers[0].stats
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    proxy.step_until(lambda: not stats.up, "the server being down")
    if is_closed:
        assert proxy.is_ended(client)
        assert proxy.closes() == {"server_down": 1}
    else:
        proxy.carry(far, client, b"still here")
