"""What a supervisor and a worker say to each other: one JSON object per line, over a socket pair.

    supervisor -> worker    {"listeners": [{...settings...}], "fds": [[fd, ...], ...], "stats": fd, "dump": fd, ...}
    worker -> supervisor    {"share": {"listener": "db", "key": "...", "value": ...}}
    supervisor -> worker    {"shared": {"listener": "db", "key": "...", "value": ..., "own": false}}
    supervisor -> worker    {"ticket_keys": {"<scope>": ["<hexadecimal>", ...]}}     there is a new one
    supervisor -> worker    {"lead": ["db"]}     of these listeners it is the leader, and of no others
    worker -> supervisor    {"ready": true} | {"failed": "why", "status": 78} | {"leaving": true}
    supervisor -> worker    {"serve": true}
    supervisor -> worker    {"ask": {"id": 7, "verb": "connections", ...}}
    worker -> supervisor    {"answer": 7, "result": {...}}
    supervisor -> worker    {"socket": 0}     of the first listener: comes over a socket pair of its own, as descriptor
    supervisor -> worker    {"file": {"kind": "access", "files": ["/etc/gaiod/blocked.txt"], "value": {...}}}
    supervisor -> worker    {"drain_listener": {"listener": "echo", "timeout_s": 30}}
    supervisor -> worker    {"keep": {"listeners": ["echo"], "timeout_s": 30}}     drain the others
    supervisor -> worker    {"drain": {"timeout_s": 30, "eager": true}}     `to`, there and in `keep`: who takes over
    supervisor -> worker    {"takers": [{"stream": "...", "descriptors": "..."}]}     others that serve since a moment
    worker -> supervisor    {"handed_over": {"moved": 1187, ...}}

The end of the stream says that the other side is gone.
"""

import json
import logging
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.process.dispatch import Target

log = logging.getLogger("gaiod.channel")

LINE_MAX_BYTES = 16 * 1024 * 1024
"""Far beyond any settings: a line that long is a bug, not a message."""


class Channel(Target):
    """One end of the socket pair: `take` is called with each message, and None at the end.

    `received` is what was received before there was a channel.
    """

    def __init__(self, conn: Conn, take: Any, received: bytes = b"") -> None:
        super().__init__(self._read, self._written)
        self._conn = conn
        self._take_message = take
        self._buffer = bytearray(received)
        self._is_ending = False
        conn.context = self
        conn.read()

    @property
    def is_sending(self) -> bool:
        """Whether messages are not yet with the kernel."""
        return self._conn.pending_write_bytes > 0

    def take_received(self) -> None:
        """Take the whole messages that have arrived."""
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._take_message(json.loads(line))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; one to a side that is gone is lost, and `take(None)` tells."""
        if not self._conn.closed:
            self._conn.write(json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        """Take nothing more, and say nothing behind what was said."""
        self._is_ending = True
        self._buffer.clear()
        self._conn.close()

    def close(self) -> None:
        """Say and take nothing more."""
        self._buffer.clear()
        self._conn.abort()

    def _read(self, conn: Conn, result: OpResult) -> None:
        """Take what arrived, which may be part of a message, or several."""
        self._buffer += bytes(result.buffer)
        self.take_received()
        if len(self._buffer) > LINE_MAX_BYTES:
            self.on_completion(result)
        elif not (conn.closed or self._is_ending):  # a message can be the reason to close it
            conn.read()

    def failed(self, hook: str, conn: Conn | None) -> None:
        """What the other side says makes no sense: it is broken, or of another version."""
        log.exception("a message cannot be understood; closing the channel")
        if not self._conn.closed:
            self._conn.abort()
            self._take_message(None)

    def _written(self, conn: Conn, result: OpResult) -> None:
        """A message is with the kernel."""

    def on_completion(self, result: OpResult) -> None:
        """The other side is gone, or speaks no sense. What it said last comes before the end of reading tells that."""
        if result.operation is not OpType.WRITE and not self._conn.closed and not self._is_ending:
            self._conn.abort()
            self._take_message(None)
