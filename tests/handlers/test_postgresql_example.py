"""The handler of config/examples that speaks TLS for a PostgreSQL server: its steps, without sockets."""

import struct
from pathlib import Path
from typing import Any

import pytest

from gaiod import Handler, OpType
from gaiod.plugins import build_options, load_handler
from gaiod.testing import (
    Action,
    Arrived,
    Close,
    Connect,
    Connected,
    Expired,
    Opened,
    Read,
    Secured,
    Sent,
    Started,
    StartTls,
    Write,
    assert_script,
)

POSTGRESQL = load_handler(str(Path(__file__).parents[2] / "config" / "examples" / "postgresql.py"))

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)
PARAMETERS = b"user\0me\0\0"
STARTUP = struct.pack("!II", 8 + len(PARAMETERS), 196608)
CANCEL = struct.pack("!II", 16, 80877102)

OPENED = (Opened(), [Read(8, full=True)])
BEGUN = (
    OPENED, (Arrived(SSL_REQUEST), [Write(b"S")]), (Sent(), [StartTls()]), (Secured(), [Read(8, full=True)]),
)  # fmt: skip


def handler(**values: Any) -> Handler:
    return POSTGRESQL(build_options(POSTGRESQL, values))


def refusal(code: str, text: str) -> Write:
    fields = f"SFATAL\0VFATAL\0C{code}\0M{text}\0\0".encode()
    return Write(b"E" + struct.pack("!I", 4 + len(fields)) + fields)


def test_client_that_asks_for_tls_is_served() -> None:
    connect: list[Action] = [Connect(("127.0.0.1", 5432)), Write(STARTUP)]
    assert_script(handler(), *BEGUN, (Arrived(STARTUP), connect))


def test_client_that_asks_for_gss_first_is_told_no_and_may_ask_for_tls() -> None:
    assert_script(
        handler(), OPENED, (Arrived(GSSENC_REQUEST), [Write(b"N")]), (Sent(), [Read(8, full=True)]),
        (Arrived(SSL_REQUEST), [Write(b"S")]), (Sent(), [StartTls()]),
    )  # fmt: skip


def test_client_without_tls_is_refused_once_all_that_it_says_is_read() -> None:
    text = "connections without encryption are refused; use sslmode=verify-full"
    conn = assert_script(
        handler(), OPENED, (Arrived(STARTUP), [Read(len(PARAMETERS), full=True)]),
        (Arrived(PARAMETERS), [refusal("28000", text), Close()]),
    )  # fmt: skip
    assert conn.close_reason == "unencrypted"


def test_cancel_is_passed_on_with_and_without_tls() -> None:
    connect: list[Action] = [Connect("/run/db.sock"), Write(CANCEL)]
    assert_script(handler(server="unix:/run/db.sock"), OPENED, (Arrived(CANCEL), connect))
    assert_script(handler(server="unix:/run/db.sock"), *BEGUN, (Arrived(CANCEL), connect))


@pytest.mark.parametrize(
    "message",
    [
        bytes(8), b"GET / HT", struct.pack("!II", 7, 196608), struct.pack("!II", 10_001, 196608),
        b"\x16\x03\x01\x02\0\1\0\1",
    ],
    ids=["zeros", "http", "too short", "too long", "a handshake"],
)  # fmt: skip
@pytest.mark.parametrize("before", [(OPENED,), BEGUN], ids=["plain", "tls"])
def test_what_is_no_message_closes_the_connection(before: Any, message: bytes) -> None:
    assert_script(handler(), *before, (Arrived(message), [Close()]))


def test_request_for_tls_within_tls_closes_the_connection() -> None:
    assert_script(handler(), *BEGUN, (Arrived(SSL_REQUEST), [Close()]))


def test_client_that_is_late_is_closed() -> None:
    assert_script(handler(), OPENED, (Expired(OpType.READ), [Close()]))


def test_server_that_cannot_be_reached_is_told_of() -> None:
    conn = assert_script(
        handler(), *BEGUN, (Arrived(STARTUP), [Connect(("127.0.0.1", 5432)), Write(STARTUP)]),
        (Connected(ConnectionRefusedError()), [refusal("08006", "the database server cannot be reached"), Close()]),
    )  # fmt: skip
    assert conn.close_reason == "no_server"


def test_listener_that_offers_no_tls_does_not_start() -> None:
    with pytest.raises(ValueError, match="has no tls"):
        assert_script(handler(), (Started(), []), offers_tls=False)


def test_server_by_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"server: db\.example\.org:5432 is a name"):
        POSTGRESQL.servers_of(build_options(POSTGRESQL, {"server": "db.example.org:5432"}))
