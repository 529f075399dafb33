"""Draining a listener, and the daemon: who is there may finish."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from core.support.waiting import LIMIT_S, TIME_UNIT

from e2e.support.clients import connect, echoes, exchange, is_ended, refuses, request
from e2e.support.daemons import ECHO
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

TWO = f'workers: 2\n{ECHO}  more: {{bind: "127.0.0.1:0", handler: echo}}\n'


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the sockets that it is given."""
    with ExitStack() as stack:
        yield stack


# -- a listener ------------------------------------------------------------------------------------------


def test_drained_listener_refuses_and_its_connections_go_on(daemon: Start, clients: ExitStack) -> None:
    running = daemon(TWO)
    socks = [clients.enter_context(connect(running.address("more"))) for _ in range(4)]
    for sock in socks:
        assert exchange(sock, b"before") == b"before"
    done = running.gaiod("drain", "more")
    assert (done.returncode, done.stdout) == (0, "draining more: 4 connections may finish\n"), done
    wait_until(lambda: refuses(running.address("more")), "the refusal")
    for sock in socks:
        assert exchange(sock, b"after") == b"after"
    assert echoes(running.address("echo"))
    states = {row["listener"]: row["state"] for row in running.ask("status")["listeners"]}
    assert states == {"echo": "serving", "more": "draining"}
    assert running.scrape().value("gaiod_ready") == 1


def test_drained_listener_stays_drained_when_a_worker_is_replaced(daemon: Start) -> None:
    running = daemon(TWO)
    running.ask("drain", listener="more")
    os.kill(running.workers[0], signal.SIGKILL)
    running.wait_for("worker 0 serves again")
    assert refuses(running.address("more"))
    assert echoes(running.address("echo"))


def test_drained_listener_is_served_again_after_a_reload(daemon: Start) -> None:
    running = daemon(TWO)
    running.ask("drain", listener="more")
    running.ask("reload")
    bind = {row["listener"]: row["bind"] for row in running.ask("status")["listeners"]}["more"]
    assert echoes(bind)


def test_drained_listener_is_served_after_an_upgrade(daemon: Start) -> None:
    running = daemon(TWO)
    running.ask("drain", listener="more")
    new = running.ask("upgrade")["pid"]
    assert running.wait() == 0
    bind = {row["listener"]: row["bind"] for row in running.ask("status")["listeners"]}["more"]
    assert echoes(bind)
    os.kill(new, signal.SIGTERM)


def test_drain_of_no_listener_or_a_drained_one_is_refused(daemon: Start) -> None:
    running = daemon(TWO)
    done = running.gaiod("drain", "nothing")
    assert done.returncode != 0
    assert "there is no listener nothing; there is echo, more" in done.stderr
    running.ask("drain", listener="more")
    done = running.gaiod("drain", "more")
    assert done.returncode == os.EX_TEMPFAIL
    assert "listener more is drained already; a reload opens it again" in done.stderr


# -- the daemon ------------------------------------------------------------------------------------------


def test_busy_connection_goes_on_while_the_daemon_stops(daemon: Start) -> None:
    """It is in the middle of something: it may finish, for as long as drain_timeout says."""
    running = daemon()
    with connect(running.address()) as busy, connect(running.address()) as quiet:
        assert exchange(quiet, b"hello") == b"hello"
        assert exchange(busy, b"hello") == b"hello"
        running.send(signal.SIGTERM)
        quiet.setblocking(False)

        def look() -> bool:
            assert exchange(busy, b"busy") == b"busy"
            try:
                return quiet.recv(1) == b""
            except BlockingIOError:
                return False

        wait_until(look, "the end of the quiet one")
        assert exchange(busy, b"still") == b"still"
        assert request(running.metrics, "/readyz").status == 503
        assert running.ask("status")["state"] == "stopping"
    assert running.wait() == 0


def test_busy_connection_is_ended_when_the_time_is_over(daemon: Start) -> None:
    timeout_s = 0.5 * TIME_UNIT
    running = daemon(f"drain_timeout: {round(timeout_s * 1000)}ms\n{ECHO}")
    with connect(running.address()) as busy:
        assert exchange(busy, b"hello") == b"hello"
        began_s = time.monotonic()
        running.send(signal.SIGTERM)
        try:
            while exchange(busy, b"busy") == b"busy":
                assert time.monotonic() - began_s < LIMIT_S
        except ConnectionError:
            pass
        assert time.monotonic() - began_s > 0.8 * timeout_s
    assert running.wait() == 0


def test_new_connections_are_served_and_readiness_is_red_during_the_grace(daemon: Start) -> None:
    """A load balancer looks at readiness now and then, and sends clients until it has."""
    running = daemon(f"stop_grace: 1s\ndrain_timeout: 0s\n{ECHO}")
    running.send(signal.SIGTERM)
    running.wait_for("SIGTERM: stopping")
    assert request(running.metrics, "/readyz").status == 503
    assert running.scrape().value("gaiod_draining") == 1
    assert echoes(running.address())
    assert running.wait() == 0


def test_second_signal_during_the_grace_stops_at_once(daemon: Start) -> None:
    running = daemon(f"stop_grace: 1h\n{ECHO}")
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        running.send(signal.SIGTERM)
        running.wait_for("SIGTERM: stopping")
        running.send(signal.SIGTERM)
        assert is_ended(sock)
    running.wait()
    assert "SIGTERM again: stopping now" in running.log()


def test_worker_that_dies_during_the_grace_is_replaced(daemon: Start) -> None:
    running = daemon(f"stop_grace: 1h\n{ECHO}")
    running.send(signal.SIGTERM)
    running.wait_for("SIGTERM: stopping")
    os.kill(running.worker, signal.SIGKILL)
    assert echoes(running.address())
    running.send(signal.SIGTERM)
    running.wait()
