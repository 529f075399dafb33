"""The subscription line, in any pieces and of any bytes. What is said of wrong ones: see test_push_handler.py."""

import pytest
from gaiod.handlers.push.options import SubscribeOptions
from gaiod.handlers.push.subscription import Subscription, SubscriptionError
from gaiod.handlers.push.topics import check_topic
from hypothesis import given
from hypothesis import strategies as st


def is_topic(name: str) -> bool:
    try:
        check_topic(name)
    except ValueError:
        return False
    return True


TOPICS = st.text(min_size=1, max_size=40).filter(is_topic)


@given(st.lists(TOPICS, min_size=1, max_size=16, unique=True), st.integers(1, 50), st.binary())
def test_topics_are_understood_whatever_pieces_the_line_comes_in(topics: list[str], size: int, more: bytes) -> None:
    data = f"SUBSCRIBE {' '.join(topics)}\n".encode() + more
    asked = Subscription(SubscribeOptions(), 0.0)
    for start in range(0, len(data), size):
        found = asked.feed(data[start : start + size])
        if found:
            break
    assert found == tuple(topics)


@given(st.lists(st.binary(max_size=40)), st.integers(1, 4))
def test_any_bytes_are_topics_or_refused_with_one_printable_line(pieces: list[bytes], topics_max: int) -> None:
    asked = Subscription(SubscribeOptions(topics_max=topics_max), 0.0)
    for piece in pieces:
        try:
            topics = asked.feed(piece)
        except SubscriptionError as error:
            assert str(error).isprintable()
            break
        if topics:
            assert len(topics) <= topics_max
            assert all(map(is_topic, topics))
            break


def test_longest_line_is_taken() -> None:
    topics = [f"{number:0128}" for number in range(16)]
    asked = Subscription(SubscribeOptions(), 0.0)
    assert asked.feed(f"SUBSCRIBE {' '.join(topics)}\r\n".encode()) == tuple(topics)


@pytest.mark.parametrize(("name", "size"), [("x" * 129, 129), ("ä" * 65, 130)])
def test_topic_is_measured_in_bytes(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"has {size} bytes; a topic has at most 128"):
        check_topic(name)


@pytest.mark.parametrize("name", ["a", "x" * 128, "ä" * 64, "news/sport", "a.b-c_d:e", "日本", "*", '"'])
def test_text_without_spaces_is_a_topic(name: str) -> None:
    check_topic(name)


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "a\u00a0b", "a\u3000b", "\x7f", "\ud800", "a\u200bb"])
def test_what_a_person_could_not_see_is_no_topic(name: str) -> None:
    with pytest.raises(ValueError, match="; write a name"):
        check_topic(name)
