"""Scripts of handlers whose connections go from one worker to another."""

import pytest

from gaiod import Arrival, Conn, Handler, NotTaken, OpResult
from gaiod.testing import (
    Arrived,
    Arrives,
    Close,
    Closed,
    Event,
    Leaves,
    Opened,
    Read,
    ScriptedConn,
    Sent,
    Write,
    assert_script,
)


class Counts(Handler):
    """Answers with how many messages a client has sent, whichever worker got them."""

    state_version = 2
    state_accepts = frozenset({1})
    told = ""

    def on_open(self, conn: Conn) -> None:
        conn.data = 0
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data += 1
        conn.busy = bytes(result.buffer) == b"work"
        conn.write(b"%d" % conn.data)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read()

    def on_leave(self, conn: Conn) -> bytes | None:
        return None if conn.data == 13 else b"%d" % conn.data

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        if arrival.state == b"":
            raise NotTaken("no count")
        conn.data = int(arrival.state) if arrival.version == 2 else int(arrival.state, 16)
        if not conn.pending_write_bytes:
            conn.read()

    def on_close(self, conn: Conn, reason: str) -> None:
        self.told = reason


def test_connection_leaves_with_its_state_and_arrives_with_it() -> None:
    leaving = Counts()
    assert_script(
        leaving,
        (Opened(), [Read()]),
        (Arrived(b"x"), [Write(b"1")]),
        (Sent(), [Read()]),
        (Leaves(b"1"), []),
        (Closed("handed_over"), []),
    )
    assert leaving.told == "handed_over"
    assert_script(
        Counts(),
        (Arrives(b"1", version=2), [Read()]),
        (Arrived(b"x"), [Write(b"2")]),
        (Leaves(b"2"), []),
    )


def test_handler_is_told_the_version_that_the_state_is_of() -> None:
    assert assert_script(Counts(), (Arrives(b"ff", version=1), [Read()])).data == 255
    with pytest.raises(AssertionError, match=r"Arrives.*state_accepts"):
        assert_script(Counts(), (Arrives(b"1", version=3), [Read()]))


def test_what_was_not_sent_yet_is_pending_and_then_sent() -> None:
    conn = assert_script(Counts(), (Arrives(b"1", 2, unsent=b"1"), []))
    assert (conn.writes, conn.pending_write_bytes) == ([b"1"], 1)
    assert_script(Counts(), (Arrives(b"1", 2, unsent=b"1"), []), (Sent(), [Read()]))


def test_connection_that_is_busy_is_not_asked_and_does_not_leave() -> None:
    assert_script(
        Counts(),
        (Opened(), [Read()]),
        (Arrived(b"work"), [Write(b"1")]),
        (Leaves(None), []),
        (Arrived(b"x"), [Write(b"2")]),
        (Leaves(b"2"), []),
    )


def test_handler_may_say_that_a_connection_cannot_leave_now() -> None:
    assert_script(Counts(), (Arrives(b"13", version=2), [Read()]), (Leaves(None), []))


def test_script_lets_through_that_a_handler_does_not_take_a_connection() -> None:
    with pytest.raises(NotTaken):
        assert_script(Counts(), (Arrives(b"", version=2), []))


@pytest.mark.parametrize(
    ("event", "said"),
    [(Leaves(b"2"), "on_leave returned b'1'"), (Leaves(None), "on_leave returned b'1'")],
    ids=["other bytes", "None"],
)
def test_script_fails_when_the_handler_leaves_otherwise(event: Event, said: str) -> None:
    with pytest.raises(AssertionError, match=f"Leaves.*{said}"):
        assert_script(Counts(), (Arrives(b"1", version=2), [Read()]), (event, []))


def test_script_fails_when_a_handler_does_something_as_it_leaves() -> None:
    class Hasty(Counts):
        def on_leave(self, conn: Conn) -> bytes | None:
            conn.close()
            return b""

    with pytest.raises(AssertionError, match=r"step 1, Leaves.*did \[Close\(\)\], not \[\]"):
        assert_script(Hasty(), (Leaves(b""), []))
    assert_script(Hasty(), (Leaves(b""), [Close()]))


def test_script_fails_when_what_leaves_is_not_bytes() -> None:
    class Wrong(Counts):
        def on_leave(self, conn: Conn) -> bytes | None:
            return bytearray(b"1")  # type: ignore[return-value]

    with pytest.raises(AssertionError, match="must return bytes or None"):
        assert_script(Wrong(), (Leaves(b"1"), []))


@pytest.mark.parametrize("event", [Leaves(b""), Arrives(b"", version=1)], ids=["Leaves", "Arrives"])
def test_script_fails_when_connections_of_the_handler_are_never_handed_over(event: Event) -> None:
    with pytest.raises(AssertionError, match="state_"):
        assert_script(Handler(), (event, []))


def test_partner_is_given_to_the_handler() -> None:
    class Pairs(Counts):
        def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
            assert arrival.partner is not None
            conn.data = arrival.partner
            arrival.partner.read()

    server = ScriptedConn()
    conn = assert_script(Pairs(), (Arrives(b"", 2, partner=server), []))
    assert conn.data is server
    assert server.actions == [Read()]
