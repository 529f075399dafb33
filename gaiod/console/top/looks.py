"""What `gaiod top` asks of the daemon for one picture."""

import time
from dataclasses import dataclass
from typing import Any

from gaiod.control.client import Conversation

STALLED_MAX = 3
"""Stalled connections that are shown whatever the others are sorted by."""

STALLED_MIN_S = 1.0
"""Who has taken nothing for less is not called stalled: a client across the world needs half a second to say so."""

SORTS = {"t": "traffic", "s": "stalled", "b": "buffered", "a": "age"}
"""What connections can be sorted by, and the keys for it."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What the daemon said.

    Attributes:
        at: when, in Unix time.
        status: the answer to `status`.
        sort: what the connections are sorted by.
        connections: the first of them.
        stalled: those that have waited for longest, if that is no sort of theirs.
        total: how many connections there are.
        silent_workers: those that did not answer.
    """

    at: float
    status: Row
    sort: str
    connections: list[Row]
    stalled: list[Row]
    total: int
    silent_workers: list[int]

    def as_json(self) -> Row:
        """Return it as one document."""
        return {name: getattr(self, name) for name in self.__slots__}


class Looker:
    """Asks for everything, over one connection.

    Args:
        conversation: with the daemon.
        listener: only this one's connections; None: of all.
    """

    def __init__(self, conversation: Conversation, listener: str | None) -> None:
        self._conversation = conversation
        self.listener = listener

    def look(self, sort: str, limit: int) -> Look:
        """Look once.

        Connections have rates from the second look on: workers remember what each had moved when they were asked
        for `traffic`, so that is always asked for.

        Raises:
            ControlError: as `Conversation.ask`.
        """
        status = self._conversation.ask("status")
        limits = {"traffic": 1, "stalled": STALLED_MAX, sort: limit}
        answers = {order: self._ask(order, many) for order, many in limits.items()}
        chosen = answers[sort]
        stalled = [row for row in answers["stalled"]["connections"] if row["waiting_s"] >= STALLED_MIN_S]
        return Look(
            at=time.time(),
            status=status,
            sort=sort,
            connections=chosen["connections"],
            stalled=[] if sort == "stalled" else stalled,
            total=chosen["total"],
            silent_workers=chosen["silent_workers"],
        )

    def _ask(self, sort: str, limit: int) -> Row:
        return self._conversation.ask("connections", listener=self.listener, sort=sort, limit=max(1, limit))
