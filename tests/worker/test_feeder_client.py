"""A worker's link to the feeder: what it delivers, what it counts, and that it comes back."""

import socket
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from core.support.waiting import LIMIT_S

from gaiod import Conn, Handler
from gaiod.process.feed_records import Reader, hello, record
from gaiod.worker.feeder_client import FeederClient
from worker.conftest import Serve
from worker.support.serving import Serving

Messages = list[tuple[str, bytes]]


class Takes(Handler):
    """Notes messages, and raises at one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Messages = []

    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_message(self, topic: str, data: bytes) -> None:
        self.seen.append((topic, data))
        if data == b"raise":
            raise LookupError("told to")


class Linked:
    """A listener with a link, and the feeder that the test plays.

    Attributes:
        connected: the instances of the feeders that have answered.
    """

    def __init__(self, serving: Serving, handler: Takes) -> None:
        self.serving = serving
        self.handler = handler
        self.connected: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind("")
        self._socket.listen()
        self._socket.setblocking(False)
        address = self._socket.getsockname().decode()
        self.link = FeederClient(serving.watcher, address, {serving.listener: "key"}, self.connected.append)
        self.sock: socket.socket | None = None

    def accept(self) -> dict[str, Any]:
        """Take its next connection; return its hello."""
        reader = Reader()
        found: list[dict[str, Any]] = []
        taken: list[socket.socket] = []

        def look() -> bool:
            try:
                if not taken:
                    taken.append(self._socket.accept()[0])
                    taken[0].setblocking(False)
                reader.add(taken[0].recv(65536))
            except BlockingIOError:
                return False
            said = reader.take_hello()
            if said is not None:
                found.append(said[0])
            return said is not None

        self.serving.step_until(look, "a worker's hello")
        (self.sock,) = taken
        self.sock.settimeout(LIMIT_S)
        return found[0]

    def answer(self, sequence: int, instance: int = 1, *, missing: Sequence[tuple[int, bytes]] = ()) -> None:
        """Answer its hello, with what it has not got, up to a sequence."""
        before = len(self.connected)
        records = [record(4, number, b"t", data) for number, data in missing]
        self.say(b"".join((hello({"front": {"number": 4}}, instance), *records, record(4, sequence, b"", b""))))
        self.serving.step_until(lambda: len(self.connected) > before, "the answer being taken")

    def say(self, data: bytes) -> None:
        """Send it something."""
        assert self.sock is not None
        self.sock.sendall(data)

    def send(self, sequence: int, data: bytes) -> None:
        """Send it a message."""
        self.say(record(4, sequence, b"t", data))

    def hang_up(self) -> None:
        """End the connection."""
        assert self.sock is not None
        self.sock.close()

    def close(self) -> None:
        """Close everything."""
        self._socket.close()
        if self.sock is not None:
            self.sock.close()

    def until(self, *messages: bytes) -> None:
        """Wait until it has delivered these, and no others."""
        self.serving.step_until(lambda: len(self.handler.seen) >= len(messages), "the messages")
        assert self.handler.seen == [("t", data) for data in messages]


@pytest.fixture
def linked(serve: Serve) -> Iterator[Linked]:
    """A link that connects."""
    handler = Takes()
    linked = Linked(serve(handler), handler)
    yield linked
    linked.close()


def test_worker_asks_for_its_feeds_and_delivers_what_comes(linked: Linked) -> None:
    wanted = {"key": "key", "handler": "test", "options": {}}
    assert linked.accept() == {"front": {**wanted, "sequence": None}}
    assert linked.connected == []
    linked.answer(17, instance=3)
    assert linked.connected == [3]
    linked.send(18, b"one")
    linked.send(19, b"two")
    linked.until(b"one", b"two")
    assert linked.serving.count("feed_gaps") == 0


def test_messages_behind_the_answer_are_delivered(linked: Linked) -> None:
    linked.accept()
    linked.say(hello({"front": {"number": 4}}, 1) + record(4, 0, b"", b"") + record(4, 1, b"t", b"at once"))
    linked.until(b"at once")


def test_worker_comes_back_when_the_link_ends_and_counts_what_it_has_missed(
    linked: Linked, caplog: pytest.LogCaptureFixture
) -> None:
    linked.accept()
    linked.answer(17)
    linked.send(18, b"one")
    linked.until(b"one")
    linked.hang_up()
    assert linked.accept()["front"]["sequence"] == 18
    linked.answer(43, instance=2)
    linked.send(44, b"two")
    linked.until(b"one", b"two")
    assert linked.connected == [1, 2]
    assert linked.serving.count("feed_gaps") == 25
    assert "listener front: 25 messages did not get to this worker" in caplog.text


def test_worker_misses_nothing_when_nothing_was_published_meanwhile(linked: Linked) -> None:
    linked.accept()
    linked.answer(17)
    linked.hang_up()
    linked.accept()
    linked.answer(17)
    linked.hang_up()
    linked.accept()
    linked.answer(3)  # its supervisor has forgotten the listener in between, say
    linked.send(4, b"one")
    linked.until(b"one")
    assert linked.serving.count("feed_gaps") == 0


def test_worker_counts_messages_that_are_left_out(linked: Linked) -> None:
    linked.accept()
    linked.answer(0)
    linked.send(1, b"one")
    linked.send(4, b"four")
    linked.until(b"one", b"four")
    assert linked.serving.count("feed_gaps") == 2


def test_worker_gets_late_what_it_has_missed_and_counts_what_is_gone(linked: Linked) -> None:
    linked.accept()
    linked.answer(17)
    linked.hang_up()
    linked.accept()
    linked.answer(23, missing=[(20, b"twenty"), (21, b"next")])
    linked.send(24, b"new")
    linked.until(b"twenty", b"next", b"new")
    assert linked.serving.count("feed_resent") == 2
    assert linked.serving.count("feed_gaps") == 2 + 2


def test_new_worker_is_told_the_last_messages_before_it_is_connected(linked: Linked) -> None:
    linked.accept()
    linked.say(hello({"front": {"number": 4}}, 1) + record(4, 5, b"t", b"five") + record(4, 9, b"t", b"nine"))
    linked.until(b"five", b"nine")
    assert linked.connected == []
    linked.say(record(4, 12, b"", b""))
    linked.serving.step_until(lambda: linked.connected, "the end of what was before")
    linked.send(13, b"new")
    linked.until(b"five", b"nine", b"new")
    assert (linked.serving.count("feed_gaps"), linked.serving.count("feed_resent")) == (0, 0)


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 200 OK\r\n", hello({"front": {"number": 4}}, 1) + b"\xff" * 20, hello({"back": {}}, 1)],
    ids=["something else", "broken", "another listener"],
)
def test_worker_connects_again_when_it_does_not_understand_the_feeder(
    linked: Linked, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    linked.accept()
    linked.say(said)
    linked.serving.step_until(lambda: "the feeder sent something that cannot be understood" in caplog.text, "the error")
    linked.hang_up()
    linked.accept()
    linked.answer(0)
    linked.send(1, b"one")
    linked.until(b"one")


def test_worker_tries_again_while_nobody_listens(serve: Serve) -> None:
    handler = Takes()
    serving = serve(handler)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("")
        connected: list[int] = []
        FeederClient(serving.watcher, sock.getsockname().decode(), {serving.listener: "key"}, connected.append)
        serving.step()
        sock.listen()
        sock.setblocking(False)
        taken = []

        def look() -> bool:
            try:
                taken.append(sock.accept()[0])
            except BlockingIOError:
                pass
            return bool(taken)

        serving.step_until(look, "another try")
        taken[0].close()


def test_hook_that_raises_is_counted_and_the_next_message_delivered(linked: Linked) -> None:
    linked.accept()
    linked.answer(0)
    linked.send(1, b"raise")
    linked.send(2, b"next")
    linked.until(b"raise", b"next")
    assert linked.serving.count("handler_error_on_message") == 1


def test_link_is_not_read_while_the_listener_is_behind(linked: Linked) -> None:
    """What comes faster than it can be dealt out waits in the link, where the feeder sees it."""
    linked.accept()
    linked.answer(0)
    group = linked.handler.group()
    with patch("gaiod.worker.listener.BEHIND_BYTES", group.pending_bytes - 1):
        linked.send(1, b"one")
        linked.until(b"one")
        linked.send(2, b"two")
        for _ in range(20):
            linked.serving.step()
        linked.until(b"one")
    linked.until(b"one", b"two")


def test_nothing_is_delivered_once_the_listener_serves_nobody(linked: Linked) -> None:
    linked.accept()
    linked.answer(0)
    client = linked.serving.connect()
    linked.serving.listener.stop_accepting()
    linked.send(1, b"to who is left")
    linked.until(b"to who is left")
    client.close()
    linked.serving.step_until(lambda: not linked.serving.listener.active, "the last client's end")
    linked.send(2, b"to nobody")
    linked.hang_up()
    linked.accept()
    linked.until(b"to who is left")
