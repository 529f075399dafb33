"""Subscribers that end their side: how long they go on, and that none of those who have gone is kept."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from core.support.descriptors import leaked_since, open_descriptors
from core.support.sockets import reset
from gaiod.handlers.push import Push
from gaiod.handlers.push.half_closed import TURN_MAX, HalfClosed
from worker.support.serving import Serving

from gaiod import Conn, Group
from gaiod.plugins import build_options
from gaiod.testing import (
    Arrives,
    Close,
    Closed,
    Join,
    Leaves,
    MakeGroup,
    Message,
    Opened,
    PeerDone,
    Publish,
    Read,
    Started,
    Timed,
    Timer,
    assert_script,
)

LONG_S = 3600.0
GONE = 300
TOPICS = 16


def push(**values: Any) -> Push:
    """Make a handler of plain values."""
    return Push(build_options(Push, values))


# -- the order in which they end -----------------------------------------------------------------------------


def conns(count: int) -> list[Conn]:
    return [cast(Conn, object()) for _ in range(count)]


def test_each_ends_when_its_own_time_is_over() -> None:
    half_closed = HalfClosed(2.0)
    one, other = conns(2)
    half_closed.add(one, 10.0)
    half_closed.add(other, 11.0)
    assert half_closed.take_due(11.9) == []
    assert half_closed.first_s() == 12.0
    assert half_closed.take_due(12.0) == [one]
    assert half_closed.first_s() == 13.0
    assert (half_closed.left_s(one, 12.0), half_closed.left_s(other, 12.0)) == (None, 1.0)


def test_who_has_closed_is_forgotten() -> None:
    half_closed = HalfClosed(2.0)
    one, other = conns(2)
    half_closed.add(one, 10.0)
    half_closed.remove(one)
    half_closed.remove(other)
    assert (len(half_closed), half_closed.first_s()) == (0, inf)
    assert half_closed.take_due(20.0) == []


def test_who_comes_from_another_worker_has_what_was_left_of_its_time() -> None:
    half_closed = HalfClosed(2.0)
    one, other, third, fourth = conns(4)
    half_closed.add(one, 10.0)
    half_closed.add(other, 10.5, 0.5)
    half_closed.add(third, 10.5, 60.0)  # the options were others there
    half_closed.add(fourth, 10.5, float("nan"))
    half_closed.remove(third)
    assert (half_closed.first_s(), half_closed.left_s(other, 10.5), half_closed.left_s(fourth, 10.5)) == (
        11.0,
        0.5,
        2.0,
    )
    assert half_closed.take_due(11.0) == [other]
    assert half_closed.take_due(12.0) == [one]
    assert half_closed.take_due(12.5) == [fourth]


def test_thousands_that_leave_at_once_do_not_end_in_one_turn() -> None:
    half_closed = HalfClosed(2.0)
    gone = conns(TURN_MAX + 1)
    for conn in gone:
        half_closed.add(conn, 10.0)
    assert half_closed.take_due(20.0) == gone[:TURN_MAX]
    assert half_closed.first_s() == 12.0
    assert half_closed.take_due(20.0) == gone[TURN_MAX:]


# -- scripts -------------------------------------------------------------------------------------------------


class Clock:
    """Stands for the time."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The handler's time, which a test moves."""
    clock = Clock()
    monkeypatch.setattr("gaiod.handlers.push.time", clock)
    return clock


GROUP = MakeGroup(256 << 10, "disconnect")


def test_subscriber_that_has_ended_its_side_still_gets_messages(clock: Clock) -> None:
    assert_script(
        push(half_closed_timeout=3.0),
        (Started(), [GROUP]),
        (Opened(), [Join("default"), Read()]),
        (PeerDone(), [Timer(3.0, 103.0)]),
        (Message("default", b"one\n"), [Publish(b"one\n", "default")]),
        (Timed(103.0), [Timer(3.0, 103.0)]),
    )


def test_subscription_ends_when_the_time_is_over(clock: Clock) -> None:
    handler = push(half_closed_timeout=3.0)
    conn = assert_script(
        handler,
        (Started(), [GROUP]),
        (Opened(), [Join("default"), Read()]),
        (PeerDone(), [Timer(3.0, 103.0)]),
    )
    clock.now_s += 2.5
    assert handler.notes_on(cast(Conn, conn)) == ("It has ended its side; its subscription ends in 0.5 s.",)
    clock.now_s += 0.5
    conn.actions.clear()
    handler.on_timer(103.0)
    assert conn.actions == [Close()]


def test_timer_is_set_once_and_not_again_when_nobody_is_left(clock: Clock) -> None:
    assert_script(
        push(),
        (Started(), [GROUP]),
        (Opened(), [Join("default"), Read()]),
        (PeerDone(), [Timer(1.0, 101.0)]),
        (Closed("admin"), []),
        (PeerDone(), []),
        (Closed("admin"), []),
        (Timed(101.0), []),
        (PeerDone(), [Timer(1.0, 101.0)]),
    )


def test_those_that_come_from_another_worker_go_on_without_a_read_and_with_one_timer_for_all(clock: Clock) -> None:
    state = b'{"topics": ["default"], "framing": "lines", "left_s": 1.0}'
    assert_script(
        push(),
        (Started(), [GROUP]),
        (Arrives(state, version=1), [Join("default"), Timer(1.0, 101.0)]),
        (Leaves(state), []),
        (Closed("handed_over"), []),
    )
    assert_script(
        push(),
        (Started(), [GROUP]),
        (Opened(), [Join("default"), Read()]),
        (PeerDone(), [Timer(1.0, 101.0)]),
        (Arrives(state, version=1), []),
        (Arrives(b'{"topics": ["default"], "framing": "lines", "left_s": 0.25}', version=1), [Timer(0.25, 100.25)]),
        (Timed(100.25), [Timer(0.25, 100.25)]),
        (Timed(101.0), []),
    )


# -- clients -------------------------------------------------------------------------------------------------

Start = Callable[..., Serving]


@pytest.fixture
def start() -> Iterator[Start]:
    """A starter of listeners whose handler is push."""
    with ExitStack() as stack:

        def start(**values: Any) -> Serving:
            serving = Serving(push(**values))
            stack.callback(serving.close)
            return serving

        yield start


def group_of(serving: Serving) -> Group:
    """Return the group of a listener's subscribers."""
    subscribers: Group = serving.listener.handler.subscribers  # type: ignore[attr-defined]
    return subscribers


def publish(serving: Serving, topic: str, data: bytes) -> None:
    """Have a message come from the feeder."""
    handler = serving.listener.handler
    handler.on_message(topic, handler.encode_message(handler.options, topic, data))


def test_fin_of_a_subscriber_does_not_end_its_subscription_at_once(start: Start) -> None:
    serving = start(half_closed_timeout=LONG_S)
    client = serving.connect()
    client.shutdown(socket.SHUT_WR)
    serving.step_until(lambda: serving.listener.clients()[0].at_eof, "the FIN")
    publish(serving, "default", b"still here")
    assert serving.receive(client, 11) == b"still here\n"


def test_subscriber_that_has_ended_its_side_gets_what_was_queued_and_then_the_end(start: Start) -> None:
    serving = start(half_closed_timeout=0.1, slow_consumer={"limit": 8 << 20})
    client = serving.connect()
    data = b"x" * ((8 << 20) - 1)
    client.shutdown(socket.SHUT_WR)
    publish(serving, "default", data)
    serving.step_until(lambda: len(group_of(serving)) == 0, "the end of the subscription")
    assert serving.receive(client, len(data) + 1) == data + b"\n"
    assert serving.is_ended(client)
    serving.step_until(serving.closes, "the end being counted")
    assert serving.closes() == {"peer_eof": 1}


def test_client_that_ends_before_its_line_does_is_counted_as_one_that_went(start: Start) -> None:
    serving = start(subscribe={})
    client = serving.connect()
    client.sendall(b"SUBSCRIBE a")
    client.shutdown(socket.SHUT_WR)
    assert serving.receive(client, 100).startswith(b"ERROR the line has no end")
    serving.step_until(serving.closes, "the end being counted")
    assert serving.closes() == {"peer_eof": 1}


def test_nothing_is_kept_of_subscribers_that_left_quiet_topics(start: Start) -> None:
    """They say what they want, and go: no message is ever sent that would find them gone."""
    serving = start(subscribe={}, half_closed_timeout=0.1)
    before = open_descriptors()
    for number in range(GONE):
        with socket.create_connection(serving.address) as client:
            topics = " ".join(f"{number}-{topic}" for topic in range(TOPICS))
            client.sendall(f"SUBSCRIBE {topics}\n".encode())
            serving.step()
    serving.step_until(lambda: sum(serving.closes().values()) == GONE, "the ends of all")
    assert serving.closes() == {"peer_eof": GONE}
    assert (serving.listener.active, len(group_of(serving)), group_of(serving).topics) == (0, 0, [])
    assert leaked_since(before) == {}


def test_subscriber_that_resets_after_its_fin_is_not_waited_for(start: Start) -> None:
    serving = start(half_closed_timeout=LONG_S)
    client = serving.connect()
    client.shutdown(socket.SHUT_WR)
    serving.step_until(lambda: serving.listener.clients()[0].at_eof, "the FIN")
    reset(client)
    serving.step_until(serving.closes, "the end being counted")
    assert serving.closes() == {"peer_reset": 1}
    assert len(group_of(serving)) == 0


def test_end_of_a_unix_socket_is_whole_and_not_waited_for() -> None:
    with TemporaryDirectory() as folder:
        sock = socket.create_server(f"{folder}/s", family=socket.AF_UNIX)
        serving = Serving(push(half_closed_timeout=LONG_S), sock=sock)
        try:
            serving.connect().close()
            serving.step_until(serving.closes, "the end being counted")
            assert serving.closes() == {"peer_eof": 1}
        finally:
            serving.close()
