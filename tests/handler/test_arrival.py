"""What a handler says of connections that go from one worker to another, where its class is made."""

import pytest

from gaiod import Arrival, Conn, GaiodError, Handler, NotTaken


def test_handler_that_describes_connections_has_to_take_them() -> None:
    with pytest.raises(TypeError, match=r"has a state_version; define on_arrive\(self, conn, arrival\), too"):

        class Half(Handler):
            state_version = 1


def test_handler_without_a_version_takes_none() -> None:
    class Plain(Handler):
        pass

    assert Plain.state_version is None
    assert Plain.state_accepts == frozenset()


def test_hook_with_other_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="on_arrive"):

        class Wrong(Handler):
            state_version = 1

            def on_arrive(self, conn: Conn) -> None:  # type: ignore[override]
                """Take too little."""


def test_arrival_is_what_it_is() -> None:
    arrival = Arrival(b"state", 2, None)
    with pytest.raises(AttributeError):
        arrival.version = 3  # type: ignore[misc]
    assert issubclass(NotTaken, GaiodError)
