"""One worker hands its connections to another: both in this process, with real sockets, stepped by the test."""

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from core.support.sockets import pattern
from core.support.waiting import LIMIT_S
from e2e.support.clients import readable
from gaiod.handlers.echo import Echo

from gaiod import Arrival, Conn, Handler, NotTaken, OpResult, Termination
from gaiod.process.dispatch import Target
from gaiod.worker.handover import giver as giving
from gaiod.worker.handover import taker as taking
from gaiod.worker.handover.giver import Giver, Outcome
from gaiod.worker.handover.taker import Taker
from gaiod.worker.handover.wire import FORMAT, HEADER, LOOK_S, Parts, close_all, send_descriptors
from gaiod.worker.names import Names
from worker.support.serving import Serving


class Both:
    """A worker that gives and one that takes, each with one listener of the same name."""

    def __init__(self, giver: Serving, taker: Serving) -> None:
        self.giver = giver
        self.taker = taker
        self.feeds: dict[Serving, dict[str, tuple[str, int]]] = {self.giver: {}, self.taker: {}}
        self.late: list[Conn] = []
        self.takes = Taker(
            self.taker.watcher,
            [self.taker.listener],
            self.taker.names,
            lambda: self.feeds[self.taker],
            lambda listener, conn: self.late.append(conn),
        )
        self.outcome: Outcome | None = None
        self._after: list[Callable[[], None]] = []
        self.gives: Giver | None = None

    def begin(self, timeout_s: float = LIMIT_S, *, takers: Sequence[Mapping[str, Any]] = ()) -> None:
        """Begin to hand over: to these, or else to the taker."""
        self.gives = Giver(
            self.giver.watcher,
            takers or [self.takes.address],
            [self.giver.listener],
            names=self.giver.names,
            positions=lambda: self.feeds[self.giver],
            timeout_s=timeout_s,
            after_pass=self._after.append,
            done=self._take,
            before=self.gives,
        )

    def _take(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def step(self, *, giver: bool = True, taker: bool = True) -> None:
        """Do one pass of each."""
        if giver:
            self.giver.step()
            after = self._after[:1]
            self._after.clear()
            for call in after:
                call()
        if taker:
            self.taker.step()

    def step_until(self, look: Callable[[], object], what: str) -> None:
        until_s = time.monotonic() + LIMIT_S
        while not look():
            assert time.monotonic() < until_s, f"{what}: not within {LIMIT_S:g} s"
            self.step()

    def step_until_detached(self) -> None:
        """Have all connections of the giver offered."""
        self.step_until(
            lambda: not self.giver.watcher.connections(context=self.giver.listener), "connections being detached"
        )

    def step_until_over(self) -> Outcome:
        """Let the giver go on by itself until it has an outcome: the taker hangs, or is gone."""
        until_s = time.monotonic() + LIMIT_S
        while self.outcome is None:
            assert time.monotonic() < until_s, f"the outcome of a hand-over: not within {LIMIT_S:g} s"
            self.step(taker=False)
        return self.outcome

    def end_giver(self, *, stream: bool = True, lifeline: bool = True) -> None:
        """Do what its death would: the kernel closes its descriptors. Do not step it any more."""
        assert self.gives is not None
        for link in self.gives._links:
            if stream:
                assert link._conn is not None
                link._conn.abort()
            if lifeline:
                close_all(link._lifeline)

    def hand_over(self, timeout_s: float = LIMIT_S) -> Outcome:
        """Hand over, and return the outcome."""
        self.begin(timeout_s)
        self.step_until(lambda: self.outcome is not None, "the outcome of a hand-over")
        assert self.outcome is not None
        for _ in range(3):
            self.step()
        return self.outcome

    def close(self) -> None:
        self.takes.close()
        self.giver.close()
        self.taker.close()


@pytest.fixture
def echoes() -> Iterator[Both]:
    both = both_with(Echo(), Echo())
    yield both
    both.close()


def both_with(giver: Handler, taker: Handler, **limits: Any) -> Both:
    place = {"worker": 1, "generation": 4, "process": 812}
    return Both(Serving(giver, names=Names(3, place)), Serving(taker, names=Names(7), **limits))


def both_of(request: pytest.FixtureRequest, giver: Handler, taker: Handler, **limits: Any) -> Both:
    both = both_with(giver, taker, **limits)
    request.addfinalizer(both.close)
    return both


def test_clients_notice_nothing(echoes: Both) -> None:
    clients = [echoes.giver.connect() for _ in range(250)]
    for number, client in enumerate(clients):
        assert echoes.giver.exchange(client, b"%03d" % number) == b"%03d" % number
    outcome = echoes.hand_over()
    assert outcome.moved == 250
    assert not outcome.stayed
    assert (echoes.giver.listener.active, echoes.taker.listener.active) == (0, 250)
    assert (echoes.giver.count("moved_out"), echoes.taker.count("moved_in")) == (250, 250)
    assert echoes.giver.closes() == {}
    for number, client in enumerate(clients):
        assert echoes.taker.exchange(client, b"%03d" % number) == b"%03d" % number
    clients[0].close()
    echoes.taker.step_until(lambda: echoes.taker.listener.active == 249, "the end of one")
    assert echoes.taker.closes() == {"peer_eof": 1}


def test_bytes_under_way_are_echoed_once(echoes: Both) -> None:
    """The client sends all the time, and does not read: writes wait."""
    client = echoes.giver.connect()
    client.setblocking(False)
    data, sent = pattern(16 << 20), 0
    received = bytearray()

    def push() -> None:
        nonlocal sent
        try:
            sent += client.send(data[sent : sent + 100_000])
        except BlockingIOError:
            pass

    for _ in range(200):
        push()
        echoes.step()
    echoes.begin()
    until_s = time.monotonic() + LIMIT_S
    while (len(received) < sent or echoes.outcome is None) and time.monotonic() < until_s:
        if echoes.outcome is None:
            push()
        echoes.step()
        try:
            received += client.recv(1 << 16)
        except BlockingIOError:
            pass
    assert echoes.outcome is not None
    assert echoes.outcome.moved == 1
    assert received == data[:sent]


class Counting(Handler):
    """Answers with how often the client has spoken."""

    state_version = 2
    state_accepts = frozenset({1})

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []

    def on_open(self, conn: Conn) -> None:
        conn.data = 0
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data += 1
        conn.write(b"%d" % conn.data)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read()

    def on_close(self, conn: Conn, reason: str) -> None:
        assert isinstance(reason, Termination)
        self.closed.append(str(reason))

    def on_leave(self, conn: Conn) -> bytes | None:
        return b"%d" % conn.data

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        conn.data = int(arrival.state)
        conn.read()


def ask(serving: Serving, client: socket.socket) -> bytes:
    client.sendall(b"?")
    return serving.receive(client, 1)


def test_state_goes_with_the_connection(request: pytest.FixtureRequest) -> None:
    giver = Counting()
    both = both_of(request, giver, Counting())
    client = both.giver.connect()
    assert [ask(both.giver, client) for _ in range(3)] == [b"1", b"2", b"3"]
    both.hand_over()
    assert giver.closed == ["handed_over"]
    assert ask(both.taker, client) == b"4"


class Stateless(Counting):
    state_version = None  # type: ignore[assignment]


class Later(Counting):
    state_version = 3
    state_accepts = frozenset({1})


class Silent(Counting):
    def on_leave(self, conn: Conn) -> bytes | None:
        return None


class Failing(Counting):
    def on_leave(self, conn: Conn) -> bytes | None:
        raise RuntimeError("no")


class Wordy(Counting):
    def on_leave(self, conn: Conn) -> bytes | None:
        return b"x" * 65_537


class Refusing(Counting):
    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        raise NotTaken("not here")


class Breaking(Counting):
    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        conn.read()
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("giver", "taker", "limits", "reason"),
    [
        (Stateless, Counting, {}, "handler"),
        (Counting, Stateless, {}, "version"),
        (Counting, Later, {}, "version"),
        (Failing, Counting, {}, "hook_error"),
        (Wordy, Counting, {}, "hook_error"),
        (Counting, Refusing, {}, "refused"),
        (Counting, Breaking, {}, "hook_error"),
        (Counting, Counting, {"connections_max": 0}, "limit"),
        (Counting, Counting, {"kind": "another"}, "handler"),
    ],
)
def test_who_cannot_go_stays_and_is_served(
    request: pytest.FixtureRequest,
    giver: type[Handler],
    taker: type[Handler],
    limits: dict[str, Any],
    reason: str,
) -> None:
    both = both_of(request, giver(), taker(), **limits)
    client = both.giver.connect()
    assert ask(both.giver, client) == b"1"
    outcome = both.hand_over()
    assert (outcome.moved, outcome.stayed) == (0, {reason: 1})
    assert both.giver.count(f"stayed_{reason}") == 1
    assert (both.giver.listener.active, both.taker.listener.active) == (1, 0)
    assert ask(both.giver, client) == b"2"


def test_older_version_is_understood(request: pytest.FixtureRequest) -> None:
    class Older(Counting):
        state_version = 1

    both = both_of(request, Older(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    assert both.hand_over().moved == 1
    assert ask(both.taker, client) == b"2"


def test_handler_that_always_says_later_keeps_its_connection(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Silent(), Counting())
    client = both.giver.connect()
    outcome = both.hand_over(timeout_s=0.2)
    assert outcome.stayed == {"not_quiet": 1}
    assert ask(both.giver, client) == b"1"


def test_busy_connection_goes_once_it_is_quiet(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    [conn] = both.giver.listener.clients()
    conn.busy = True
    both.begin()
    for _ in range(20):
        both.step()
    assert both.giver.listener.active == 1
    conn.busy = False
    both.step_until(lambda: both.outcome is not None, "the outcome")
    assert ask(both.taker, client) == b"1"


def test_who_was_touched_after_the_offer_stays_until_the_next(request: pytest.FixtureRequest) -> None:
    """Another connection's hook writes to it meanwhile: that is not in the offer."""
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    [conn] = both.giver.listener.clients()
    both.begin()
    both.step_until_detached()
    conn.write(b"!")  # it is detached now
    both.step_until(lambda: both.outcome is not None, "the outcome")
    assert both.outcome is not None
    assert both.outcome.moved == 1
    assert both.taker.receive(client, 1) == b"!"
    assert ask(both.taker, client) == b"1"


def test_taker_that_dies_leaves_everything_to_the_giver(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    both.begin(timeout_s=0.2)
    both.step_until_detached()
    both.taker.watcher.close()
    assert both.step_until_over().stayed == {"lost": 1}
    assert ask(both.giver, client) == b"2"


def step_until_said(both: Both) -> None:
    """Have the offer with the kernel, and the taker asleep."""
    both.step_until_detached()
    streams = both.giver.watcher.connections()
    while any(conn.pending_write_bytes for conn in streams):
        both.step(taker=False)


def test_giver_that_dies_leaves_what_it_offered_to_the_taker(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    both.begin()
    step_until_said(both)
    both.end_giver()  # the detached connection is still open here
    both.taker.step_until(lambda: both.taker.count("moved_in") == 1, "its being taken")
    assert ask(both.taker, client) == b"2"


class Tells(Counting):
    """Has all connections in a group."""

    def on_start(self) -> None:
        self.told = self.group(limit=1000)

    def on_open(self, conn: Conn) -> None:
        super().on_open(conn)
        self.told.add(conn)

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        super().on_arrive(conn, arrival)
        self.told.add(conn)


@pytest.mark.parametrize(("kind", "missed"), [(Tells, 3), (Counting, 0)])
def test_messages_that_only_a_giver_which_died_could_have_said_are_counted(
    request: pytest.FixtureRequest, kind: type[Counting], missed: int
) -> None:
    """The taker's feed had come further than the giver's when the member joined there."""
    both = both_of(request, kind(), kind())
    client = both.giver.connect()
    ask(both.giver, client)
    both.feeds[both.giver] = {"front": ("key", 7)}
    both.feeds[both.taker] = {"front": ("key", 10)}
    both.begin()
    step_until_said(both)
    both.end_giver()
    both.taker.step_until(lambda: both.taker.count("moved_in") == 1, "its being taken")
    assert both.taker.count("feed_gaps") == missed
    assert ask(both.taker, client) == b"2"


def test_taker_whose_stream_ends_waits_until_it_is_known_what_the_giver_does(request: pytest.FixtureRequest) -> None:
    """A dying process closes its descriptors one after the other; and a stream may end without anybody's death."""
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    both.begin()
    step_until_said(both)
    both.end_giver(lifeline=False)
    until_s = time.monotonic() + 10 * LOOK_S
    while time.monotonic() < until_s:
        both.taker.step()
    assert (both.taker.listener.active, both.taker.count("moved_in")) == (1, 0)
    both.end_giver(stream=False)
    both.taker.step_until(lambda: both.taker.count("moved_in") == 1, "its being taken")
    assert ask(both.taker, client) == b"2"


def test_taker_on_its_way_out_takes_nothing_and_its_successor_does(request: pytest.FixtureRequest) -> None:
    """It was replaced while the giver still handed over to it."""
    both, later = both_of(request, Counting(), Counting()), both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(150)]
    for client in clients:
        ask(both.giver, client)
    both.takes.is_leaving = True
    both.begin()
    both.step_until(lambda: both.gives is not None and not both.gives._links, "the end of the link")
    assert both.outcome is None
    assert ask(both.giver, clients[0]) == b"2"
    assert both.gives is not None
    both.gives.add_takers([both.takes.address, later.takes.address])
    until_s = time.monotonic() + LIMIT_S
    while both.outcome is None:
        assert time.monotonic() < until_s
        both.step()
        later.taker.step()
    assert (both.outcome.moved, both.outcome.stayed) == (150, {})
    assert [ask(later.taker, client) for client in clients] == [b"3", *[b"2"] * 149]


def test_connection_that_comes_to_a_taker_on_its_way_out_is_told(request: pytest.FixtureRequest) -> None:
    """It had been accepted before."""
    both = both_of(request, Counting(), Counting())
    ask(both.giver, both.giver.connect())
    both.begin()
    both.step_until(lambda: both.taker.listener.active, "an offer that is built")
    both.takes.is_leaving = True
    both.step_until(lambda: both.outcome is not None, "the outcome")
    assert both.late == both.taker.listener.clients() != []


class Pairs(Handler):
    """Relays each client to the one that came before it, both ways."""

    state_version = 1
    refuses = ""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Conn | None = None
        self.arrived: dict[str, Conn | None] = {}
        self.closed: list[str] = []

    def on_open(self, conn: Conn) -> None:
        first, self.waits = self.waits, conn
        conn.data = "first" if first is None else "second"
        if first is not None:
            conn.relay_to(first)
            first.relay_to(conn)

    def on_leave(self, conn: Conn) -> bytes | None:
        return str(conn.data).encode()

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        conn.data = arrival.state.decode()
        if conn.data == self.refuses:
            raise NotTaken("not here")
        self.arrived[conn.data] = arrival.partner

    def on_close(self, conn: Conn, reason: str) -> None:
        self.closed.append(f"{conn.data} {reason}")


@pytest.mark.parametrize("refuses", ["", "first", "second"])
def test_clients_that_are_relayed_to_each_other_go_together_and_each_is_described(
    request: pytest.FixtureRequest, refuses: str
) -> None:
    giver, taker = Pairs(), Pairs()
    taker.refuses = refuses
    both = both_of(request, giver, taker)
    first, second = both.giver.connect(), both.giver.connect()
    outcome = both.hand_over()
    if refuses:
        assert outcome.moved == both.taker.listener.active == 0
        assert outcome.stayed == {"refused": 2}
        assert taker.closed == [f"{'second' if refuses == 'first' else 'first'} handed_back"]
        assert giver.closed == []
    else:
        assert (outcome.moved, both.taker.listener.active, both.taker.count("moved_in")) == (2, 2, 2)
        partner = {conn.data: conn for conn in both.taker.listener.clients()}
        assert taker.arrived == {"first": partner["second"], "second": partner["first"]}
        assert sorted(giver.closed) == ["first handed_over", "second handed_over"]
    where = both.giver if refuses else both.taker
    first.sendall(b"hello")
    assert where.receive(second, 5) == b"hello"
    second.sendall(b"world")
    assert where.receive(first, 5) == b"world"


class Elsewhere(Target):
    """Another listener of the same worker."""

    def on_completion(self, result: OpResult) -> None:
        pass


def test_client_that_is_relayed_to_one_of_another_listener_stays(request: pytest.FixtureRequest) -> None:
    """Its handler can say nothing of that one, which may not be to go anywhere."""
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    (conn,) = both.giver.listener.clients()
    near, far = socket.socketpair()
    other = both.giver.watcher.delegate(near)
    other.context = Elsewhere(None, None)
    with far:
        other.relay_to(conn)
        outcome = both.hand_over()
        assert outcome.stayed == {"handler": 1}
        far.sendall(b"hello")
        assert both.giver.receive(client, 5) == b"hello"
        other.abort()


class Wordless(Counting):
    """Has so much to say to a client that asks for it that it waits."""

    def on_read(self, conn: Conn, result: OpResult) -> None:
        if bytes(result.buffer) == b"!":
            conn.data += 1
            conn.write(LONG)
        else:
            super().on_read(conn, result)


LONG = pattern(16 << 20)
"""More than all buffers of the kernel take."""


def test_taker_that_hangs_while_it_is_offered_much_gets_nothing_when_it_wakes_up(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first offer has arrived in full, the second in part: the stream has no room to take them back."""
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    monkeypatch.setattr(giving, "UNITS_MAX", 1)
    both = both_of(request, Wordless(), Wordless())
    small, large, third = (both.giver.connect() for _ in range(3))
    assert ask(both.giver, small) == b"1"
    large.sendall(b"!")
    both.giver.step_until(lambda: both.giver.watcher.connections()[1].pending_write_bytes, "an answer that waits")
    both.begin(timeout_s=0.3)
    both.step_until(lambda: both.gives is not None and both.gives._links[0]._hello, "the taker's first word")
    outcome = both.step_until_over()
    assert outcome.stayed == {"timeout": 3}  # two were offered, one was not: nobody is left to take it
    assert (ask(both.giver, small), ask(both.giver, third)) == (b"2", b"1")
    for _ in range(20):
        both.step()
    assert (both.taker.listener.active, both.taker.count("moved_in"), len(both.takes._links)) == (0, 0, 0)
    assert both.giver.receive(large, len(LONG)) == LONG
    assert (ask(both.giver, small), ask(both.giver, large)) == (b"3", b"2")


def test_taker_that_hung_takes_over_once_it_goes_on(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(150)]
    both.begin()
    assert both.gives is not None
    (hung,) = both.gives._links
    both.step_until(lambda: hung._hello, "the taker's first word")
    until_s = time.monotonic() + LIMIT_S
    while not hung.is_over:
        assert time.monotonic() < until_s
        both.step(taker=False)
    assert [ask(both.giver, client) for client in clients] == [b"1"] * 150
    both.step_until(lambda: both.outcome is not None, "the outcome")
    assert both.outcome is not None
    assert (both.outcome.moved, both.outcome.stayed) == (150, {})
    assert [ask(both.taker, client) for client in clients] == [b"2"] * 150


def test_client_stands_still_only_once_for_a_taker_that_hangs_again_and_again(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    both.begin()
    for _ in range(2):
        both.step_until_detached()
        until_s = time.monotonic() + LIMIT_S
        while not both.giver.watcher.connections(context=both.giver.listener):
            assert time.monotonic() < until_s
            both.step(taker=False)
    assert both.step_until_over().stayed == {"timeout": 1}
    assert ask(both.giver, client) == b"1"


def test_client_sees_the_end_of_its_connection_although_a_taker_that_hangs_has_a_copy(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    both.begin(timeout_s=0.3)
    both.step_until_detached()
    assert both.step_until_over().stayed == {"timeout": 1}
    both.giver.stop()
    assert both.giver.is_ended(client)
    both.step_until(lambda: not both.takes._links, "the taker's waking up")


def test_commit_of_which_the_taker_has_a_part_leaves_the_connections_to_the_giver(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The taker hangs after it has accepted."""
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    monkeypatch.setattr(giving._Link, "_messages", lambda link, i, each, at, parts: [[0, 0, [["", parts.add(LONG)]]]])
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    both.begin(timeout_s=0.3)
    both.step_until_detached()
    both.step_until(lambda: both.taker.listener.active, "an offer that is built")
    assert both.step_until_over().stayed == {"timeout": 1}
    assert ask(both.giver, client) == b"2"
    both.step_until(lambda: both.taker.listener.active == 0, "its being handed back")
    assert both.taker.count("moved_in") == 0
    assert ask(both.giver, client) == b"3"


def test_taker_that_takes_its_time_but_goes_on_is_waited_for(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout_s = 1.0
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", timeout_s)
    both = both_of(request, Wordless(), Wordless())
    client = both.giver.connect()
    client.sendall(b"!")
    both.giver.step_until(lambda: both.giver.watcher.connections()[0].pending_write_bytes, "an answer that waits")
    both.begin()
    began_s = time.monotonic()
    while both.outcome is None:
        for _ in range(10):
            both.step(taker=False)
            time.sleep(0.003)
        for _ in range(3):
            both.step()
    assert time.monotonic() - began_s > timeout_s
    assert (both.outcome.moved, both.outcome.stayed) == (1, {})
    assert both.taker.receive(client, len(LONG)) == LONG


def test_accept_that_does_not_come_is_not_waited_for(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    both.begin(timeout_s=0.3)
    both.step_until_detached()
    assert both.step_until_over().stayed == {"timeout": 1}
    assert ask(both.giver, client) == b"1"
    for _ in range(5):
        both.step()
    assert both.taker.listener.active == 0


def test_accept_that_comes_too_late_changes_nothing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The giver has taken everything back. The taker learns by a failed write first: nobody may be served by both."""
    monkeypatch.setattr(giving, "PROGRESS_TIMEOUT_S", 0.05)
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    both.begin(timeout_s=0.3)
    both.step_until_detached()
    both.step_until(lambda: both.taker.listener.active, "an offer that is built")
    both.step_until_over()
    both.step_until(lambda: both.taker.listener.active == 0, "its being handed back")
    assert both.taker.count("moved_in") == 0
    assert ask(both.giver, client) == b"2"


def test_unit_that_makes_no_sense_costs_no_other(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(3)]
    for client in clients:
        ask(both.giver, client)
    describe = giving._Link._describe
    count = 0

    def spoil(*arguments: Any) -> Any:
        nonlocal count
        told = describe(*arguments)
        count += 1
        if told is not None and count == 2:
            told["conns"][0]["opened_s"] = "noon"
        elif told is not None and count == 3:
            del told["listener"]
        return told

    monkeypatch.setattr(giving._Link, "_describe", spoil)
    outcome = both.hand_over()
    assert (outcome.moved, outcome.stayed) == (1, {"version": 2})
    assert (both.giver.listener.active, both.taker.listener.active) == (2, 1)
    for where, client in zip((both.taker, both.giver, both.giver), clients, strict=True):
        assert ask(where, client) == b"2"


def test_reason_that_is_not_known_is_counted_as_a_refusal(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version of the daemon may have more of them."""
    both = both_of(request, Counting(), Refusing())
    client = both.giver.connect()
    build = taking._Link._build
    monkeypatch.setattr(taking._Link, "_build", lambda *arguments: dict.fromkeys(build(*arguments), "moonshine"))
    outcome = both.hand_over()
    assert outcome.stayed == {"refused": 1}
    assert ask(both.giver, client) == b"1"


def test_descriptors_whose_offer_was_not_said_in_full_are_closed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a socket that stays open would keep its client from seeing the end."""
    both = both_of(request, Counting(), Counting())
    ask(both.giver, both.giver.connect())
    monkeypatch.setattr(giving._Link, "_say", lambda *arguments: None)
    both.begin()
    both.step_until_detached()
    links = both.takes._links
    assert links
    both.end_giver()
    both.taker.step_until(lambda: not links, "the end of the link")
    with pytest.raises(BlockingIOError):
        both.takes._descriptors.recv(100)


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """Let this process open so many descriptors more."""
    found = [os.dup(0) for _ in range(descriptors + 1)]
    for fd in found:
        os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (found[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("descriptors", [0, 1, 2, 3])
def test_worker_without_descriptors_hands_nothing_over_and_goes_on(
    request: pytest.FixtureRequest, descriptors: int
) -> None:
    """The giver needs one, the taker two: one to be spoken to, and one to see how many there are."""
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    ask(both.giver, client)
    with room_for(descriptors):
        outcome = both.hand_over(timeout_s=0.3)
    assert outcome.moved == 0
    assert sum(outcome.stayed.values()) == 1
    assert ask(both.giver, client) == b"2"


def test_taker_keeps_descriptors_for_clients_to_come(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has room for is for all offers together, of whatever size they are."""
    monkeypatch.setattr(giving, "UNITS_MAX", 10)
    monkeypatch.setattr(taking, "_room", lambda: 25)
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(60)]
    outcome = both.hand_over()
    assert (outcome.moved, outcome.stayed) == (25, {"descriptors": 35})
    assert (both.taker.listener.active, both.giver.listener.active) == (25, 35)
    for client in clients:
        client.sendall(b"?")
    both.step_until(lambda: len(readable(clients)) == len(clients), "all answers")


def test_kernel_that_passes_no_more_descriptors_is_asked_for_fewer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a user may have on their way (ETOOMANYREFS), or than the taker has received yet (EAGAIN)."""
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(100)]
    tried: list[int] = []

    def send(sock: Any, address: str, token: bytes, offer: int, descriptors: Sequence[int]) -> None:
        tried.append(len(descriptors) - 1)
        if len(descriptors) > 30:
            raise OSError((errno.ETOOMANYREFS, errno.EAGAIN)[len(tried) % 2], "too many")
        send_descriptors(sock, address, token, offer, descriptors)

    monkeypatch.setattr(giving, "send_descriptors", send)
    outcome = both.hand_over()
    assert (outcome.moved, outcome.stayed) == (100, {})
    assert max(tried) > 30 > 25 >= max(tried[-3:])
    assert [ask(both.taker, client) for client in clients] == [b"1"] * 100


def test_datagrams_of_anybody_are_cleared_away(echoes: Both) -> None:
    echoes.giver.connect()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                stranger.sendto(b"x", echoes.takes.address["descriptors"])
    assert echoes.hand_over().moved == 1


@pytest.mark.parametrize(
    "said",
    [
        {"offer": 1},
        {"offer": "x", "quiet_s": 0, "units": [], "positions": {}},
        {"offer": 1, "units": [], "positions": {}},
        {"offer": 1, "quiet_s": 0, "units": [{"conns": []}], "positions": {}},
        {"offer": 1, "quiet_s": 0, "units": [], "positions": []},
        {"offer": 1, "quiet_s": 0, "units": 3, "positions": {}},
        {"commit": 3},
        {"commit": []},
        {"offer": 1, "quiet_s": float("nan"), "units": [], "positions": {}},
        {"offer": 1, "quiet_s": 10**400, "units": [], "positions": {}},
    ],
)
def test_nonsense_costs_a_taker_nothing(echoes: Both, said: dict[str, Any]) -> None:
    echoes.giver.connect()
    with socket.socket(socket.AF_UNIX) as giver:
        giver.connect(echoes.takes.address["stream"])
        giver.sendall(Parts().frame(said))
        echoes.taker.step_until(lambda: echoes.takes._links, "its link")
    echoes.taker.step_until(lambda: not echoes.takes._links, "the end of its link")
    assert echoes.hand_over().moved == 1


def deep(levels: int) -> bytes:
    """Return a frame of an object in which lists are nested."""
    said = b'{"sizes": [], "offer": ' + b"[" * levels + b"]" * levels + b"}"
    return HEADER.pack(len(said), 0) + said


def test_nesting_without_an_end_costs_a_taker_nothing(echoes: Both) -> None:
    echoes.giver.connect()
    with socket.socket(socket.AF_UNIX) as giver:
        giver.connect(echoes.takes.address["stream"])
        giver.sendall(deep(100_000))
        echoes.taker.step_until(lambda: echoes.takes._links, "its link")
    echoes.taker.step_until(lambda: not echoes.takes._links, "the end of its link")
    assert echoes.hand_over().moved == 1


HELLO = {"format": FORMAT, "token": "00" * 16, "descriptors": 100, "listeners": {}}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (deep(100_000), "lost"),
        (Parts().frame({"format": FORMAT + 1}), "version"),
        *(
            (Parts().frame({**HELLO, **wrong}), "lost")
            for wrong in (
                {"token": "noon"},
                {"token": 3},
                {"descriptors": "many"},
                {"listeners": [3]},
                {"listeners": {"front": {"handler": "test", "versions": 1, "feed": None}}},
                {"listeners": {"front": {"handler": "test", "versions": [1]}}},
            )
        ),
        (Parts().frame({"accept": 7, "refused": {}, "positions": {}}), "lost"),
        (Parts().frame({"accept": [], "refused": {}, "positions": {}}), "lost"),
    ],
)
def test_nonsense_costs_a_giver_nothing(echoes: Both, said: bytes, reason: str) -> None:
    client = echoes.giver.connect()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen()
        name = "\0" + listening.getsockname()[1:].decode("ascii")
        echoes.begin(timeout_s=0.2, takers=[{"stream": name, "descriptors": name}])
        taker, _ = listening.accept()
        with taker:
            taker.sendall(said)
            outcome = echoes.step_until_over()
    assert (outcome.moved, outcome.stayed) == (0, {reason: 1})
    assert echoes.giver.exchange(client, b"served") == b"served"


def test_other_takers_get_what_one_that_speaks_nonsense_was_offered(echoes: Both) -> None:
    clients = [echoes.giver.connect() for _ in range(20)]
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        for sock in (listening, datagrams):
            sock.bind("")
        listening.listen()
        stream, descriptors = ("\0" + sock.getsockname()[1:].decode("ascii") for sock in (listening, datagrams))
        listeners = {"front": {"handler": "test", "versions": [1], "feed": None}}
        echoes.begin(takers=[{"stream": stream, "descriptors": descriptors}, echoes.takes.address])
        taker, _ = listening.accept()
        with taker:
            taker.sendall(Parts().frame({**HELLO, "listeners": listeners}))
            echoes.step_until(
                lambda: len(echoes.giver.watcher.connections(context=echoes.giver.listener)) < 20, "an offer"
            )
            taker.sendall(deep(100_000))
            echoes.step_until(lambda: echoes.outcome is not None, "the outcome")
    assert echoes.outcome is not None
    assert (echoes.outcome.moved, echoes.outcome.stayed) == (20, {})
    for client in clients:
        assert echoes.taker.exchange(client, b"served") == b"served"
