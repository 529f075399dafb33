"""A kqueue where there is none: the calls and constants the poller uses, on top of epoll.

As on the BSDs, the two directions of a descriptor are two filters and come as two events, EV_CLEAR
tells an edge once, and deleting what was not added fails.
"""

import errno
import os
import select
from collections.abc import Iterable
from dataclasses import dataclass

KQ_FILTER_READ = -1
KQ_FILTER_WRITE = -2
KQ_EV_ADD = 0x1
KQ_EV_DELETE = 0x2
KQ_EV_CLEAR = 0x20
KQ_EV_ERROR = 0x4000
KQ_EV_EOF = 0x8000

BITS = {KQ_FILTER_READ: select.EPOLLIN | select.EPOLLRDHUP, KQ_FILTER_WRITE: select.EPOLLOUT}


@dataclass(frozen=True)
class kevent:
    """A change asked for, or an event told."""

    ident: int
    filter: int = KQ_FILTER_READ
    flags: int = KQ_EV_ADD


class kqueue:
    """Edge-triggered only, which is all the poller asks for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._filters: dict[int, set[int]] = {}
        self._told: list[kevent] = []  # more than the last call took

    def control(self, changes: Iterable[kevent] | None, max_events: int, timeout: float | None = None) -> list[kevent]:
        """Apply the changes, then wait for events."""
        for change in changes or ():
            self._apply(change)
        if max_events == 0:
            return []
        for fd, bits in self._epoll.poll(0 if self._told else timeout, max_events):
            for kind in sorted(self._filters.get(fd, ())):
                wanted = BITS[kind] | select.EPOLLHUP | select.EPOLLERR
                if bits & wanted:
                    self._told.append(kevent(fd, kind, KQ_EV_CLEAR | self._end(kind, bits)))
        events, self._told = self._told[:max_events], self._told[max_events:]
        return events

    @staticmethod
    def _end(kind: int, bits: int) -> int:
        ends = select.EPOLLHUP | select.EPOLLERR | (select.EPOLLRDHUP if kind == KQ_FILTER_READ else 0)
        return KQ_EV_EOF if bits & ends else 0

    def _apply(self, change: kevent) -> None:
        filters = self._filters.setdefault(change.ident, set())
        if change.flags & KQ_EV_DELETE:
            if change.filter not in filters:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            filters.remove(change.filter)
        elif change.flags & KQ_EV_ADD:
            assert change.flags & KQ_EV_CLEAR, "the loop asks once and relies on edges"
            filters.add(change.filter)
        self._update(change.ident)

    def _update(self, fd: int) -> None:
        filters = self._filters[fd]
        try:
            self._epoll.unregister(fd)
        except FileNotFoundError:
            pass  # it is the first filter
        if not filters:
            del self._filters[fd]
            return
        bits = select.EPOLLET
        for kind in filters:
            bits |= BITS[kind]
        self._epoll.register(fd, bits)

    def close(self) -> None:
        """Close it."""
        self._epoll.close()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._epoll.fileno()
