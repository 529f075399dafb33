"""The channel between a supervisor and a worker: whole messages, whatever the kernel makes of them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from core.support.sockets import NewPair
from core.support.waiting import LIMIT_S

from gaiod import Watcher
from gaiod.process import channel
from gaiod.process.channel import Channel
from gaiod.process.dispatch import dispatch

MESSAGES: list[dict[str, Any]] = [
    {"ready": True},
    {"failed": "why\nnot: \u00fc \U0001f642"},
    {"serve": {"a": [1, 2.5, None]}},
]


class End:
    """One end, and what it has received."""

    def __init__(self, watcher: Watcher, sock: Any) -> None:
        self._watcher = watcher
        self.received: list[dict[str, Any] | None] = []
        self.channel = Channel(watcher.delegate(sock), self.received.append)

    def wait_for(self, n: int) -> list[dict[str, Any] | None]:
        """Return the first `n` messages, when they are there."""
        until_s = time.monotonic() + LIMIT_S
        while len(self.received) < n:
            assert time.monotonic() < until_s, self.received
            dispatch(self._watcher.wait_io(LIMIT_S))
        return self.received


@pytest.fixture
def ends(watcher: Watcher, unix_pair: NewPair) -> Iterator[tuple[End, End]]:
    """Both ends, on one watcher."""
    near, far = unix_pair()
    yield End(watcher, near), End(watcher, far)


def test_messages_arrive_in_order_both_ways(ends: tuple[End, End]) -> None:
    one, other = ends
    for message in MESSAGES:
        one.channel.send(message)
        other.channel.send({**message, "back": 1})
    assert other.wait_for(3) == MESSAGES
    assert one.wait_for(3) == [{**message, "back": 1} for message in MESSAGES]


def test_message_arrives_once_when_it_comes_byte_by_byte(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    end = End(watcher, near)
    line = json.dumps(MESSAGES[1]).encode() + b"\n"
    for position in range(len(line)):
        far.sendall(line[position : position + 1])
        dispatch(watcher.wait_io(0))
    assert end.wait_for(1) == [MESSAGES[1]]


def test_messages_arrive_apart_when_they_come_together(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    end = End(watcher, near)
    far.sendall(b'{"a": 1}\n{"b": 2}\n{"c":')
    assert end.wait_for(2) == [{"a": 1}, {"b": 2}]
    far.sendall(b" 3}\n")
    assert end.wait_for(3) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_message_arrives_whole_when_it_is_larger_than_any_buffer(ends: tuple[End, End]) -> None:
    one, other = ends
    message = {"listeners": ["x" * 1000] * 2000}
    one.channel.send(message)
    assert other.wait_for(1) == [message]


def test_end_is_told_once_when_the_other_side_closes(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    end = End(watcher, near)
    far.sendall(b'{"last": true}\n{"half')
    far.close()
    assert end.wait_for(2) == [{"last": True}, None]
    watcher.wait_io(0)
    assert end.received == [{"last": True}, None]


def test_send_is_quiet_when_the_other_side_is_gone(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    end = End(watcher, near)
    far.close()
    end.channel.send({"lost": True})
    assert end.wait_for(1) == [None]
    end.channel.send({"lost": True})
    dispatch(watcher.wait_io(0))
    assert end.received == [None]


def test_last_words_of_the_other_side_are_taken_though_a_message_to_it_fails(
    watcher: Watcher, unix_pair: NewPair
) -> None:
    near, far = unix_pair()
    end = End(watcher, near)
    far.sendall(b'{"failed": "why"}\n')
    far.close()
    end.channel.send({"serve": True})
    assert end.wait_for(2) == [{"failed": "why"}, None]


def test_end_is_told_when_a_line_has_no_end(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "LINE_MAX_BYTES", 1000)
    near, far = unix_pair()
    end = End(watcher, near)
    far.sendall(b"x" * 1001)
    assert end.wait_for(1) == [None]
    assert far.recv(1) == b""


def test_long_line_is_taken_up_to_the_limit(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "LINE_MAX_BYTES", 1000)
    near, far = unix_pair()
    end = End(watcher, near)
    message = {"x": "y" * (1000 - len('{"x": ""}'))}
    far.sendall(json.dumps(message).encode())
    dispatch(watcher.wait_io(LIMIT_S))
    far.sendall(b"\n")
    assert end.wait_for(1) == [message]


def test_nothing_more_is_taken_when_a_message_is_the_reason_to_close(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    received: list[dict[str, Any] | None] = []

    def take(message: dict[str, Any] | None) -> None:
        received.append(message)
        end.close()

    end = Channel(watcher.delegate(near), take)
    far.sendall(b'{"a": 1}\n{"b": 2}\n')
    dispatch(watcher.wait_io(LIMIT_S))
    dispatch(watcher.wait_io(0))
    assert received == [{"a": 1}]
    assert far.recv(1) == b""


@pytest.mark.parametrize("line", [b"not JSON\n", b"\xff\n"])
def test_channel_ends_when_a_message_makes_no_sense(
    watcher: Watcher, unix_pair: NewPair, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker of another version, or a broken one, must not end its supervisor."""
    near, far = unix_pair()
    end = End(watcher, near)
    far.sendall(line)
    assert end.wait_for(1) == [None]
    assert far.recv(1) == b""
    assert "cannot be understood" in caplog.text


def test_channel_ends_when_taking_a_message_raises(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    taken: list[object] = []

    def take(message: dict[str, Any] | None) -> None:
        taken.append(message)
        if message is not None:
            raise KeyError("unknown")

    Channel(watcher.delegate(near), take)
    far.sendall(b'{"strange": 1}\n')
    until_s = time.monotonic() + LIMIT_S
    while len(taken) < 2:
        assert time.monotonic() < until_s
        dispatch(watcher.wait_io(LIMIT_S))
    assert taken == [{"strange": 1}, None]
