"""The wire between the feeder and a worker: it survives any split, and nonsense is told apart."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.process.feed_records import (
    HEADER,
    LINE_MAX_BYTES,
    MESSAGE_MAX_BYTES,
    TOPIC_MAX_BYTES,
    VERSION,
    Reader,
    RecordError,
    hello,
    record,
)

FEEDS = {"ticks": {"key": "abc", "sequence": 17}}
MESSAGES = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.text(max_size=60), st.binary(max_size=200)
)


@given(messages=st.lists(MESSAGES, max_size=8), cuts=st.lists(st.integers(0, 2000), max_size=20))
def test_what_is_sent_is_received_in_whatever_pieces_it_arrives(
    messages: list[tuple[int, int, str, bytes]], cuts: list[int]
) -> None:
    stream = hello(FEEDS, 5) + b"".join(
        record(n, sequence, topic.encode(), data) for n, sequence, topic, data in messages
    )
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = Reader()
    said, found = None, []
    for start, end in pairwise(places):
        reader.add(stream[start:end])
        said = said or reader.take_hello()
        if said:
            found += reader.take_records()
    assert said == (FEEDS, 5)
    assert found == messages
    assert reader.is_empty


def test_record_that_is_not_complete_is_waited_for() -> None:
    reader = Reader()
    reader.add(record(1, 2, b"topic", b"message")[:-1])
    assert reader.take_records() == []
    assert not reader.is_empty


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"GET / HTTP/1.1\n", "makes no sense"),
        (b"[]\n", "makes no sense"),
        (b'{"gaiod_feed": 1}\n', "makes no sense"),
        (b'{"gaiod_feed": 1, "instance": 0, "feeds": 3}\n', "makes no sense"),
        (b"\xff\n", "makes no sense"),
        (b"x" * (LINE_MAX_BYTES + 1), "has more than"),
        (
            json.dumps({"gaiod_feed": VERSION + 1, "instance": 0, "feeds": {}}).encode() + b"\n",
            f"speaks version {VERSION + 1}, and this is {VERSION}: run gaiod upgrade",
        ),
    ],
)
def test_line_of_somebody_else_is_told_apart(line: bytes, why: str) -> None:
    reader = Reader()
    reader.add(line)
    with pytest.raises(RecordError, match=why):
        reader.take_hello()


@pytest.mark.parametrize("header", [(MESSAGE_MAX_BYTES + 1, 0, 0, 0), (0, TOPIC_MAX_BYTES + 1, 0, 0)])
def test_record_that_nobody_sends_is_told_apart_and_not_waited_for(header: tuple[int, int, int, int]) -> None:
    reader = Reader()
    reader.add(HEADER.pack(*header))
    with pytest.raises(RecordError, match="a record of"):
        reader.take_records()
