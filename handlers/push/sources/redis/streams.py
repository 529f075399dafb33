"""Streams of a Redis. Each entry has an id, so that reading goes on where it was, whatever happened in between."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from gaiod import shown

from .feed import Feed

BATCH = 512
"""Entries of each stream in an answer: some MiB of the longest messages that are usual."""

TURN_MS = 500
"""How long a wait for an entry takes at most, and so how late it is noticed that the source was stopped."""


BEHIND_S = 0.1
"""Publishing takes so long only if workers are behind."""


class EntryId(NamedTuple):
    """Of an entry: later ones are greater."""

    ms: int
    sequence: int

    @classmethod
    def parse(cls, text: bytes) -> "EntryId":
        """Take an id apart, such as 1700000000000-0."""
        ms, _, sequence = text.partition(b"-")
        return cls(int(ms), int(sequence))

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}"


FIRST = EntryId(0, 0)
"""Before every entry."""


class StreamState(NamedTuple):
    """What a Redis says of a stream."""

    last: EntryId
    """Of the entry added last, be it trimmed."""
    first: EntryId | None
    """Of the first that there is; None: there is none."""
    length: int
    added: int | None
    """How many entries were ever added; None: Redis before version 7 does not know."""


class Position:
    """How far a stream was read.

    Attributes:
        id: of the last entry that was read, or that is not to be read.
    """

    def __init__(self, state: StreamState) -> None:
        self.id = state.last
        self._added = state.added  # how many had been added with that one

    def read(self, entry: EntryId) -> None:
        """Take note that an entry was read."""
        self.id = entry
        if self._added is not None:
            self._added += 1

    def is_gapless(self, state: StreamState) -> bool:
        """Tell whether what was not read yet is all there; go on behind what is not."""
        if state.last < self.id:  # deleted, or lost by a Redis that keeps nothing: another stream of the same name
            self.id, self._added = FIRST, None if state.added is None else state.added - state.length
            return False
        if state.first is None:  # all that was added is deleted
            before, self.id, self._added = self.id, state.last, state.added
            return before == self.id
        if state.first <= self.id:
            return True
        if self._added is None or state.added is None:
            return False  # trimmed to behind the last one read, or just to it: nobody knows
        seen, self._added = self._added, state.added - state.length
        return seen == self._added


class Streams:
    """Reads streams, each from what is added after the first connection on."""

    def __init__(self, names: Sequence[str], field: str) -> None:
        self._names = names
        self._field = field.encode()
        self._positions: dict[bytes, Position] = {}

    def read(self, client: Any, feed: Feed, began: Callable[[], None]) -> None:
        """Read until the feed ends; `began` is called once it is known where to go on.

        Raises:
            redis.RedisError, OSError: the connection does not work any more.
        """
        for name in self._names:
            self._look(client, name.encode(), feed)
        began()
        while not feed.is_ended:
            wanted = {name: str(position.id) for name, position in self._positions.items()}
            answer = client.xread(wanted, count=BATCH, block=TURN_MS)
            began_s = time.monotonic()
            for name, entries in answer:
                self._take(name, entries, feed)
                # Behind, by entries or by time, and perhaps overtaken by what trims it.
                if len(entries) == BATCH or time.monotonic() - began_s > BEHIND_S:
                    self._look(client, name, feed)

    def _look(self, client: Any, name: bytes, feed: Feed) -> None:
        """Find out where to go on in a stream, and whether anything is missing there."""
        state = _state_of(client, name)
        position = self._positions.get(name)
        if position is None:
            self._positions[name] = Position(state)
        elif not position.is_gapless(state):
            feed.outlet.gap(f"stream {_shown(name)}: entries are gone that were not read")

    def _take(self, name: bytes, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]], feed: Feed) -> None:
        for entry, fields in entries:
            if feed.is_ended:
                return
            if self._field in fields:
                feed.publish(name, fields[self._field])
            else:
                field = _shown(self._field)
                feed.outlet.gap(f"stream {_shown(name)}: entry {entry.decode()} has no field {field}")
            self._positions[name].read(EntryId.parse(entry))


def _shown(name: bytes) -> str:
    return shown(name.decode(errors="backslashreplace"))


def _state_of(client: Any, name: bytes) -> StreamState:
    try:
        info = client.xinfo_stream(name)
    except redis.ResponseError as error:
        if "no such key" not in str(error):
            raise
        return StreamState(FIRST, None, 0, 0)
    first = info["first-entry"]
    return StreamState(
        EntryId.parse(info["last-generated-id"]),
        None if not first else EntryId.parse(first[0]),
        info["length"],
        info.get("entries-added"),
    )
