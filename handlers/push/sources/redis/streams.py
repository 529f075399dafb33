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

    @property
    def first_ever(self) -> EntryId | None:
        """The first that was ever added; None: there was none, or it is deleted."""
        return self.first if self.added == self.length else None


class Position:
    """How far a stream was read.

    Attributes:
        id: of the last entry that was read, or that is not to be read.
    """

    def __init__(self, last: EntryId, added: int | None, first: EntryId | None, run: str) -> None:
        """Make one.

        Args:
            last: the id.
            added: how many entries had been added with that one; None: nobody knows.
            first: the id of the first that was ever added; None: nobody knows.
            run: which start of a Redis it is a position in; empty: it does not say.
        """
        self.id = last
        self._added = added
        self._first = first
        self._run = run

    @classmethod
    def behind(cls, state: StreamState, run: str) -> "Position":
        """Return the one behind everything that there is."""
        return cls(state.last, state.added, state.first_ever, run)

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Take apart what `str` has made."""
        last, added, first, run = text.split(" ")
        ever = None if first == "-" else EntryId.parse(first.encode())
        return cls(EntryId.parse(last.encode()), None if added == "-" else int(added), ever, run)

    def __str__(self) -> str:
        return f"{self.id} {'-' if self._added is None else self._added} {self._first or '-'} {self._run}"

    def read(self, entry: EntryId) -> None:
        """Take note that an entry was read."""
        self.id = entry
        if self._added == 0:
            self._first = entry
        if self._added is not None:
            self._added += 1

    def follow(self, state: StreamState, run: str) -> str | None:
        """Go on in what the stream is now.

        Args:
            state: what the Redis says of the stream.
            run: which start of a Redis says it.

        Returns:
            None: what was not read yet is all there. `gap`: entries are gone that were not read. `restored`: the Redis
            is as it was earlier, and what comes is behind its last entry; `anew`: it is another stream, which is read
            from its first entry on.
        """
        is_restarted, self._run = run != self._run, run
        if self._is_another(state, is_restarted):
            self.id, self._first = FIRST, state.first_ever
            self._added = None if state.added is None else state.added - state.length
            return "anew"
        self._first = self._first or state.first_ever
        if state.last < self.id:
            self.id, self._added = state.last, state.added
            return "restored"
        if self._has_fewer(state):
            self._added = None  # the entries behind the id are new, and nobody knows how many there are
            return "restored"
        return None if self._is_gapless(state) else "gap"

    def _has_fewer(self, state: StreamState) -> bool:
        return self._added is not None and state.added is not None and state.added < self._added

    def _is_another(self, state: StreamState, is_restarted: bool) -> bool:
        """Tell another stream of the same name from this one, be it as it was earlier."""
        is_older = state.last < self.id or self._has_fewer(state)
        if is_older and not is_restarted:
            return True  # while a Redis runs, a stream only grows
        if self._first is not None and state.first_ever is not None:
            return self._first != state.first_ever
        # A snapshot has entries that were read.
        return is_older and (state.first is None or state.first > self.id)

    def _is_gapless(self, state: StreamState) -> bool:
        """Tell whether what was not read yet is all there; go on behind what is not."""
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
    """Reads streams, each from what is added after the first connection on, or where the source before was."""

    def __init__(self, names: Sequence[str], field: str, origin_of: Callable[[str], str]) -> None:
        """Make it.

        Args:
            names: of the streams.
            field: of an entry: the message.
            origin_of: says under which origin the position of a stream is kept.
        """
        self._names = names
        self._field = field.encode()
        self._origin_of = origin_of
        self._positions: dict[bytes, Position] = {}
        self._run = ""

    def read(self, client: Any, feed: Feed, began: Callable[[], None]) -> None:
        """Read until the feed ends; `began` is called once it is known where to go on.

        Raises:
            redis.RedisError, OSError: the connection does not work any more.
        """
        self._run = _run_of(client)
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
            kept = feed.outlet.position(self._origin(name))
            position = Position.behind(state, self._run) if kept is None else Position.parse(kept)
            self._positions[name] = position
        match position.follow(state, self._run):
            case "gap":
                feed.outlet.gap(f"stream {_shown(name)}: entries are gone that were not read")
            case "restored":
                feed.outlet.reset(
                    "restored",
                    f"stream {_shown(name)} is as it was earlier; reading goes on with what is added from now on",
                )
            case "anew":
                feed.outlet.reset("anew", f"stream {_shown(name)} was made anew; it is read from its first entry on")
        feed.outlet.keep(*self._kept(name))

    def _take(self, name: bytes, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]], feed: Feed) -> None:
        for entry, fields in entries:
            if feed.is_ended:
                return
            self._positions[name].read(EntryId.parse(entry))
            if self._field in fields:
                feed.publish(name, fields[self._field], self._kept(name))
            else:
                field = _shown(self._field)
                feed.outlet.gap(f"stream {_shown(name)}: entry {entry.decode()} has no field {field}")

    def _origin(self, name: bytes) -> str:
        return self._origin_of(name.decode())

    def _kept(self, name: bytes) -> tuple[str, str]:
        return self._origin(name), str(self._positions[name])


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


def _run_of(client: Any) -> str:
    """Return which start of a Redis this is; empty: it does not say, or may not."""
    try:
        return str(client.info("server").get("run_id", ""))
    except redis.ResponseError:
        return ""
