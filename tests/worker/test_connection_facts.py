"""What a worker knows of one connection."""

import time
from typing import Any

import pytest
from core.support.sockets import reset

from gaiod import Conn, Handler, OpResult
from gaiod.worker.inspect.connection_facts import ConnectionFacts
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving


class Relays(Handler):
    """A proxy of the simplest kind; tells what goes with what if it is to."""

    def __init__(self, address: Any, *, tells: bool = True) -> None:
        super().__init__(None)
        self._address = address
        self._tells = tells

    def on_open(self, conn: Conn) -> None:
        conn.data = self.connect(self._address, data=conn)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        conn.data.relay_to(conn)
        conn.relay_to(conn.data)

    def partner_of(self, conn: Conn) -> Conn | None:
        partner: Conn = conn.data
        return partner if self._tells else None

    def notes_on(self, conn: Conn) -> tuple[str, ...]:
        return ("It is relayed.",)


def _explain(serving: Serving, name: str) -> dict[str, Any]:
    return ConnectionFacts([serving.listener], serving.names).explain(name)


def _name(serving: Serving) -> str:
    (conn,) = serving.listener.clients()
    return serving.names.of(conn)


def test_open_connection_is_told_with_its_time_bytes_and_what_it_waits_for(serve: Serve) -> None:
    serving = serve(Recorder(), idle_timeout_s=60.0)
    sock = serving.connect()
    assert serving.exchange(sock, b"hello") == b"hello"
    told = _explain(serving, _name(serving))
    host, port = sock.getsockname()
    assert (told["state"], told["listener"], told["peer"]) == ("open", "front", f"{host}:{port}")
    assert (told["idle_timeout_s"], told["notes"], told["busy"]) == (60.0, [], False)
    (side,) = told["sides"]
    assert (side["side"], side["id"]) == ("downstream", _name(serving))
    assert (side["received_bytes"], side["sent_bytes"], side["pending_bytes"]) == (5, 5, 0)
    assert side["reading"]["operation"] == "read"
    assert side["kernel"]["receive_queue_bytes"] == 0


@pytest.mark.parametrize("tells", [True, False])
def test_proxied_connection_is_told_with_that_to_its_server(serve: Serve, tells: bool) -> None:
    """From either end; the runtime sees a relay by itself, from the end that is relayed."""
    upstream = serve(Recorder())
    serving = serve(Relays(upstream.address, tells=tells))
    sock = serving.connect()
    sock.sendall(b"ping")

    def answer() -> bool:
        upstream.step()
        serving.step()
        return any(conn.bytes_sent == 4 for conn in serving.listener.clients())

    serving.step_until(answer, "the answer")
    told = _explain(serving, _name(serving))
    assert [side["side"] for side in told["sides"]] == ["downstream", "upstream"]
    downstream, upstream_side = told["sides"]
    assert downstream["reading"]["to"] == upstream_side["id"]
    assert upstream_side["reading"]["to"] == downstream["id"]
    assert told["notes"] == ["It is relayed."]
    again = _explain(serving, upstream_side["id"])
    assert [side["id"] for side in again["sides"]] == [downstream["id"], upstream_side["id"]]


def test_handler_that_cannot_explain_costs_no_connection(serve: Serve) -> None:
    class Raises(Recorder):
        def partner_of(self, conn: Conn) -> Conn | None:
            raise SystemExit("told to")

        def notes_on(self, conn: Conn) -> list[str]:
            raise SystemExit("told to")

    serving = serve(Raises())
    sock = serving.connect()
    told = _explain(serving, _name(serving))
    assert told["notes"] == ["Its handler does not say more: notes_on raised SystemExit: told to."]
    assert serving.exchange(sock, b"still") == b"still"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda serving, sock: sock.close(), "peer_eof"),
        (lambda serving, sock: reset(sock), "peer_reset"),
        (lambda serving, sock: serving.end_all("admin"), "admin"),
    ],
    ids=["peer_eof", "peer_reset", "admin"],
)
def test_closed_connection_is_told_with_who_it_was_and_why_it_closed(serve: Serve, end: Any, reason: str) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    host, port = sock.getsockname()
    name = _name(serving)
    end(serving, sock)
    serving.step_until(serving.closes, "the close being counted")
    assert _explain(serving, name) == {"state": "unknown"}
    told = serving.recent_closes.find(name, time.monotonic())
    assert told is not None
    assert (told["reason"], told["peer"]) == (reason, f"{host}:{port}")
    assert told["age_s"] >= 0
    assert told["closed_ago_s"] >= 0


def test_connection_that_never_was_is_unknown(serve: Serve) -> None:
    assert _explain(serve(Recorder()), f"0-{2**40}") == {"state": "unknown"}
