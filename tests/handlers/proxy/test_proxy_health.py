"""Health checks: what results add up to, and what a server must do to pass one."""

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import reset
from gaiod.handlers.proxy.health import Verdict
from gaiod.handlers.proxy.options import CheckOptions
from runtime.support.proxying import Backend, Proxying, closed_address, text_of

Start = Callable[..., Proxying]

QUICK = {"interval": 0.05, "timeout": 0.5, "rise": 2, "fall": 2}


@pytest.mark.parametrize(
    ("rise", "fall", "results", "verdicts"),
    [
        (2, 3, "--- ++ ---", "uud du uud"),
        (2, 3, "--+--+ ---", "uuuuuu uud"),
        (2, 3, "---+-+-++", "uudddddd" + "u"),
        (1, 1, "-+-+", "dudu"),
        (3, 1, "+++-++-+++", "uuudddddd" + "u"),
    ],
)
def test_verdict_changes_after_so_many_results_in_a_row(rise: int, fall: int, results: str, verdicts: str) -> None:
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
        return start(server, check={**QUICK, **(check or {})}, passive={"slow_start": 0.0}, **values)

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
    assert proxy.count_of_server("checks_failed") == 2
    with proxy.connect() as client:
        assert proxy.is_ended(client)
    assert proxy.closes() == {"no_server": 1}
    assert proxy.count("upstream_unavailable") == 1
    again = Backend(socket.create_server(address))
    proxy.step_until(lambda: stats.up, "the server being up")
    client, far = proxy.pair(again)
    proxy.carry(client, far, b"hello")
    label = proxy.handler.pool.servers[0].label
    assert caplog.messages[:2] == [
        f"listener front: server {label} is down: its checks fail",
        f"listener front: server {label} is up: its checks pass",
    ]
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
    proxy = proxying(backend, check={"send": "PING", "expect": "PONG", "timeout": 0.1})
    sock = proxy.accepted_by(backend)
    if how == "end":
        sock.close()
    elif how == "reset":
        reset(sock)
    proxy.step_until(lambda: proxy.count_of_server("checks_failed") == 1, "the check")
    assert proxy.count_of_server("checks_passed") == 0


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
        assert proxy.closes() == {"no_server": 1}
    else:
        proxy.carry(far, client, b"still here")
