"""gaiod.testing: a script passes when the handler does exactly what it says, and fails with the step otherwise."""

import errno
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from gaiod import ClientTls, Conn, DeadlineExceeded, Handler, OpResult, OpType, TlsError, TlsFacts
from gaiod.core import ENGINE
from gaiod.core.errors import ConnClosed, EmptyBuffer, UsageError
from gaiod.testing import (
    Abort,
    Action,
    Arrived,
    Cancel,
    Cancelled,
    Close,
    Closed,
    Connect,
    Connected,
    Event,
    Expired,
    HungUp,
    Led,
    Message,
    Opened,
    PeerDone,
    Post,
    Posted,
    Read,
    Relayed,
    RelayTo,
    Reset,
    ScriptedConn,
    Secured,
    Sent,
    Share,
    Shared,
    ShutdownWrite,
    Started,
    StartTls,
    Step,
    Ticked,
    Timed,
    Timer,
    Write,
    assert_script,
)


class Echo(Handler):
    """What most scripts here are about."""

    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.write(result.buffer)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read()


class Notes(Handler):
    """Notes each hook with what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []

    def on_open(self, conn: Conn) -> None:
        self.seen.append(("open", conn.peer_address))

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self.seen.append(("read", bytes(result.buffer), result.size, result.operation, result.error))

    def on_write(self, conn: Conn, result: OpResult) -> None:
        self.seen.append(("write", result.buffer, result.size, result.operation))

    def on_eof(self, conn: Conn) -> None:
        self.seen.append(("eof",))

    def on_close(self, conn: Conn, reason: str) -> None:
        self.seen.append(("close", reason, conn.closed))

    def on_tick(self) -> None:
        self.seen.append(("tick",))

    def on_start(self) -> None:
        self.seen.append(("start",))

    def on_timer(self, data: Any) -> None:
        self.seen.append(("timer", data))

    def on_post(self, data: Any) -> None:
        self.seen.append(("post", data))

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        self.seen.append(("relay", result.error, conn.at_eof))

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        self.seen.append(("connect", result.error, result.operation))

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        self.seen.append(("error", operation, type(error), getattr(error, "errno", None)))

    def on_hangup(self, conn: Conn, result: OpResult) -> None:
        self.seen.append(("hangup", result.size, type(result.error)))

    def on_message(self, topic: str, data: bytes) -> None:
        self.seen.append(("message", topic, data))


class Does(Handler):
    """Does one thing when a connection opens."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self._what = what

    def on_open(self, conn: Conn) -> None:
        self._what(self, conn)


REFUSED = ConnectionRefusedError(111, "refused")
TLS = ClientTls("db")


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        (Opened(), ("open", ("127.0.0.1", 40000))),
        (Arrived(b"abc"), ("read", b"abc", 3, OpType.READ, None)),
        (PeerDone(), ("eof",)),
        (Expired(), ("error", OpType.READ, DeadlineExceeded, None)),
        (Cancelled(), ("error", OpType.READ, OSError, errno.ECANCELED)),
        (HungUp(), ("hangup", 0, ConnectionResetError)),
        (HungUp(3, EOFError()), ("hangup", 3, EOFError)),
        (Closed(), ("close", "handler", True)),
        (Closed("idle"), ("close", "idle", True)),
        (Ticked(), ("tick",)),
        (Started(), ("start",)),
        (Timed("data"), ("timer", "data")),
        (Posted("data"), ("post", "data")),
        (Connected(), ("connect", None, OpType.CONNECT)),
        (Connected(REFUSED), ("connect", REFUSED, OpType.CONNECT)),
        (Relayed(), ("relay", None, True)),
        (Relayed(REFUSED), ("relay", REFUSED, False)),
        (Message("news", b"abc"), ("message", "news", b"abc")),
    ],
    ids=str,
)
def test_event_calls_its_hook_with_what_a_connection_would_give(event: Event, seen: tuple[Any, ...]) -> None:
    handler = Notes()
    assert_script(handler, (event, []))
    assert handler.seen == [seen]


def test_sent_completes_the_oldest_write_when_there_are_several() -> None:
    class Two(Notes):
        def on_open(self, conn: Conn) -> None:
            conn.write(b"first")
            conn.write(b"second")

    handler = Two()
    conn = assert_script(handler, (Opened(), [Write(b"first"), Write(b"second")]), (Sent(), []))
    assert handler.seen == [("write", b"first", 5, OpType.WRITE)]
    assert conn.pending_write_bytes == 6


@pytest.mark.parametrize(
    ("what", "action"),
    [
        (lambda handler, conn: conn.read(), Read()),
        (lambda handler, conn: conn.read(bytearray(10)), Read(10)),
        (lambda handler, conn: conn.read_full(bytearray(10)), Read(10, full=True)),
        (lambda handler, conn: conn.write(b"x"), Write(b"x")),
        (lambda handler, conn: conn.write(memoryview(b"x")), Write(b"x")),
        (lambda handler, conn: conn.close(), Close()),
        (lambda handler, conn: conn.abort(), Abort()),
        (lambda handler, conn: conn.shutdown_write(), ShutdownWrite()),
        (lambda handler, conn: conn.cancel(), Cancel()),
        (lambda handler, conn: conn.cancel(OpType.READ), Cancel(OpType.READ)),
        (lambda handler, conn: handler.connect("/run/x"), Connect("/run/x")),
        (lambda handler, conn: handler.connect("/run/x", options=[(1, 2, 3)]), Connect("/run/x", ((1, 2, 3),))),
        (lambda handler, conn: handler.connect("/run/x", tls=TLS), Connect("/run/x", tls=ClientTls("db"))),
        (lambda handler, conn: handler.timer(0.5, "data"), Timer(0.5, "data")),
        (lambda handler, conn: handler.post("data"), Post("data")),
        (lambda handler, conn: conn.relay_to("sink"), RelayTo("sink")),
        (lambda handler, conn: conn.reset(), Reset()),
    ],
)
def test_script_passes_with_the_action_of_the_handler_and_fails_with_any_other(what: Any, action: Action) -> None:
    assert_script(Does(what), (Opened(), [action]))
    with pytest.raises(AssertionError, match="step 1, Opened"):
        assert_script(Does(what), (Opened(), [Write(b"other")]))
    with pytest.raises(AssertionError, match="step 1, Opened"):
        assert_script(Does(what), (Opened(), []))


def test_script_fails_and_says_the_step_when_the_handler_does_something_else() -> None:
    with pytest.raises(AssertionError) as failure:
        assert_script(Echo(), (Opened(), [Read()]), (Arrived(b"ping"), [Write(b"pong")]), (Sent(), [Read()]))
    message = str(failure.value)
    assert "step 2, Arrived(data=b'ping')" in message
    assert "did [Write(data=b'ping')], not [Write(data=b'pong')]" in message


def test_script_fails_when_the_handler_does_too_much_or_in_another_order() -> None:
    class Eager(Echo):
        def on_read(self, conn: Conn, result: OpResult) -> None:
            conn.write(result.buffer)
            conn.read()

    assert_script(Eager(), (Opened(), [Read()]), (Arrived(b"x"), [Write(b"x"), Read()]))
    wrongs: list[list[Action]] = [[Write(b"x")], [Read(), Write(b"x")]]
    for wrong in wrongs:
        with pytest.raises(AssertionError, match="step 2"):
            assert_script(Eager(), (Opened(), [Read()]), (Arrived(b"x"), wrong))


def test_script_fails_when_it_says_sent_and_nothing_is_under_way() -> None:
    with pytest.raises(AssertionError, match="nothing under way"):
        assert_script(Echo(), (Opened(), [Read()]), (Sent(), [Read()]))


@pytest.mark.parametrize("event", [Expired(OpType.WRITE), Cancelled(OpType.WRITE)], ids=str)
def test_write_that_ends_early_is_the_oldest_and_is_not_sent_any_more(event: Event) -> None:
    class Two(Notes):
        def on_open(self, conn: Conn) -> None:
            conn.write(b"first")
            conn.write(b"second")

    conn = assert_script(Two(), (Opened(), [Write(b"first"), Write(b"second")]), (event, []))
    assert conn.writes == [b"second"]
    assert conn.pending_write_bytes == 6


@pytest.mark.parametrize(
    ("event", "action", "reason"),
    [
        (Expired(), Close(), "deadline"),
        (Cancelled(), Close(), None),
        (Expired(OpType.WRITE), Abort(), "deadline"),
        (Cancelled(OpType.WRITE), Abort(), None),
    ],
    ids=str,
)
def test_default_closes_what_ended_early(event: Event, action: Action, reason: str | None) -> None:
    class Writes(Handler):
        def on_open(self, conn: Conn) -> None:
            conn.write(b"x")

    assert assert_script(Writes(), (Opened(), [Write(b"x")]), (event, [action])).close_reason == reason


@pytest.mark.parametrize("event", [Expired(OpType.RELAY), Cancelled(OpType.CONNECT)], ids=str)
def test_script_fails_when_what_ended_early_has_a_hook_of_its_own(event: Event) -> None:
    with pytest.raises(AssertionError, match=r"write Relayed\(error\) or Connected\(error\)"):
        assert_script(Echo(), (event, []))


def test_script_lets_through_what_a_hook_raises() -> None:
    class Breaks(Handler):
        def on_open(self, conn: Conn) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        assert_script(Breaks(), (Opened(), []))


def test_script_returns_the_connection_with_what_the_handler_left_there() -> None:
    def remember(handler: Handler, conn: Conn) -> None:
        conn.data = {"name": "ada"}

    assert assert_script(Does(remember), (Opened(), [])).data == {"name": "ada"}


class Chooses(Handler):
    """Connects to the first of its servers, and counts how that goes."""

    @classmethod
    def servers_of(cls, options: Any) -> tuple[str, ...]:
        return ("a", "b")

    def on_open(self, conn: Conn) -> None:
        self.connect("/run/a")

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        server = self.server("a")
        if result.error is None:
            server.connected(0.001)
            return
        server.failed("refused")
        server.up = False
        self.count("upstream_unavailable")
        conn.close()


def test_script_tells_what_the_handler_counted() -> None:
    conn = assert_script(Chooses(), (Opened(), [Connect("/run/a")]), (Connected(REFUSED), [Close()]))
    assert conn.counts == {"upstream_unavailable": 1}
    assert conn.servers == {"a": {"failed_refused": 1, "down": 1}, "b": {}}
    conn = assert_script(Chooses(), (Opened(), [Connect("/run/a")]), (Connected(), []))
    assert (conn.counts, conn.servers["a"]) == ({}, {"connections": 1})


@pytest.mark.parametrize(
    "counts",
    [
        lambda handler: handler.server("c"),
        lambda handler: handler.server("a").failed("bored"),
        lambda handler: handler.count("accepted"),
    ],
    ids=["server", "reason", "name"],
)
def test_script_refuses_to_count_what_a_listener_refuses(counts: Callable[[Handler], object]) -> None:
    class Miscounts(Chooses):
        def on_open(self, conn: Conn) -> None:
            counts(self)

    with pytest.raises(ValueError, match=r"'(c|bored|accepted)'"):
        assert_script(Miscounts(), (Opened(), []))


def test_buffer_of_a_read_cannot_be_written_to() -> None:
    """As a connection's own: a handler that changes what it got must fail in its test already."""

    class Changes(Handler):
        def on_read(self, conn: Conn, result: OpResult) -> None:
            result.buffer[0] = 0

    with pytest.raises(TypeError):
        assert_script(Changes(), (Arrived(b"x"), []))


DAEMONS_OWN = {"announce", "rested_s", "traffic"}
"""Of a connection, what its listener uses and no handler."""


def _members() -> set[str]:
    """Return what a connection has for a handler; the interpreted one shows also what it keeps for itself."""
    documented = set(re.findall(r"(\w+)(?:, (\w+))?: ", (Conn.__doc__ or "").partition("Attributes:")[2]))
    names = {name for pair in documented for name in pair if name}
    hidden = set(getattr(Conn, "__slots__", ())) - names
    return {name for name in dir(Conn) if not name.startswith("_")} - hidden


def test_scripted_connection_has_everything_that_a_connection_has() -> None:
    """What a handler may look at on a connection, it may look at in a script."""
    assert {name for name in _members() if not hasattr(ScriptedConn(), name)} == DAEMONS_OWN


def test_scripted_connection_takes_the_same_arguments() -> None:
    compared = 0
    for name in sorted(_members() - DAEMONS_OWN):
        try:
            wanted = inspect.signature(getattr(Conn, name)).parameters
        except (TypeError, ValueError):
            continue  # an attribute, or compiled
        assert list(inspect.signature(getattr(ScriptedConn, name)).parameters) == list(wanted), name
        compared += 1
    assert compared or ENGINE == "compiled"


def test_script_may_look_at_whether_the_handler_made_its_connection_busy() -> None:
    class Works(Handler):
        def on_read(self, conn: Conn, result: OpResult) -> None:
            conn.busy = True

    conn = assert_script(Works(), (Arrived(b"x"), []))
    assert conn.busy
    assert conn.stalled_s(1.0) == 0.0


class Shares(Handler):
    """Counts together with the other workers, while it leads."""

    def on_start(self) -> None:
        self.known = dict(self.shared)

    def on_share(self, key: str, value: Any) -> None:
        self.known[key] = value

    def on_leader(self, is_leader: bool) -> None:
        self.share("leads", is_leader or None)

    def on_tick(self) -> None:
        self.share("ticks", 1)


def test_script_has_other_workers_share_values_and_lets_the_handler_lead() -> None:
    handler = Shares()
    assert_script(
        handler,
        (Shared("before", 1), []),
        (Started(), []),
        (Shared("after", (2,)), []),
        (Ticked(), [Share("ticks", 1)]),
        (Ticked(), []),
        (Led(), [Share("leads", True)]),
        (Led(), []),
        (Led(is_leader=False), [Share("leads", None)]),
    )
    assert handler.known == {"before": 1, "after": [2]}
    assert handler.shared == {"before": 1, "after": [2], "ticks": 1}


class Secures(Handler):
    """Begins TLS when it is offered and a client asks for it."""

    def on_open(self, conn: Conn) -> None:
        conn.write(b"ask\n" if self.offers_tls else b"no\n")

    def on_write(self, conn: Conn, result: OpResult) -> None:
        if conn.data is None:
            conn.read()
        else:
            conn.start_tls(server=True, unread=conn.data)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data = bytes(result.buffer).removeprefix(b"tls\n")
        conn.write(b"go\n")

    def on_tls(self, conn: Conn) -> None:
        conn.write(conn.tls.version.encode())


def test_tls_that_a_handler_begins_is_played() -> None:
    asked = ((Opened(), [Write(b"ask\n")]), (Sent(), [Read()]))
    assert_script(
        Secures(), *asked, (Arrived(b"tls\n"), [Write(b"go\n")]), (Sent(), [StartTls()]), (Secured(), [Write(b"1.3")])
    )
    conn = assert_script(
        Secures(), *asked, (Arrived(b"tls\nx"), [Write(b"go\n")]), (Sent(), [StartTls(unread=b"x")]),
        (Closed("tls_error"), []),
    )  # fmt: skip
    assert conn.closed
    assert_script(Secures(), (Opened(), [Write(b"no\n")]), offers_tls=False)


def test_tls_that_a_handler_begins_with_a_server_is_played() -> None:
    tls = ClientTls("db.example.org")

    class Connects(Handler):
        def on_open(self, conn: Conn) -> None:
            self.connect(("127.0.0.1", 5432))

        def on_connect(self, conn: Conn, result: OpResult) -> None:
            conn.start_tls(tls, unread=b"")

        def on_tls(self, conn: Conn) -> None:
            conn.read()

    opened = (Opened(), [Connect(("127.0.0.1", 5432))])
    assert_script(Connects(), opened, (Connected(), [StartTls(tls=tls)]), (Secured(), [Read()]))


@pytest.mark.parametrize(
    ("misuse", "error"),
    [
        (lambda conn: conn.write(b""), EmptyBuffer),
        (lambda conn: (conn.close(), conn.read()), ConnClosed),
        (lambda conn: conn.start_tls(server=True), UsageError),
        (lambda conn: conn.start_tls(unread=b""), UsageError),
        (lambda conn: (conn.write(b"go"), conn.start_tls(server=True, unread=b"")), UsageError),
    ],
    ids=["empty write", "read after close", "tls without unread", "tls of nobody", "tls behind a write"],
)
def test_scripted_connection_refuses_what_a_connection_refuses(
    misuse: Callable[[Conn], object], error: type[Exception]
) -> None:
    class Misuses(Handler):
        def on_open(self, conn: Conn) -> None:
            misuse(conn)

    with pytest.raises(error):
        assert_script(Misuses(), (Opened(), []))


def test_script_tells_what_was_agreed_with_a_server_that_speaks_tls() -> None:
    class Asks(Handler):
        def on_open(self, conn: Conn) -> None:
            self.connect("/run/db", tls=TLS)

        def on_connect(self, conn: Conn, result: OpResult) -> None:
            if isinstance(result.error, TlsError):
                conn.abort()
            else:
                conn.write((conn.tls.alpn or "none").encode())

    begin: Step = (Opened(), [Connect("/run/db", tls=TLS)])
    facts = TlsFacts("1.3", "TLS_AES_128_GCM_SHA256", "sql", "db", resumed=False)
    assert_script(Asks(), begin, (Connected(tls=facts), [Write(b"sql")]))
    assert_script(Asks(), begin, (Connected(TlsError(71, "TLS failed: its certificate has ended")), [Abort()]))
