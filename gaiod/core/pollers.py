"""Readiness for the interpreted engine: epoll where there is one, kqueue on the BSDs and macOS.

Both are edge-triggered and registered once per descriptor, for both directions; both report the
same four bits. Whoever asks keeps the bits: an edge is told once.
"""

import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any
from weakref import ref

READABLE, WRITABLE, BROKEN, HUNG = 1, 2, 4, 8
"""Bits of `events`. BROKEN: a hang-up, a half-close or an error was seen; reading will tell which. HUNG, with it:
it was not a half-close, so the connection is over in both directions, or may be."""

kernel: Any = select
"""Where the poller of the BSDs finds its calls: their constants do not exist, or differ, elsewhere."""

EVENTS_MAX = 512
"""Most events taken from the kernel at once; what is left comes with the next call."""


class _Process:
    """Which process this is, in a line of forked ones."""

    forks = 0

    @classmethod
    def note_fork(cls) -> None:
        cls.forks += 1


os.register_at_fork(after_in_child=_Process.note_fork)


class _Poller:
    """What both have in common: who owns a descriptor, the clock, the waker.

    A forked child shares the kernel's side of an epoll with its parent: what one unregisters, the other misses, and
    an event goes to one of them. So a child unregisters nothing, and opens a poller of its own at its first use.
    """

    def __init__(self) -> None:
        self._owners: dict[int, ref[Any]] = {}
        self._ready: list[tuple[int, int]] = []
        self._open()

    def _open(self) -> None:
        self._forks = _Process.forks
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._register(self._wake_out.fileno())

    def _reopen(self) -> None:
        """Leave the parent's to it, and watch the same descriptors in a poller of this process."""
        self._close()
        self._open()
        for fd in list(self._owners):
            self._register(fd)

    def _close(self) -> None:
        self._wake_in.close()
        self._wake_out.close()

    def _register(self, fd: int) -> None:
        raise NotImplementedError

    def _unregister(self, fd: int) -> None:
        raise NotImplementedError

    def add(self, fd: int, owner: Any) -> None:
        """Watch `fd` for both directions on behalf of `owner`, which is held weakly.

        Raises:
            OSError: the kernel refused; nothing is registered.
        """
        if self._forks != _Process.forks:
            self._reopen()
        self._owners[fd] = ref(owner)  # first: a loop that polls meanwhile may get its first edge at once
        try:
            self._register(fd)
        except BaseException:
            self._owners.pop(fd, None)
            raise

    def remove(self, fd: int) -> None:
        """Stop watching `fd`, which is still open."""
        if self._owners.pop(fd, None) is not None and self._forks == _Process.forks:
            with suppress(OSError, ValueError):  # closing the descriptor, or the poller, does the same
                self._unregister(fd)

    def find(self, fd: int) -> Any:
        """Return on whose behalf `fd` is watched; None if it is not."""
        held = self._owners.get(fd)
        return None if held is None else held()

    def owner(self, i: int) -> Any:
        """Return whom event `i` of the last `wait` concerns; None if that one is gone."""
        return self.find(self._ready[i][0])

    def events(self, i: int) -> int:
        """Return the bits of event `i` of the last `wait`."""
        return self._ready[i][1]

    def owners(self) -> list[Any]:
        """Return every owner that is alive."""
        return [owner for held in list(self._owners.values()) if (owner := held()) is not None]

    def wake(self) -> None:
        """End a `wait` that another thread is in, or the next one."""
        if self._forks != _Process.forks:
            return  # nobody waits in a process that has not opened it yet
        try:
            self._wake_in.send(b"\0")
        except OSError:
            pass  # full of wake-ups that were not looked at: one is enough; or closed by the loop meanwhile

    def _drain_waker(self) -> None:
        try:
            while self._wake_out.recv(4096):
                pass
        except BlockingIOError:
            pass

    def now(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def thread(self) -> int:
        """Return the identity of the calling thread."""
        return threading.get_ident()

    def close(self) -> None:
        """Close what the poller itself opened."""
        self._owners.clear()
        self._close()


class EpollPoller(_Poller):
    """Linux."""

    def _open(self) -> None:
        self._epoll = select.epoll()
        super()._open()

    def _register(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)

    def _unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout_s: float) -> int:
        """Wait for events, for ever if `timeout_s` is negative, and return how many there are.

        Raises:
            OSError: the kernel no longer polls for us.
        """
        if self._forks != _Process.forks:
            self._reopen()
        ready = []
        for fd, bits in self._epoll.poll(timeout_s if timeout_s >= 0 else None, EVENTS_MAX):
            if fd == self._wake_out.fileno():
                self._drain_waker()  # counted all the same: the caller must see that this was all there is room for
            events = 0
            if bits & select.EPOLLIN:
                events |= READABLE
            if bits & select.EPOLLOUT:
                events |= WRITABLE
            if bits & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                events |= BROKEN
            if bits & (select.EPOLLHUP | select.EPOLLERR):
                events |= HUNG
            ready.append((fd, events))
        self._ready = ready
        return len(ready)

    def _close(self) -> None:
        with suppress(OSError):  # somebody closed it underneath: the rest still has to be
            self._epoll.close()
        super()._close()


class KqueuePoller(_Poller):
    """The BSDs and macOS: EV_CLEAR is their edge-triggered mode, one filter for each direction."""

    def _open(self) -> None:
        self._kqueue = kernel.kqueue()
        super()._open()

    def _change(self, fd: int, flags: int) -> None:
        changes = [kernel.kevent(fd, kind, flags) for kind in (kernel.KQ_FILTER_READ, kernel.KQ_FILTER_WRITE)]
        self._kqueue.control(changes, 0)

    def _register(self, fd: int) -> None:
        self._change(fd, kernel.KQ_EV_ADD | kernel.KQ_EV_CLEAR)

    def _unregister(self, fd: int) -> None:
        self._change(fd, kernel.KQ_EV_DELETE)

    def wait(self, timeout_s: float) -> int:
        """As `EpollPoller.wait`; the two directions of one descriptor may come as two events."""
        if self._forks != _Process.forks:
            self._reopen()
        ready = []
        for event in self._kqueue.control(None, EVENTS_MAX, timeout_s if timeout_s >= 0 else None):
            if event.ident == self._wake_out.fileno():
                self._drain_waker()
            events = READABLE if event.filter == kernel.KQ_FILTER_READ else WRITABLE
            if event.flags & (kernel.KQ_EV_EOF | kernel.KQ_EV_ERROR):
                events |= BROKEN | HUNG  # one bit for both: the watcher asks the socket before it says so
            ready.append((event.ident, events))
        self._ready = ready
        return len(ready)

    def _close(self) -> None:
        with suppress(OSError):  # somebody closed it underneath: the rest still has to be
            self._kqueue.close()
        super()._close()
