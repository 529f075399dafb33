"""What the workers of a listener share, kept for those that start later; and which of them leads."""

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from gaiod.handler.admin_state import server_of_key
from gaiod.handler.shared_values import SharedValues
from gaiod.log.rate_limit import LimitedLog
from gaiod.supervisor.processes.child import Phase
from gaiod.supervisor.processes.generation import Member
from gaiod.supervisor.processes.slots import Key

log = logging.getLogger("gaiod.supervisor")

HandedOverValues = list[tuple[str, str, dict[str, Any]]]
"""A listener's name, its handler's label, and its values."""


class SharedState:
    """The last value of each key that the workers of a listener have shared. It outlives them all.

    Attributes:
        follow: called with each change; None: nobody wants to know.
    """

    def __init__(self) -> None:
        self.follow: Callable[[Key, str, Any], None] | None = None
        self._of: dict[Key, SharedValues] = {}
        self._tell = LimitedLog(log).tell

    def of(self, key: Key) -> Mapping[str, Any]:
        """Return a listener's values."""
        found = self._of.get(key)
        return {} if found is None else found.values

    def take(self, sender: Member, said: Mapping[str, Any], members: Iterable[Member]) -> None:
        """Keep what a worker shares, and pass it to all that serve the listener.

        Also to the worker itself: what it shared before that is older, so all workers agree on the last value.
        """
        keys = sender.process.memory.keys
        key = next(each for each in keys if each[0] == said["listener"])
        self.put(key, said["key"], said["value"], members, sender)

    def put(self, key: Key, name: str, value: Any, members: Iterable[Member], sender: Member | None = None) -> None:
        """Keep a value, and pass it on. One for which there is no room is dropped, also by who has shared it."""
        values = self._of.setdefault(key, SharedValues())
        try:
            values.put(name, value)
        except ValueError as error:
            self._tell(logging.WARNING, key, "listener %s: %s", key[0], error)
        if self.follow is not None:
            self.follow(key, name, values.values.get(name))
        passed = {"listener": key[0], "key": name, "value": values.values.get(name)}
        for member in members:
            if key in member.process.memory.keys:
                member.process.send({"shared": {**passed, "own": member is sender}})

    def forget(self, keys: Mapping[Key, Container[str]]) -> None:
        """Forget the values of all other listeners, and what is wanted of all other servers."""
        for key in [key for key in self._of if key not in keys]:
            del self._of[key]
        for key, values in self._of.items():
            for name in list(values.values):
                server = server_of_key(name)
                if server is not None and server not in keys[key]:
                    values.put(name, None)

    def handed_over(self) -> HandedOverValues:
        """Return everything, for the daemon that takes over."""
        return [(name, label, dict(each.values)) for (name, label), each in self._of.items()]

    def adopt(self, handed_over: HandedOverValues) -> None:
        """Take everything over from the daemon before this one."""
        for name, label, values in handed_over:
            self._of[name, label] = SharedValues(values)


def appoint(members: Iterable[Member], serving: Mapping[int, Member]) -> None:
    """Name the leader of each listener: of the workers that serve it the one of the lowest number.

    Where none serves it is one that starts, else one that drains.
    """
    leaders: dict[Key, tuple[tuple[int, int], Member]] = {}
    members = list(members)
    for member in members:
        number = member.process.number
        is_starting = member.process.phase is Phase.STARTING
        rank = (0 if serving.get(number) is member else 1 if is_starting else 2, number)
        for key in member.process.memory.keys:
            if key not in leaders or rank < leaders[key][0]:
                leaders[key] = rank, member
    for member in members:
        member.process.lead([key[0] for key in member.process.memory.keys if leaders[key][1] is member])
