"""Draining: connections may finish, the quiet ones are asked to go first, and nobody stays for ever."""

import socket
import time

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Conn, Handler, OpResult
from gaiod.worker import drain as module
from gaiod.worker.drain import Drain
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving

LONG_S = 1000.0


class Draining:
    """A drain of a listener, stepped by the test."""

    def __init__(self, serving: Serving, timeout_s: float, *, eager: bool, is_held: bool = False) -> None:
        self._serving = serving
        self.ends = 0
        self.is_held = is_held
        self.drain = Drain(
            serving.watcher,
            [serving.listener],
            timeout_s,
            eager=eager,
            done=self._done,
            is_held=lambda: self.is_held,
        )

    def _done(self) -> None:
        self.ends += 1

    def run(self) -> float:
        """Step until it is done; return how long that took."""
        began_s = time.monotonic()
        self._serving.step_until(lambda: self.ends, "the end of the drain")
        return time.monotonic() - began_s

    def run_for(self, seconds: float) -> None:
        """Step for a while."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._serving.step()


class Floods(Handler):
    def on_open(self, conn: Conn) -> None:
        conn.write(bytes(64 << 20))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", MOMENT_S)
    monkeypatch.setattr(module, "FLUSH_S", MOMENT_S)


def test_drain_is_done_at_once_when_there_is_no_connection(serve: Serve) -> None:
    assert Draining(serve(Recorder()), LONG_S, eager=False).run() < LIMIT_S


@pytest.mark.parametrize("timeout_s", [0.0, MOMENT_S])
def test_time_begins_when_connections_can_go_to_no_other_worker_any_more(serve: Serve, timeout_s: float) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    draining = Draining(serving, timeout_s, eager=True, is_held=True)
    draining.run_for(5 * MOMENT_S)
    assert serving.exchange(sock, b"served") == b"served"
    draining.is_held = False
    draining.run()
    assert serving.is_ended(sock)


def test_nobody_is_accepted_any_more(serve: Serve) -> None:
    serving = serve(Recorder())
    Draining(serving, LONG_S, eager=False).run()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(serving.address, timeout=LIMIT_S).close()


def test_connection_goes_on_until_it_ends_of_itself(serve: Serve) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    drain = Draining(serving, LONG_S, eager=False)
    drain.run_for(3 * MOMENT_S)
    assert serving.exchange(sock, b"still") == b"still"
    assert not drain.ends
    sock.close()
    drain.run()
    assert serving.closes() == {"peer_eof": 1}


def test_eager_drain_closes_a_quiet_connection_and_leaves_a_busy_one(serve: Serve) -> None:
    serving = serve(Recorder())
    quiet, busy = serving.connect(), serving.connect()
    drain = Draining(serving, LONG_S, eager=True)
    until_s = time.monotonic() + 5 * MOMENT_S
    while time.monotonic() < until_s:
        assert serving.exchange(busy, b"busy") == b"busy"
    assert serving.is_ended(quiet)
    assert serving.closes() == {"drain": 1}
    assert not drain.ends


class Computes(Recorder):
    """Answers when the test says so: a thread computes until then."""

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.busy = True
        conn.data = bytes(result.buffer)

    def answer(self, conn: Conn) -> None:
        """Answer what was read."""
        conn.busy = False
        conn.write(conn.data)


def test_eager_drain_waits_for_a_connection_that_waits_for_an_answer_and_closes_it_after(serve: Serve) -> None:
    handler = Computes()
    serving = serve(handler)
    sock = serving.connect()
    (conn,) = serving.listener.clients()
    sock.sendall(b"question")
    serving.step_until(lambda: conn.busy, "the question")
    drain = Draining(serving, LONG_S, eager=True)
    drain.run_for(5 * MOMENT_S)
    assert not drain.ends
    assert serving.closes() == {}
    handler.answer(conn)
    drain.run()
    assert serving.receive(sock, 9) == b"question"
    assert serving.closes() == {"drain": 1}


def test_busy_connection_is_closed_all_the_same_when_the_time_is_over(serve: Serve) -> None:
    serving = serve(Recorder())
    serving.connect()
    (conn,) = serving.listener.clients()
    conn.busy = True
    assert Draining(serving, 3 * MOMENT_S, eager=True).run() >= 2 * MOMENT_S
    assert serving.closes() == {"drain": 1}


def test_eager_drain_leaves_a_connection_to_which_bytes_are_still_to_be_sent(serve: Serve) -> None:
    serving = serve(Floods())
    serving.connect()
    drain = Draining(serving, LONG_S, eager=True)
    drain.run_for(5 * MOMENT_S)
    assert not drain.ends
    assert serving.closes() == {}


def test_eager_drain_closes_a_few_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their clients connect to somebody else next, who should not see them all in one instant."""
    monkeypatch.setattr(module, "QUIET_PER_TICK", 2)
    monkeypatch.setattr(module, "TICK_S", MOMENT_S)
    serving = serve(Recorder())
    for _ in range(10):
        serving.connect()
    assert Draining(serving, LONG_S, eager=True).run() >= 4 * MOMENT_S


def test_connections_are_closed_in_order_when_the_time_is_over(serve: Serve) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    drain = Draining(serving, 2 * MOMENT_S, eager=False)
    assert drain.run() >= MOMENT_S
    assert serving.closes() == {"drain": 1}
    assert sock.recv(1) == b""


def test_what_is_written_is_sent_when_the_time_is_over(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", LIMIT_S)
    serving = serve(Floods())
    sock = serving.connect()
    drain = Draining(serving, 0, eager=False)
    drain.run_for(MOMENT_S)
    assert len(serving.receive(sock, (64 << 20) + 1)) == 64 << 20
    drain.run()


def test_client_that_does_not_read_is_given_up_in_the_end(serve: Serve) -> None:
    serving = serve(Floods())
    serving.connect()
    assert Draining(serving, 0, eager=False).run() >= MOMENT_S
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"drain": 1}


def test_last_part_of_the_time_closes_evenly_and_the_quietest_first(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_PART", 1.0)
    monkeypatch.setattr(module, "TICK_S", MOMENT_S)
    serving = serve(Recorder())
    socks = [serving.connect() for _ in range(5)]
    for sock in socks:
        assert serving.exchange(sock, b"ping") == b"ping"
    Draining(serving, 10 * MOMENT_S, eager=False)
    ended: list[int] = []
    for sock in socks:
        sock.setblocking(False)

    def look() -> bool:
        for number, sock in enumerate(socks):
            if number not in ended:
                try:
                    ended.extend([number] * (sock.recv(1) == b""))
                except BlockingIOError:
                    pass
        return len(ended) == len(socks)

    began_s = time.monotonic()
    serving.step_until(look, "the end of all")
    assert ended == [0, 1, 2, 3, 4]
    assert time.monotonic() - began_s > 3 * MOMENT_S


def test_last_part_of_the_time_closes_those_that_are_busy_last(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing has moved for them for longest."""
    monkeypatch.setattr(module, "LAST_PART", 1.0)

    class Notes(Recorder):
        def on_close(self, conn: Conn, reason: str) -> None:
            closed.append(conn.busy)

    closed: list[bool] = []
    serving = serve(Notes())
    for number in range(4):
        serving.connect()
        if number == 0:
            (conn,) = serving.listener.clients()
            conn.busy = True
    Draining(serving, 10 * MOMENT_S, eager=False).run()
    assert closed == [False, False, False, True]


def test_done_is_not_called_when_another_drain_took_over(serve: Serve) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    first = Draining(serving, LONG_S, eager=False)
    first.run_for(MOMENT_S)
    first.drain.cancel()
    second = Draining(serving, 0, eager=False)
    second.run()
    first.run_for(3 * MOMENT_S)
    assert (first.ends, second.ends) == (0, 1)
    assert sock.recv(1) == b""
