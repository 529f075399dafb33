"""The handler API: what a handler that says nothing does, and what one that is misspelt is told."""

from dataclasses import dataclass
from typing import Any

import pytest

from gaiod import Conn, Handler, OpResult
from gaiod.runtime.handler import HOOKS
from gaiod.testing import (
    Abort,
    Arrived,
    Close,
    Closed,
    Connect,
    Connected,
    Event,
    Opened,
    PeerDone,
    Read,
    Sent,
    Ticked,
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


def test_handler_has_the_options_it_was_made_with() -> None:
    assert_script(Greeter(Options("good day")), (Opened(), [Written(b"good day")]))
    assert Handler().options is None


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("on_raed", "on_read"), ("on_clos", "on_close"), ("on_opened", "on_open"), ("on_connected", "on_connect")],
)
def test_handler_is_refused_and_the_nearest_hook_named_when_a_hook_is_misspelt(name: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name} is not a hook; did you mean {nearest}\?"):
        _define(name)


def test_handler_is_refused_and_every_hook_named_when_a_hook_is_near_to_none() -> None:
    with pytest.raises(TypeError, match=", ".join(HOOKS)):
        _define("on_xyzzy")


def test_handler_is_accepted_when_it_has_every_hook_and_helpers_of_its_own() -> None:
    members = dict.fromkeys((*HOOKS, "once", "_on_line"), _nothing)
    assert issubclass(type("Mine", (Handler,), members), Handler)


def test_handler_may_override_a_hook_of_a_handler_it_is_derived_from() -> None:
    class Louder(Greeter):
        def on_write(self, conn: Conn, result: OpResult) -> None:
            conn.read()

    assert_script(Louder(Options()), (Opened(), [Written(b"hello")]), (Sent(), [Read()]))


def test_connect_says_when_it_works_when_it_is_called_too_early() -> None:
    with pytest.raises(RuntimeError, match="call it from a hook"):
        Handler().connect(("127.0.0.1", 1))


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


def _nothing(*arguments: object) -> None:
    """A hook that does nothing."""


def _define(name: str) -> Any:
    return type("Mine", (Handler,), {name: _nothing})
