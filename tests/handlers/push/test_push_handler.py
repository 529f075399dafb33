"""The handler, as scripts and with clients: who gets which messages, what a bad subscription line leads to."""

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from core.support.waiting import MOMENT_S
from gaiod.handlers.push import Push
from worker.support.serving import Serving

from gaiod import NotTaken
from gaiod.plugins import build_options
from gaiod.testing import (
    Arrived,
    Arrives,
    Close,
    Join,
    Leaves,
    MakeGroup,
    Message,
    Opened,
    PeerDone,
    Publish,
    Read,
    Sent,
    ShutdownWrite,
    Started,
    Write,
    assert_script,
)

GROUP = MakeGroup(256 << 10, "disconnect")


def push(**values: Any) -> Push:
    """Make a handler of plain values."""
    return Push(build_options(Push, values))


# -- scripts -------------------------------------------------------------------------------------------------


def test_client_gets_the_listeners_topic_and_what_it_says_is_ignored() -> None:
    assert_script(
        push(topic="ticks"),
        (Started(), [GROUP]),
        (Opened(), [Join("ticks"), Read()]),
        (Message("ticks", b"one\n"), [Publish(b"one\n", "ticks")]),
        (Arrived(b"whatever"), [Read()]),
        (Message("ticks", b"two\n"), [Publish(b"two\n", "ticks")]),
    )


ON_TICKS = b'{"topics": ["ticks"], "framing": "lines", "left_s": null}'


def test_subscriber_goes_on_in_another_worker_with_its_topics() -> None:
    assert_script(
        push(topic="ticks"),
        (Started(), [GROUP]),
        (Opened(), [Join("ticks"), Read()]),
        (Leaves(ON_TICKS), []),
    )
    assert_script(
        push(topic="ticks"),
        (Started(), [GROUP]),
        (Arrives(ON_TICKS, version=1), [Join("ticks"), Read()]),
        (Message("ticks", b"one\n"), [Publish(b"one\n", "ticks")]),
        (Arrived(b"whatever"), [Read()]),
        (Leaves(ON_TICKS), []),
    )


def test_subscriber_does_not_leave_before_it_has_said_its_topics() -> None:
    assert_script(
        push(subscribe={}),
        (Started(), [GROUP]),
        (Opened(), [Read()]),
        (Arrived(b"SUBSCRIBE tick"), [Read()]),
        (Leaves(None), []),
        (Arrived(b"s\n"), [Join("ticks"), Read()]),
        (Leaves(ON_TICKS), []),
    )


@pytest.mark.parametrize("values", [{"topic": "other"}, {"subscribe": {"topics": ["other"]}}], ids=str)
def test_subscriber_is_not_taken_where_its_topic_is_not_offered(values: dict[str, Any]) -> None:
    with pytest.raises(NotTaken, match="ticks"):
        assert_script(push(**values), (Started(), [GROUP]), (Arrives(ON_TICKS, version=1), []))


@pytest.mark.parametrize("framing", ["length_prefixed", "raw"])
def test_subscriber_is_not_taken_where_messages_are_framed_in_another_way_than_it_was_promised(framing: str) -> None:
    with pytest.raises(NotTaken, match=f"lines was promised, and {framing} is what comes now"):
        assert_script(push(topic="ticks", framing=framing), (Started(), [GROUP]), (Arrives(ON_TICKS, version=1), []))


def test_group_gets_the_limits_of_the_options() -> None:
    slow = {"policy": "latest_only", "limit": 4096}
    assert_script(push(slow_consumer=slow), (Started(), [MakeGroup(4096, "latest_only")]))


@pytest.mark.parametrize(("policy", "size"), [("latest_only", 16384), ("drop_oldest", None), ("disconnect", None)])
def test_kernel_takes_little_ahead_where_only_the_latest_counts(policy: str, size: int | None) -> None:
    assert Push.notsent_lowat_of(push(slow_consumer={"policy": policy}).options) == size


def test_client_chooses_topics_with_its_first_line_in_whatever_pieces_it_comes() -> None:
    assert_script(
        push(subscribe={}),
        (Started(), [GROUP]),
        (Opened(), [Read()]),
        (Arrived(b"SUBSCR"), [Read()]),
        (Arrived(b"IBE a b"), [Read()]),
        (Arrived(b"c a\r\nand more\n"), [Join("a"), Join("bc"), Read()]),
        (Arrived(b"SUBSCRIBE d\n"), [Read()]),
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"HELLO a\n", b"write SUBSCRIBE name[ name...] and a newline"),
        (b"SUBSCRIBE\n", b"write SUBSCRIBE name[ name...] and a newline"),
        (b"subscribe a\n", b"write SUBSCRIBE name[ name...] and a newline"),
        (b"SUBSCRIBE a \n", b"is an empty topic; write a name such as ticks"),
        (b"SUBSCRIBE a\tb\n", b"a\\tb is not a topic; write a name without spaces and special characters"),
        (b"SUBSCRIBE \xff\n", b"the line is not UTF-8"),
        (b"SUBSCRIBE " + b"x" * 129 + b"\n", b"x" * 60 + b"... has 129 bytes; a topic has at most 128"),
        (b"SUBSCRIBE a b a\n", b"the line names 3 topics; at most 2 are possible"),
        (b"SUBSCRIBE c\n", b"there is no topic c here"),
        (b"x" * 513, b"the line has more than 512 bytes"),
    ],
)
def test_client_whose_line_is_wrong_is_told_and_closed_when_it_has_ended(line: bytes, error: bytes) -> None:
    assert_script(
        push(subscribe={"topics_max": 2, "topics": ["a", "b"]}),
        (Started(), [GROUP]),
        (Opened(), [Read()]),
        (Arrived(line), [Write(b"ERROR " + error + b"\n"), ShutdownWrite(), Read()]),
        (Sent(), []),
        (Arrived(b"SUBSCRIBE a\n"), [Read()]),
        (PeerDone(), [Close()]),
    )


def test_client_that_ends_before_its_line_does_is_told() -> None:
    error = b"ERROR the line has no end; write SUBSCRIBE name[ name...] and a newline\n"
    assert_script(
        push(subscribe={}),
        (Started(), [GROUP]),
        (Opened(), [Read()]),
        (Arrived(b"SUBSCRIBE a"), [Read()]),
        (PeerDone(), [Write(error), ShutdownWrite(), Close()]),
    )


def test_client_that_expects_lengths_is_told_in_a_message_of_its_framing() -> None:
    error = b"ERROR write SUBSCRIBE name[ name...] and a newline\n"
    assert_script(
        push(subscribe={}, framing="length_prefixed"),
        (Started(), [GROUP]),
        (Opened(), [Read()]),
        (Arrived(b"HELLO\n"), [Write(struct.pack(">I", len(error)) + error), ShutdownWrite(), Read()]),
    )


def test_new_subscriber_first_gets_the_last_message_of_each_topic() -> None:
    assert_script(
        push(subscribe={}, last_value=True),
        (Started(), [GROUP]),
        (Message("a", b"1\n"), [Publish(b"1\n", "a")]),
        (Message("a", b"2\n"), [Publish(b"2\n", "a")]),
        (Message("c", b"3\n"), [Publish(b"3\n", "c")]),
        (Opened(), [Read()]),
        (Arrived(b"SUBSCRIBE a b c\n"), [Write(b"2\n"), Join("a"), Join("b"), Write(b"3\n"), Join("c"), Read()]),
        (Sent(), []),
    )


def test_last_message_is_kept_only_if_that_is_wanted() -> None:
    assert_script(
        push(),
        (Started(), [GROUP]),
        (Message("default", b"1\n"), [Publish(b"1\n", "default")]),
        (Opened(), [Join("default"), Read()]),
    )


# -- messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "data", "message"),
    [
        ("lines", b"a", b"a\n"),
        ("lines", b"a\n", b"a\n"),
        ("lines", b"", b"\n"),
        ("raw", b"a\nb\n", b"a\nb\n"),
        ("length_prefixed", b"a\n", b"\x00\x00\x00\x02a\n"),
        ("length_prefixed", b"", b"\x00\x00\x00\x00"),
    ],
)
def test_message_is_framed(framing: str, data: bytes, message: bytes) -> None:
    assert Push.encode_message(push(framing=framing).options, "default", data) == message


@pytest.mark.parametrize(
    ("values", "topic", "data", "error"),
    [
        ({}, "default", b"a\nb", "has a newline inside, as byte 2; with the framing lines it would be two messages"),
        ({"framing": "raw"}, "default", b"", "is empty; with the framing raw nothing would be sent"),
        ({}, "default", b"x" * 1024, "has 1025 bytes with its frame; at most 1024 are possible"),
        ({}, "news", b"", "there is no topic news: every subscriber gets default"),
        ({"subscribe": {"topics": ["a"]}}, "b", b"", "there is no topic b: subscribe.topics does not name it"),
        ({"subscribe": {}}, "a b", b"", "a b is not a topic; write a name without spaces"),
        ({"subscribe": {}}, "", b"", "is an empty topic"),
    ],
)
def test_message_that_nobody_could_get_is_refused(values: dict[str, Any], topic: str, data: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Push.encode_message(push(slow_consumer={"limit": 1024}, **values).options, topic, data)


def test_longest_message_fits_the_limit_exactly() -> None:
    options = push(slow_consumer={"limit": 1024}).options
    assert len(Push.encode_message(options, "default", b"x" * 1023)) == 1024


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


def publish(serving: Serving, topic: str, data: bytes) -> None:
    """Have a message come from the feeder."""
    handler = serving.listener.handler
    handler.on_message(topic, handler.encode_message(handler.options, topic, data))


def test_messages_reach_those_who_want_them(start: Start) -> None:
    serving = start(subscribe={})
    one, both = serving.connect(), serving.connect()
    one.sendall(b"SUBSCRIBE a\n")
    both.sendall(b"SUBSCRIBE a b\n")
    subscribers = serving.listener.handler.subscribers  # type: ignore[attr-defined]
    serving.step_until(lambda: (subscribers.members("a"), subscribers.members("b")) == (2, 1), "the subscriptions")
    publish(serving, "b", b"first")
    assert serving.receive(both, 6) == b"first\n"
    publish(serving, "a", b"second")
    assert (serving.receive(one, 7), serving.receive(both, 7)) == (b"second\n", b"second\n")


def test_client_that_says_nothing_in_time_is_closed(start: Start) -> None:
    serving = start(subscribe={"timeout": MOMENT_S})
    assert serving.is_ended(serving.connect())
    serving.step_until(lambda: serving.closes() == {"deadline": 1}, "the end being counted")


def test_client_whose_line_is_endless_is_told_and_closed_at_its_deadline(start: Start) -> None:
    serving = start(subscribe={"timeout": MOMENT_S, "topics_max": 1})
    client = serving.connect()
    client.sendall(b"x" * 100_000)
    assert serving.receive(client, 100) == b"ERROR the line has more than 256 bytes\n"
    serving.step_until(lambda: serving.closes() == {"handler": 1}, "the end")


def test_worker_that_has_the_handler_stays_light() -> None:
    """The sources run in the feeder: no worker needs what they need."""
    code = (
        "import sys\nfrom gaiod.handlers.push import Push\nPush(Push.Options())\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('h11', 'redis', 'http', 'ssl')"
        " or 'push.sources' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_message_that_the_feeder_could_not_hand_over_is_refused_whatever_the_limit() -> None:
    options = push(slow_consumer={"limit": 64 << 20}).options
    with pytest.raises(ValueError, match="has 16777217 bytes with its frame; at most 16777216 are possible"):
        Push.encode_message(options, "default", bytes(16 << 20))
