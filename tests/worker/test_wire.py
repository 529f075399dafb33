"""What two workers say to each other: frames in any pieces, each part once, descriptors beside them."""

import json
import os
import socket
import struct

import pytest

from gaiod import ProxyHeader
from gaiod.worker.handover.wire import (
    DESCRIPTORS_MAX,
    FRAME_MAX_BYTES,
    HEADER,
    TOKEN_BYTES,
    FrameError,
    FrameReader,
    Parts,
    close_all,
    header_of,
    plain_header,
    receive_descriptors,
    send_descriptors,
    word_of,
)

TOKEN = bytes(range(TOKEN_BYTES))


def test_frame_is_the_same_in_whatever_pieces_it_comes() -> None:
    parts = Parts()
    shared = b"x" * 1000
    assert [parts.add(shared), parts.add(b"y"), parts.add(shared)] == [0, 1, 0]
    stream = parts.frame({"offer": 1}) + Parts().frame({"cancel": 1})
    expected = [({"offer": 1, "sizes": [1000, 1]}, [shared, b"y"]), ({"cancel": 1, "sizes": []}, [])]
    for size in (1, 7, len(stream)):
        reader, found = FrameReader(), []
        for first in range(0, len(stream), size):
            reader.add(stream[first : first + size])
            found += reader.take()
        assert found == expected


@pytest.mark.parametrize(
    "stream",
    [
        HEADER.pack(FRAME_MAX_BYTES, 1),
        HEADER.pack(2, 0) + b"{}",
        HEADER.pack(3, 0) + b"\xff{}",
        HEADER.pack(len(b'{"sizes": [5]}'), 1) + b'{"sizes": [5]}' + b"x",
        HEADER.pack(len(b'{"sizes": 5}'), 0) + b'{"sizes": 5}',
        HEADER.pack(len(b"[]"), 0) + b"[]",
        HEADER.pack(100_000, 0) + b"[" * 100_000,
        HEADER.pack(len(b'{"sizes": [], "at": NaN}'), 0) + b'{"sizes": [], "at": NaN}',
    ],
    ids=range(8),
)
def test_nonsense_is_refused(stream: bytes) -> None:
    reader = FrameReader()
    reader.add(stream)
    with pytest.raises(FrameError):
        reader.take()


def datagrams() -> tuple[socket.socket, socket.socket, str]:
    taker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    taker.bind("")
    taker.setblocking(False)
    giver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    giver.setblocking(False)
    return giver, taker, "\0" + taker.getsockname()[1:].decode("ascii")


def test_as_many_descriptors_arrive_as_an_offer_may_have_and_none_is_inherited() -> None:
    giver, taker, address = datagrams()
    sent = [os.open("/dev/null", os.O_RDONLY) for _ in range(DESCRIPTORS_MAX)]
    with giver, taker:
        assert receive_descriptors(taker) is None
        send_descriptors(giver, address, TOKEN, 7, sent)
        received = receive_descriptors(taker)
        assert received is not None
        token, offer, descriptors = received
        assert (token, offer, len(descriptors)) == (TOKEN, 7, DESCRIPTORS_MAX)
        assert not any(os.get_inheritable(fd) for fd in descriptors)
    close_all(descriptors)
    close_all(sent)


def test_lifeline_tells_who_lives_from_who_has_died_and_from_who_has_taken_back() -> None:
    ours, theirs = os.pipe()
    try:
        assert word_of(ours) == ""
        os.write(theirs, b"x")
        assert word_of(ours) == "back"
        os.close(theirs)
        assert word_of(ours) == "back"  # also once it has died
        os.read(ours, 1)
        assert word_of(ours) == "dead"
    finally:
        os.close(ours)


def test_message_that_is_no_label_has_its_descriptors_closed() -> None:
    giver, taker, address = datagrams()
    one = os.open("/dev/null", os.O_RDONLY)
    with giver, taker:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", one))]
        giver.sendmsg([b"short"], rights, 0, address)
        assert receive_descriptors(taker) == (b"", 0, [])  # what leaks, the fixture of all tests finds
    os.close(one)


def test_taker_that_is_gone_is_an_error_and_nothing_is_sent() -> None:
    giver, taker, address = datagrams()
    taker.close()
    with giver, pytest.raises(OSError, match="refused"):
        send_descriptors(giver, address, TOKEN, 1, [0])


@pytest.mark.parametrize(
    "header",
    [
        None,
        ProxyHeader(None, None),
        ProxyHeader(("10.0.0.1", 80), ("10.0.0.2", 443), ((2, b"name"), (4, b"\0\xff"))),
        ProxyHeader(("2001:db8::7", 1, 0, 0), ("::1", 2, 0, 0)),
        ProxyHeader("/run/a.sock", b"\0abstract"),
    ],
)
def test_header_survives_the_journey(header: ProxyHeader | None) -> None:
    assert header_of(json.loads(json.dumps(plain_header(header)))) == header
