"""Why a connection ended: what is said of it without a handler, and what of an errno."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gaiod import Termination
from gaiod.handler.termination import KNOWN, of_client, of_error, termination_of
from gaiod.stats.cells import CLOSE_REASONS, WORKER_LOST


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as near,
        listening.accept()[0] as far,
    ):
        yield near, far


def _told(termination: Termination) -> tuple[str, str, str, str]:
    return str(termination), termination.who, termination.how, termination.cause


def test_it_is_a_word_and_more() -> None:
    quota = Termination("quota", who="client", how="limit", cause="requests_per_minute", phase="login")
    assert quota == "quota"
    assert {str(quota): 1}[quota] == 1, "it is found where the word is looked up"
    assert (quota.who, quota.how, quota.cause, quota.phase) == ("client", "limit", "requests_per_minute", "login")


def test_words_that_nobody_else_uses_are_refused() -> None:
    with pytest.raises(ValueError, match="who='nobody': a connection is ended by one of client, server"):
        Termination("quota", who="nobody")
    with pytest.raises(ValueError, match=r"how='somehow': .*fin, reset"):
        Termination("quota", how="somehow")


def test_phase_that_it_says_is_the_one() -> None:
    assert Termination("quota").in_phase("data").phase == "data"
    assert Termination("quota", phase="login").in_phase("data").phase == "login"


def test_every_reason_is_known_by_its_word() -> None:
    assert set(KNOWN) == set(CLOSE_REASONS) - {WORKER_LOST}


@pytest.mark.parametrize(
    ("reason", "at_eof", "is_client", "told"),
    [
        (None, False, True, ("handler", "handler", "close", "")),
        (None, True, True, ("peer_eof", "client", "fin", "")),
        (None, True, False, ("peer_eof", "server", "fin", "")),
        ("peer_reset", True, True, ("peer_reset", "client", "reset", "")),
        ("peer_reset", False, False, ("peer_reset", "server", "reset", "")),
        ("deadline", False, False, ("deadline", "server", "timeout", "deadline")),
        ("idle", False, False, ("idle", "gaiod", "timeout", "idle_timeout")),
        ("of its own", False, True, ("of its own", "handler", "close", "")),
        (Termination("quota", "client", "limit", "x"), False, False, ("quota", "client", "limit", "x")),
    ],
)
def test_what_is_not_said_is_known(
    reason: str | None, at_eof: bool, is_client: bool, told: tuple[str, str, str, str]
) -> None:
    assert _told(termination_of(reason, at_eof=at_eof, is_client=is_client)) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ECONNRESET, ("peer_reset", "client", "reset", "ECONNRESET")),
        (errno.EPIPE, ("peer_reset", "client", "reset", "EPIPE")),
        (errno.ETIMEDOUT, ("user_timeout", "client", "timeout", "user_timeout")),
        (errno.EHOSTUNREACH, ("unreachable", "client", "timeout", "EHOSTUNREACH")),
        (errno.ENETUNREACH, ("unreachable", "client", "timeout", "ENETUNREACH")),
        (errno.ECONNABORTED, ("error", "gaiod", "kill", "ECONNABORTED")),
        (errno.EIO, ("error", "gaiod", "error", "EIO")),
        (0, ("error", "gaiod", "error", "0")),
    ],
)
def test_errno_says_what_it_was(number: int, told: tuple[str, str, str, str]) -> None:
    assert _told(of_error(OSError(number, "told to"), -1)) == told


def test_error_of_a_server_is_the_servers() -> None:
    assert _told(of_error(OSError(errno.EPIPE, "x"), -1, is_client=False)) == (
        "peer_reset", "server", "reset", "EPIPE",
    )  # fmt: skip
    assert _told(of_error(OSError(errno.EIO, "x"), -1, is_client=False)) == ("error", "gaiod", "error", "EIO")


def test_what_a_server_did_has_its_own_words_when_it_is_said_of_a_client() -> None:
    reset = of_error(OSError(errno.EPIPE, "x"), -1, is_client=False)
    assert _told(of_client(reset)) == ("server_reset", "server", "reset", "EPIPE")
    for same in (Termination("peer_eof", "client", "fin"), Termination("user_timeout", "server", "timeout")):
        assert of_client(same) is same


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much was not acknowledged")
def test_kernel_is_asked_which_timeout_it_was(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    timed_out = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    assert of_error(timed_out, near.fileno()).cause == "keepalive", "nothing of it waits for the other"
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            near.send(bytes(1 << 20))
    assert _told(of_error(timed_out, near.fileno())) == ("user_timeout", "client", "timeout", "tcp_retries2")
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
    assert _told(of_error(timed_out, near.fileno())) == ("user_timeout", "client", "timeout", "user_timeout")


@pytest.mark.parametrize("reason", [["over"], 7, {}], ids=repr)
def test_reason_that_is_no_word_is_the_handlers(reason: Any) -> None:
    """Of any type: a handler can put what it likes into `close_reason`, and must not end its worker by that."""
    assert termination_of(reason) == "handler"
