"""What two workers say to each other while one hands its connections to the other.

    taker -> giver    hello     {"format": 1, "token": "...", "listeners": {"echo": {"versions": [1], ...}}}
    giver -> taker    offer     {"offer": 7, "quiet_s": ..., "from": {...}, "units": [...], "positions": {"ticks": 42}}
    taker -> giver    accept    {"accept": 7, "refused": {"3": "limit"}, "positions": {"ticks": 44}}
    giver -> taker    commit    {"commit": 7, "kept": [5], "messages": [[0, 0, [["topic", 2]]]]}

Each is a frame on a stream between them: the sizes of a JSON object and of the bytes behind it, then both. In `sizes`
the object says how the bytes are divided; whoever is meant says which part by its number. The descriptors of an
offer's connections come before it, over a datagram socket of the taker's: in one message, of the token and the
offer's number. A datagram is there when it was sent, and needs no stream's order.

The first descriptor of each such message is the giver's lifeline: the end of a pipe whose other end only the giver has.
It tells the taker what the end of the stream means. A byte in it: the giver has taken back what was not committed. The
pipe has ended without one: the giver has died. Neither needs the taker to be awake, nor room in the stream.
"""

import json
import logging
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.errors import GaiodError
from gaiod.core.results import OpResult
from gaiod.process.dispatch import Target
from gaiod.proxy_protocol import ProxyHeader

log = logging.getLogger("gaiod.worker")

FORMAT = 1

Positions = Callable[[], Mapping[str, Sequence[Any]]]
"""The key and the position of the feed of each listener that has one."""

LOOK_S = 0.002
"""How often either looks whether the feed has come as far as the other's."""

HEADER = struct.Struct("!II")
"""Bytes of the object, bytes behind it."""

LABEL = struct.Struct("!16sQ")
"""Of a datagram: the token, the number of the offer."""

TOKEN_BYTES = 16

DESCRIPTORS_MAX = 240
"""Connections in one offer. The kernel passes 253 descriptors at most with one message (SCM_MAX_FD)."""

FRAME_MAX_BYTES = 256 * 1024 * 1024
"""Far beyond an offer: who says more is broken."""


class FrameError(GaiodError):
    """What was received is no frame, or not what the other side may say."""


NONSENSE = (FrameError, LookupError, TypeError, ValueError, OverflowError)
"""What is raised by an attempt to understand what makes no sense."""


_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Parts:
    """Bytes to be sent behind an object, each distinct one once: members of a group wait for the same messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._numbers: dict[int, int] = {}
        self.size = 0

    def add(self, part: bytes) -> int:
        """Return the number of a part, which is added unless it is there."""
        number = self._numbers.get(id(part))
        if number is None:
            number = self._numbers[id(part)] = len(self._parts)
            self._parts.append(part)
            self.size += len(part)
        return number

    def frame(self, message: dict[str, Any]) -> bytes:
        """Return an object with the parts behind it."""
        said = _to_json({**message, "sizes": [len(part) for part in self._parts]}).encode()
        return b"".join((HEADER.pack(len(said), self.size), said, *self._parts))


class FrameReader:
    """Takes a stream of frames apart, in whatever pieces it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: Any) -> None:
        """Take what was received."""
        self._buffer += data

    def take(self) -> list[tuple[dict[str, Any], list[bytes]]]:
        """Return (object, parts) of each frame that is complete.

        Raises:
            FrameError: no frame begins where one should.
        """
        found = []
        while len(self._buffer) >= HEADER.size:
            said_size, parts_size = HEADER.unpack_from(self._buffer)
            if said_size + parts_size > FRAME_MAX_BYTES:
                raise FrameError(f"a frame of {said_size + parts_size} bytes")
            end = HEADER.size + said_size + parts_size
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[:end])
            del self._buffer[:end]
            found.append(_taken_apart(frame, HEADER.size + said_size))
        return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number: it would put deadlines in no order")


def _taken_apart(frame: bytes, at: int) -> tuple[dict[str, Any], list[bytes]]:
    try:
        message = json.loads(frame[HEADER.size : at], parse_constant=_refuse)
        parts = []
        for size in message["sizes"]:
            parts.append(frame[at : at + size])
            at += size
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FrameError(f"a frame makes no sense: {frame[HEADER.size : HEADER.size + 60]!r}") from error
    if at != len(frame):
        raise FrameError("the sizes of a frame's parts are not that of their sum")
    return message, parts


class Link(Target):
    """The stream between two workers, as either sees it.

    Args:
        conn: it; None: it could not even be begun.
        other: what the worker at its other end does, for the log.
    """

    def __init__(self, conn: Conn | None, other: str) -> None:
        super().__init__(self._read, self._written)
        self._conn = conn
        self._other = other
        self._reader = FrameReader()

    def take(self, message: dict[str, Any], parts: list[bytes]) -> None:
        """Take what the other has said.

        Raises:
            NONSENSE: it makes no sense.
        """
        raise NotImplementedError

    def give_up(self) -> None:
        """End it: what the other says makes no sense."""
        raise NotImplementedError

    def said(self, what: Any) -> None:
        """Take note that something that was said is with the kernel, all of it: the other is going to read it."""

    def _say(self, message: dict[str, Any], parts: Parts | None = None, *, what: Any = None) -> None:
        if self._conn is not None and not self._conn.closed:
            self._conn.write((parts or Parts()).frame(message), context=what)

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._reader.add(result.buffer)
        try:
            for message, parts in self._reader.take():
                self.take(message, parts)
        except NONSENSE as error:
            log.error("a worker that %s says what cannot be understood: %s", self._other, error)
            self.give_up()
            return
        if not conn.closed:
            conn.read()

    def _written(self, conn: Conn, result: OpResult) -> None:
        self.said(result.context)


def send_descriptors(sock: socket.socket, address: str, token: bytes, offer: int, descriptors: Sequence[int]) -> None:
    """Send the descriptors of an offer.

    Raises:
        OSError: none was sent: too many are on their way (EAGAIN, ETOOMANYREFS), or the other side is gone.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
    sock.sendmsg([LABEL.pack(token, offer)], rights, 0, address)


def receive_descriptors(sock: socket.socket) -> tuple[bytes, int, list[int]] | None:
    """Return (token, number of the offer, descriptors) of the next message; None: there is none.

    The descriptors are fewer than were sent where this process may not have so many: the kernel closes the others.
    """
    room = socket.CMSG_SPACE((DESCRIPTORS_MAX + 13) * 4)
    try:
        data, ancillary, _, _ = sock.recvmsg(LABEL.size, room, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4])
    if len(data) != LABEL.size:
        close_all(descriptors)
        return b"", 0, []
    token, offer = LABEL.unpack(data)
    return token, offer, descriptors


def word_of(lifeline: int) -> str:
    """Return what is known of a giver whose stream has ended: "back", "dead", or empty: nothing yet, look again."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    for _, events in poll.poll(0):
        return "back" if events & select.POLLIN else "dead"
    return ""


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in descriptors:
        os.close(fd)


def plain_header(header: ProxyHeader | None) -> Any:
    """Return a PROXY header as a plain value for JSON."""
    if header is None:
        return None
    ends = [_plain_address(header.source), _plain_address(header.destination)]
    return [*ends, [[kind, value.hex()] for kind, value in header.tlvs]]


def header_of(plain: Any) -> ProxyHeader | None:
    """Return the PROXY header that `plain_header` made this of."""
    if plain is None:
        return None
    source, destination, tlvs = plain
    values = tuple((int(kind), bytes.fromhex(value)) for kind, value in tlvs)
    return ProxyHeader(_address_of(source), _address_of(destination), values)


def _plain_address(address: Any) -> Any:
    return {"bytes": address.hex()} if isinstance(address, bytes) else address


def _address_of(plain: Any) -> Any:
    if isinstance(plain, dict):
        return bytes.fromhex(plain["bytes"])
    return tuple(plain) if isinstance(plain, list) else plain
