"""What is fixed for a run: how the kernel behaves, how small the watcher's shares are, and which steps there are."""

from dataclasses import dataclass
from typing import Any

Step = tuple[Any, ...]
"""One thing to do: its name, and what it takes. Connections are named by numbers; who is missing is passed over."""


class Fault(AssertionError):
    """What must not be, was."""


@dataclass(frozen=True)
class Setting:
    """How a run is set up.

    Attributes:
        is_eager: an edge for every arrival, as Linux mostly does; else only when something becomes ready, all that
            epoll promises.
        shuffles: edges are told in any order, not in that of their arrival.
        late: polls may keep some for the next.
        interrupted: one call in so many fails with EINTR; 0: none.
        splices: sockets can be spliced.
        pipe_room: bytes that a pipe holds.
        limits: constants of the watcher, made small.
        policy, limit, memory_limit: of the group.
        report_closes, report_hangups: as of Watcher.
        buffer_size: as of Watcher.
    """

    is_eager: bool = True
    shuffles: bool = False
    late: bool = False
    interrupted: int = 0
    splices: bool = True
    pipe_room: int = 64
    limits: tuple[tuple[str, int], ...] = ()
    policy: str = "disconnect"
    limit: int = 64
    memory_limit: int = 1000
    report_closes: bool = False
    report_hangups: bool = False
    buffer_size: int = 16


@dataclass(frozen=True)
class Plan:
    """What a seed does."""

    setting: Setting
    steps: tuple[Step, ...]
