"""What a handler says of connections that go from one worker to another, where its class is made."""

from typing import Any

import pytest

from gaiod import Arrival, Conn, GaiodError, Handler, NotTaken


class Counted(Handler):
    """Takes connections, once it has a version."""

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        """Take it."""


def test_handler_that_describes_connections_has_to_take_them() -> None:
    with pytest.raises(TypeError, match=r"has a state_version; define on_arrive\(self, conn, arrival\), too"):

        class Half(Handler):
            state_version = 1


@pytest.mark.parametrize("version", ["1", 1.5, True, -1, 1 << 63, (1,)])
def test_version_is_a_number(version: Any) -> None:
    with pytest.raises(TypeError, match=r"Counts\.state_version is .*; write a whole number from 0 on, or None"):
        type("Counts", (Counted,), {"__qualname__": "Counts", "state_version": version})


@pytest.mark.parametrize("accepts", [3, "12", [1, 2], {"1"}, frozenset({1.5}), {True}, {-1}, None])
def test_versions_that_are_accepted_are_a_set_of_numbers(accepts: Any) -> None:
    with pytest.raises(TypeError, match=r"Counts\.state_accepts is .*; write a set of versions: {1, 2}"):
        type("Counts", (Counted,), {"__qualname__": "Counts", "state_version": 3, "state_accepts": accepts})


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
