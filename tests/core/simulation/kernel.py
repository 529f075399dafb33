"""The simulated kernel: descriptors, system calls, epoll and time.

Nothing in it happens by itself. What the network or another thread does comes in steps, between two calls of the
watcher's or as an interrupt in front of one: so a seed does the same every time.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

from core.simulation.files import CONNECTED, CONNECTING, DEAD, IN, LISTENING, OUT, Pipe, Sock
from core.simulation.setting import Fault, Setting

MAIN = 1

IDLE_POLLS_MAX = 60
"""More polls in a row that look only once, and of which nothing came, are a loop that spins."""


CALLS_MAX = 20_000
"""More calls are no run of so few steps."""


class Item:
    """A descriptor that an epoll watches."""

    __slots__ = ("fd", "interest", "sock")

    def __init__(self, fd: int, sock: Sock, interest: int) -> None:
        self.fd = fd
        self.sock = sock
        self.interest = interest


class Epoll:
    """An epoll: items in the order in which they became ready."""

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.references = 0
        self.items: dict[tuple[int, Sock], Item] = {}
        self.ready: dict[Item, None] = {}
        self.fd = kernel.open(self)

    def _alive(self) -> None:
        if self.fd < 0:
            raise ValueError("I/O operation on closed epoll object")

    def register(self, fd: int, interest: int) -> None:
        self._alive()
        kernel = self.kernel
        kernel.tick()
        sock = kernel.file(fd)
        if kernel.watches_refused and self.items:
            kernel.watches_refused -= 1
            raise OSError(errno.ENOSPC, "too many watches")
        if (fd, sock) in self.items:
            raise FileExistsError(errno.EEXIST, "registered already")
        item = self.items[fd, sock] = Item(fd, sock, interest)
        sock.items.append((self, item))
        if sock.mask():
            self.ready[item] = None

    def unregister(self, fd: int) -> None:
        self._alive()
        sock = self.kernel.file(fd)
        item = self.items.get((fd, sock))
        if item is None:
            raise FileNotFoundError(errno.ENOENT, "not registered")
        self.forget(item)
        sock.items.remove((self, item))

    def forget(self, item: Item) -> None:
        del self.items[item.fd, item.sock]
        self.ready.pop(item, None)

    def poll(self, timeout: float | None, events_max: int) -> list[tuple[int, int]]:
        self._alive()
        kernel = self.kernel
        kernel.tick()
        if timeout == 0:
            kernel.look_for_spin()
        while not self.ready and timeout != 0 and kernel.interrupts:
            kernel.interrupt()
        if not self.ready and timeout is None:
            raise Fault("the loop sleeps for ever, though its caller gave it a time")
        if not self.ready and timeout:
            kernel.on_sleep()
        kernel.polls += 1
        found: list[tuple[int, int]] = []
        ready = list(self.ready)
        if kernel.setting.shuffles:
            kernel.shuffle(ready)
        if kernel.is_late and timeout == 0:
            ready = ready[: kernel.roll(len(ready) + 1)]
        for item in ready:
            if len(found) == events_max:
                break
            del self.ready[item]
            sock = item.sock
            bits = sock.mask()
            if not bits & OUT and sock.state == CONNECTED:
                sock.no_space = True  # tcp_poll() asks to be told of room
            if bits:
                found.append((item.fd, bits))
        if found:
            kernel.moved += 1
        elif timeout:
            kernel.now_s += timeout
            kernel.moved += 1
        return found

    def close(self) -> None:
        if self.fd >= 0:
            self.kernel.close(self.fd)
            self.fd = -1


class Kernel:
    """Descriptors, and the calls that take them. Each may be interrupted: `tick`.

    Attributes:
        now_s: the time.
        limit: most descriptors.
        calls: of the system so far.
        closes: of connections by the watcher so far.
        moved: those that did something.
        polls: of them.
        watches_refused: so many registrations are about to fail.
        interrupts: what comes before which call, the last first.
        thread: which thread runs.
        coming: the key of the socket that each thread is about to make.
        socks: every socket, by key.
        trace: how it stood at each call; None: that is not wanted.
        unraised: what finalizers raised, which Python passes over.
        by_line: interrupts come before lines of the watcher, not before calls.
        on_sleep: called when the loop is about to sleep.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.now_s = 1000.0
        self.files: dict[int, Any] = {}
        self.limit = 1000
        self.calls = 0
        self.moved = 0
        self.idle_polls = 0
        self.moved_at_poll = -1
        self.polls = 0
        self.watches_refused = 0
        self.is_late = False
        self.interrupts: list[tuple[int, Callable[[], None]]] = []
        self.is_interrupted = False
        self.thread = MAIN
        self.by_line = False
        self.other: Any = None
        self.coming: dict[int, int] = {}
        self.socks: dict[object, Sock] = {}
        self.trace: list[object] | None = None
        self.unraised: list[BaseException] = []
        self.dice = 1
        self.closes = 0
        self.model: Any = None
        self.on_sleep: Callable[[], None] = lambda: None

    def roll(self, sides: int) -> int:
        self.dice = (self.dice * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.dice >> 12) % sides

    def shuffle(self, items: list[Any]) -> None:
        for i in range(len(items) - 1, 0, -1):
            j = self.roll(i + 1)
            items[i], items[j] = items[j], items[i]

    def look_for_spin(self) -> None:
        """See that the loop polls without sleeping only while something goes on."""
        self.idle_polls = self.idle_polls + 1 if self.moved == self.moved_at_poll else 0
        self.moved_at_poll = self.moved
        if self.idle_polls > IDLE_POLLS_MAX:
            raise Fault("the loop spins: it polls again and again, does not sleep, and nothing moves")

    # -- interrupts ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Count a call, and have happen what comes before it."""
        self.calls += 1
        if self.calls > CALLS_MAX:
            raise Fault("it never ends: call after call, and no step is over")
        if self.trace is not None:
            self.trace.append((self.thread, self.moved, self.now_s, sorted(self.files)))
        if self.thread != MAIN:
            self.other.worker.calls_left -= 1
        while self.interrupts and self.calls >= self.interrupts[-1][0] and self.thread == MAIN and not self.by_line:
            self.interrupt()

    def interrupt(self) -> None:
        _, action = self.interrupts.pop()
        self.moved += 1
        was, self.is_interrupted = self.is_interrupted, True
        try:
            action()
        finally:
            self.is_interrupted = was

    def _may_fail(self) -> None:
        """Fail with EINTR now and then."""
        if self.setting.interrupted and self.roll(self.setting.interrupted) == 0:
            self.moved += 1
            raise InterruptedError(errno.EINTR, "interrupted")

    # -- descriptors ---------------------------------------------------------------------------------

    def open(self, file: Any) -> int:
        if len(self.files) >= self.limit:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        fd = 3
        while fd in self.files:
            fd += 1
        self.files[fd] = file
        file.references += 1
        return fd

    def file(self, fd: int) -> Any:
        file = self.files.get(fd)
        if file is None:
            raise Fault(f"a system call on descriptor {fd}, which is closed")
        return file

    def close(self, fd: int) -> None:
        file = self.file(fd)
        del self.files[fd]
        file.references -= 1
        if file.references == 0 and type(file) is Sock:
            file.is_closed = True
            for epoll, item in file.items:
                epoll.forget(item)
            file.items.clear()

    def dup(self, fd: int) -> int:
        self.tick()
        return self.open(self.file(fd))

    # -- what becomes ready ---------------------------------------------------------------------------

    def act(self, sock: Sock, action: Callable[..., Any], *arguments: Any) -> None:
        """Do something to a socket, and tell who watches it if it is ready for more than before."""
        before = sock.mask()
        sent, error = sock.far_sent, sock.error
        asked = action(*arguments)
        after = sock.mask()
        if after & ~before & IN:
            sock.ready_at = self.polls
        is_new = after & ~before or asked is True or (error != sock.error and sock.error)
        if is_new or (self.setting.is_eager and sock.far_sent != sent):
            self.edge(sock)

    def edge(self, sock: Sock) -> None:
        for epoll, item in sock.items:
            if item not in epoll.ready:
                epoll.ready[item] = None

    # -- calls -----------------------------------------------------------------------------------------

    def read(self, fd: int, size: int) -> bytes:
        self.tick()
        self._may_fail()
        data: bytes = self.file(fd).read(size)
        self.moved += 1
        return data

    def write(self, fd: int, data: Any) -> int:
        self.tick()
        self._may_fail()
        sock = self.file(fd)
        sent: int = sock.write(data)
        self.moved += 1
        if sock.far_closed:
            self.act(sock, sock.far_reset)  # its far end is closed, and answers so
        return sent

    def shut(self, sock: Sock) -> None:
        if sock.state != CONNECTED:
            raise OSError(errno.ENOTCONN, "not connected")
        self.act(sock, setattr, sock, "fin_out", True)

    def accept(self, fd: int) -> int:
        self.tick()
        self._may_fail()
        listener = self.file(fd)
        if not listener.backlog:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        sock = listener.backlog[0]
        try:
            accepted = self.open(sock)
        except OSError:
            listener.lack = self.now_s, self.closes
            raise
        self.moved += 1
        del listener.backlog[0]
        return accepted

    def connect(self, sock: Sock, how: str) -> int:
        """Begin a connection that is made later (`how` is "1"), at once ("2"), or refused ("3")."""
        self.tick()
        if how == "1":
            sock.state = CONNECTING
            return errno.EINPROGRESS
        if how == "2":
            sock.state = CONNECTED
            sock.was_established = True
            return 0
        sock.told.add(errno.ECONNREFUSED)
        return errno.ECONNREFUSED

    def resolve(self, sock: Sock, is_good: bool) -> None:
        """Let a connect come to its end."""
        if sock.state == CONNECTING:
            if is_good:
                sock.was_established = True
                self.act(sock, setattr, sock, "state", CONNECTED)
            else:
                sock.error = errno.ETIMEDOUT
                self.act(sock, setattr, sock, "state", DEAD)

    def arrive(self, listener: Sock, sock: Sock) -> None:
        """Let a client connect to a listener."""
        if listener.state == LISTENING and listener.is_open():
            sock.state = CONNECTED
            sock.was_established = True
            before = len(listener.backlog)
            self.act(listener, listener.backlog.append, sock)
            if before and self.setting.is_eager:
                self.edge(listener)

    # -- pipes -----------------------------------------------------------------------------------------

    def pipe(self) -> tuple[int, int]:
        data, room = bytearray(), [self.setting.pipe_room]
        first = self.open(Pipe(data, room))
        try:
            return first, self.open(Pipe(data, room))
        except OSError:
            self.close(first)
            raise

    def read_pipe(self, fd: int, size: int) -> bytes:
        pipe = self.file(fd)
        data = bytes(pipe.data[:size])
        del pipe.data[:size]
        return data
