"""The handler API: what a handler that says nothing does, and what one that is misspelt is told."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gaiod import Conn, Handler, OpResult
from gaiod.testing import (
    Abort,
    Arrived,
    Close,
    Closed,
    Connect,
    Connected,
    Event,
    Message,
    Opened,
    PeerDone,
    Posted,
    Read,
    Sent,
    Started,
    Ticked,
    Timed,
    assert_script,
)
from gaiod.testing import Write as Written


@dataclass
class Options:
    """Options of a handler."""

    greeting: str = "hello"


class Greeter(Handler):
    """Says what its options say, and waits."""

    Options = Options

    def on_open(self, conn: Conn) -> None:
        conn.write(self.options.greeting.encode())


@pytest.mark.parametrize(
    "event", [Opened(), Arrived(b"x"), PeerDone(), Connected(), Connected(OSError(111, "refused"))]
)
def test_handler_closes_the_connection_when_it_has_no_hook_for_what_happens(event: Event) -> None:
    assert_script(Handler(), (event, [Close()]))


def test_handler_closes_the_connection_when_a_write_is_done_and_it_has_no_hook_for_that() -> None:
    assert_script(Greeter(Options()), (Opened(), [Written(b"hello")]), (Sent(), [Close()]))


def test_handler_does_nothing_when_a_connection_closes_or_time_passes_and_it_has_no_hook_for_that() -> None:
    assert_script(Handler(), (Closed("peer_reset"), []), (Ticked(), []))
    assert_script(Handler(), (Started(), []), (Timed(1), []), (Posted(2), []))
    assert_script(Handler(), (Message("news", b"abc"), []))


def test_handler_has_the_options_it_was_made_with() -> None:
    assert_script(Greeter(Options("good day")), (Opened(), [Written(b"good day")]))
    assert Handler().options is None


def test_handler_may_override_a_hook_of_a_handler_it_is_derived_from() -> None:
    class Louder(Greeter):
        def on_write(self, conn: Conn, result: OpResult) -> None:
            conn.read()

    assert_script(Louder(Options()), (Opened(), [Written(b"hello")]), (Sent(), [Read()]))


CALLS: dict[str, Callable[[Handler], object]] = {
    "connect": lambda handler: handler.connect(("127.0.0.1", 1)),
    "timer": lambda handler: handler.timer(1.0, None),
    "post": lambda handler: handler.post(None),
    "server": lambda handler: handler.server("a"),
    "count": lambda handler: handler.count("upstream_retries"),
    "listener": lambda handler: handler.listener,
}


@pytest.mark.parametrize("name", CALLS)
def test_what_needs_a_listener_says_so_when_it_is_called_too_early(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^{name} works once .* call it from a hook"):
        CALLS[name](Handler())


def test_handler_that_says_nothing_of_servers_has_none_and_no_limit() -> None:
    assert Handler.servers_of(None) == ()
    assert Handler.buffer_limit_of(None) is None
    assert Handler.notsent_lowat_of(None) is None


def test_connect_opens_a_connection_of_the_handlers_own_when_it_is_called_from_a_hook() -> None:
    class Relay(Handler):
        def on_open(self, conn: Conn) -> None:
            self.connect(("192.0.2.1", 80), data="upstream")

        def on_connect(self, conn: Conn, result: OpResult) -> None:
            assert conn.data == "upstream"
            (conn.abort if result.error else conn.read)()

    assert_script(Relay(), (Opened(), [Connect(("192.0.2.1", 80))]), (Connected(), [Read()]))
    assert_script(
        Relay(),
        (Opened(), [Connect(("192.0.2.1", 80))]),
        (Connected(ConnectionRefusedError(111, "refused")), [Abort()]),
    )
