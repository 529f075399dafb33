"""The last message of each topic, within bounds."""

from gaiod.handlers.push.last_values import TOPIC_BYTES, LastValues
from hypothesis import given
from hypothesis import strategies as st


def test_last_message_of_each_topic_is_kept() -> None:
    last = LastValues(10_000)
    last.keep("a", b"1")
    last.keep("b", b"2")
    last.keep("a", b"3")
    assert (last.of("a"), last.of("b"), last.of("c")) == (b"3", b"2", None)


def test_topic_that_was_silent_for_longest_is_forgotten_first() -> None:
    last = LastValues(2 * (TOPIC_BYTES + 2))
    last.keep("a", b"1")
    last.keep("b", b"2")
    last.keep("a", b"3")
    last.keep("c", b"4")
    assert (last.of("a"), last.of("b"), last.of("c")) == (b"3", None, b"4")


def test_nothing_is_kept_if_that_is_not_wanted() -> None:
    last = LastValues(0)
    last.keep("a", b"")
    assert last.of("a") is None


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=2000))))
def test_bound_holds_whatever_is_published(messages: list[tuple[str, bytes]]) -> None:
    last = LastValues(3000)
    for topic, data in messages:
        last.keep(topic, data)
    kept = {topic: found for topic, _ in messages if (found := last.of(topic)) is not None}
    assert sum(len(topic) + len(data) + TOPIC_BYTES for topic, data in kept.items()) <= 3000
    if messages:
        assert last.of(messages[-1][0]) == messages[-1][1]
