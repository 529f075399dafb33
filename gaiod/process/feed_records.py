"""The wire between the feeder and a worker: a line from each, and then records, one after the other.

    worker -> feeder    {"gaiod_feed": 2, "instance": 0, "feeds": {"ticks": {"key": "5f3a...", "sequence": 17, ...}}}
    feeder -> worker    {"gaiod_feed": 2, "instance": 2, "feeds": {"ticks": {"number": 0}}}
    feeder -> worker    a header of 20 bytes, the topic, the message; and so on

The instance counts the feeders there have been. A feed is what one listener gets, with one handler and its options:
the key is their digest, and a worker says both, for a feeder that has not loaded them. Sequences count the messages of
a listener, from 1, over all feeders. First come the messages that the worker has not got, as far as they are still
there; to one that has had none (sequence null) the last of each topic, if its handler wants them. A record without a
message ends them: the worker has got what there is up to its sequence. A worker that had 17, and gets 43 after that,
has missed 25.
"""

import json
import struct
from typing import Any

from gaiod.core.errors import GaiodError

VERSION = 2

HEADER = struct.Struct("!IIIQ")
"""Bytes of the message, bytes of the topic, the feed's number, the sequence."""

TOPIC_MAX_BYTES = 255
"""A name, not a message; what subscribers may send of one is bounded by it."""

MESSAGE_MAX_BYTES = 16 * 1024 * 1024
"""Encoded. Far beyond what a subscriber's queue takes (1 MiB, unless configured otherwise)."""

LINE_MAX_BYTES = 1024 * 1024
"""Of a hello: some thousand listeners."""


class RecordError(GaiodError):
    """What was received is not what the other side may say: it is broken, or of another version."""


def hello(feeds: dict[str, dict[str, Any]], instance: int = 0) -> bytes:
    """Return the line that either side begins with; 0: it is a worker's."""
    return json.dumps({"gaiod_feed": VERSION, "instance": instance, "feeds": feeds}).encode() + b"\n"


def record(number: int, sequence: int, topic: bytes, data: bytes) -> bytes:
    """Return one message as it is sent."""
    return HEADER.pack(len(data), len(topic), number, sequence) + topic + data


class Reader:
    """Takes a stream apart, in whatever pieces it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: Any) -> None:
        """Take what was received."""
        self._buffer += data

    @property
    def is_empty(self) -> bool:
        """Whether everything received was taken apart."""
        return not self._buffer

    def take_hello(self) -> tuple[dict[str, dict[str, Any]], int] | None:
        """Return what the other side's line says of feeds, and its instance; None: it is not complete.

        Raises:
            RecordError: it is no such line, or of another version.
        """
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > LINE_MAX_BYTES:
                raise RecordError(f"its first line has more than {LINE_MAX_BYTES} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
            version, feeds, instance = message["gaiod_feed"], dict(message["feeds"]), int(message["instance"])
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f"its first line makes no sense: {line[:60]!r}") from error
        if version != VERSION:
            raise RecordError(f"it speaks version {version}, and this is {VERSION}: run gaiod upgrade")
        return feeds, instance

    def take_records(self) -> list[tuple[int, int, str, bytes]]:
        """Return (feed's number, sequence, topic, message) for each record that is complete.

        Raises:
            RecordError: no record begins where one should.
        """
        found = []
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= HEADER.size:
                size, topic_size, number, sequence = HEADER.unpack_from(view, at)
                if size > MESSAGE_MAX_BYTES or topic_size > TOPIC_MAX_BYTES:
                    raise RecordError(f"a record of {size} bytes with a topic of {topic_size}")
                start = at + HEADER.size
                end = start + topic_size + size
                if end > len(view):
                    break
                topic = str(view[start : start + topic_size], "utf-8", "replace")
                found.append((number, sequence, topic, bytes(view[start + topic_size : end])))
                at = end
        del self._buffer[:at]
        return found
