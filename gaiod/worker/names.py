"""The names of connections, which they keep wherever they go: the worker that accepted or opened them, and a number.

    3-1831      the 1,831st connection of the third worker that there has been

For a connection that has stayed where it was born, nothing is kept: its name is made of the worker's instance and its
serial number. One that has come from another worker has a serial number of this process too, and a name of old.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from gaiod.core.connection import Conn

INSTANCE_MAX = (1 << 32) - 1
SERIAL_MAX = (1 << 63) - 1
MOVES_MAX = (1 << 31) - 1
"""What a name, and the memory of closed connections, have room for."""


@dataclass(slots=True, eq=False)
class Origin:
    """Where a connection is from.

    Attributes:
        instance, serial: its name.
        moves: how often it has gone from one worker to another.
        worker, generation, process: of the worker that had it last.
        moved_s: since when it is served here, in `time.monotonic()`; None: it is not yet.
    """

    instance: int
    serial: int
    moves: int
    worker: int
    generation: int
    process: int
    moved_s: float | None = None

    def facts(self, now_s: float) -> dict[str, Any] | None:
        """Return what an operator is told of it; None: nothing yet."""
        if self.moved_s is None:
            return None
        return {
            "ago_s": round(max(0.0, now_s - self.moved_s), 3),
            "times": self.moves,
            "worker": self.worker,
            "generation": self.generation,
            "process": self.process,
        }


class Names:
    """Names the connections of a worker.

    Attributes:
        place: which worker this is: `worker`, `generation`, `process`. Those that take its connections are told.
        moved: connections that have come from other workers, by their serial numbers here.
    """

    def __init__(self, instance: int, place: Mapping[str, int] | None = None) -> None:
        """Name them.

        Args:
            instance: begins the names of those that are born here. No other worker has it.
            place: as the attribute.
        """
        self._instance = instance
        self.place = dict(place or {"worker": 0, "generation": 0, "process": 0})
        self.moved: dict[int, Origin] = {}
        self._serials: dict[tuple[int, int], int] = {}  # numbers here of those in `moved`, by their names

    def of(self, conn: Conn) -> str:
        """Return the name of a connection."""
        instance, serial = self.parts_of(conn)
        return f"{instance}-{serial}"

    def parts_of(self, conn: Conn) -> tuple[int, int]:
        """Return the two numbers that a connection's name is made of."""
        serial = conn.serial
        origin = self.moved.get(serial)
        return (self._instance, serial) if origin is None else (origin.instance, origin.serial)

    def serial_of(self, name: str) -> int | None:
        """Return the serial number that a connection of this name has here, if it is here; None: it is not."""
        instance, _, number = name.partition("-")
        serial = int(number)
        known = self._serials.get((int(instance), serial))
        if known is not None:
            return known
        return serial if int(instance) == self._instance and serial not in self.moved else None

    def origin_of(self, conn: Conn) -> Origin | None:
        """Return where a connection is from; None: it has never been elsewhere."""
        return self.moved.get(conn.serial)

    # -- going and coming --------------------------------------------------------------------------------

    def told_of(self, conn: Conn) -> list[int]:
        """Return what another worker is told of a connection that is to go there: its name, and how often it moves."""
        origin = self.moved.get(conn.serial)
        return [*self.parts_of(conn), 1 if origin is None else origin.moves + 1]

    def read(self, told: Sequence[Any], place: Mapping[str, Any], lives: Callable[[int], bool]) -> list[Origin]:
        """Return what `told_of` said of the connections of a unit that comes. Who says it may be mistaken.

        Args:
            told: it, of each.
            place: of the worker that says it.
            lives: tells whether a connection of this serial number is open here.

        Raises:
            KeyError, TypeError, ValueError: it makes no sense, or is the name of a connection that is here.
        """
        worker, generation, process = (index(place[key]) for key in ("worker", "generation", "process"))
        origins: dict[tuple[int, int], Origin] = {}
        for each in told:
            instance, serial, moves = map(index, each)
            for number, most in ((instance, INSTANCE_MAX), (serial, SERIAL_MAX), (moves, MOVES_MAX)):
                if not 1 <= number <= most:
                    raise ValueError(f"{instance}-{serial} is no name of a connection that has moved {moves} times")
            name = instance, serial
            is_own = instance == self._instance and serial not in self.moved and lives(serial)
            if is_own or name in self._serials or name in origins:
                raise ValueError(f"a connection {instance}-{serial} is here already")
            origins[name] = Origin(instance, serial, moves, worker, generation, process)
        return list(origins.values())

    def keep(self, conn: Conn, origin: Origin) -> None:
        """Let a connection that comes have its name."""
        self.moved[conn.serial] = origin
        self._serials[origin.instance, origin.serial] = conn.serial

    def came(self, conn: Conn) -> None:
        """Take note that a connection is served here from now on."""
        origin = self.moved.get(conn.serial)
        if origin is not None:
            origin.moved_s = time.monotonic()

    def forget(self, conn: Conn) -> None:
        """Forget a connection that is not here any more."""
        origin = self.moved.pop(conn.serial, None)
        if origin is not None:
            del self._serials[origin.instance, origin.serial]
