"""The modules that the watcher's files import, as the simulated kernel has them, and their places.

The watcher's own files run as they are; only what `os`, `socket`, `select`, `time`, `fcntl` mean in them is another.
"""

import errno
import fcntl
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from core.simulation.files import ERR, HUP, LISTENING, Sock
from core.simulation.kernel import Epoll, Kernel
from core.simulation.threads import Gate
from gaiod.core import (
    fanout,
    flows,
    group,
    loop,
    outboxes,
    pending,
    pollers,
    relays,
    sockets,
    syscalls,
    timers,
    watcher,
)


class Socket:
    """What `socket.socket` is: a name for a descriptor."""

    kernel: ClassVar[Kernel]
    type = socket.SOCK_STREAM

    def __init__(self, family: int = -1, kind: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is None:
            self.kernel.tick()
            sock = Sock(self.kernel.coming.get(self.kernel.thread), 24, 24, False)
            self.fd = self.kernel.open(sock)
            self.kernel.socks[sock.key] = sock
        else:
            self.fd = fileno

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_UNIX if self.sock.is_unix else socket.AF_INET

    @property
    def sock(self) -> Sock:
        if self.fd < 0:
            raise OSError(errno.EBADF, "closed")
        found: Sock = self.kernel.file(self.fd)
        return found

    def fileno(self) -> int:
        return self.fd

    def detach(self) -> int:
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        if self.fd >= 0:
            self.kernel.close(self.detach())

    def setblocking(self, flag: bool) -> None:
        pass

    def accept(self) -> tuple["Socket", None]:
        return Socket(fileno=self.kernel.accept(self.fd)), None

    def connect_ex(self, address: Any) -> int:
        return self.kernel.connect(self.sock, address[0].rpartition(".")[2])

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        if name == socket.SO_LINGER:
            self.sock.lingers = False

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        sock = self.sock
        if size:
            return b"\1\0"
        if name == socket.SO_ACCEPTCONN:
            return sock.state == LISTENING
        error, sock.error = sock.error, 0
        sock.told.add(error)
        return error

    def shutdown(self, how: int) -> None:
        self.kernel.tick()
        self.kernel.shut(self.sock)

    # -- what a waker does with its two

    def send(self, data: bytes) -> int:
        partner = self.sock.rec
        self.kernel.act(partner, partner.rx.extend, data)
        return len(data)

    def recv(self, size: int) -> bytes:
        return self.sock.read(size)


def _pair(kernel: Kernel) -> tuple[Socket, Socket]:
    first, second = Sock("waker", 4096, 4096, True), Sock("woken", 4096, 4096, True)
    first.state = second.state = 2
    first.rec, second.rec = second, first
    return Socket(fileno=kernel.open(first)), Socket(fileno=kernel.open(second))


class Poll:
    """What `select.poll()` returns, for one descriptor of which only hang-ups and errors are asked."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.fd = -1

    def register(self, fd: int, interest: int) -> None:
        self.fd = fd

    def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
        bits = self.kernel.file(self.fd).mask() & (HUP | ERR)
        return [(self.fd, bits)] if bits else []


class Calls:
    """The calls of a kernel, as the modules have them, with who makes them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.model = kernel.model

    def receive(self, fd: int, size: int) -> bytes:
        data = self.kernel.read(fd, size)
        self.model.on_receive(self.kernel.files[fd], data)
        return data

    def receive_into(self, fd: int, buffers: list[memoryview]) -> int:
        data = self.receive(fd, len(buffers[0]))
        buffers[0][: len(data)] = data
        return len(data)

    def send(self, fd: int, data: Any) -> int:
        sent = self.kernel.write(fd, data)
        self.model.on_send(self.kernel.files[fd], bytes(data[:sent]))
        return sent

    def publish(self, fd: int, vector: list[bytes]) -> int:
        data = b"".join(vector)
        sent = self.kernel.write(fd, data)
        self.model.on_publish(self.kernel.files[fd], data[:sent])
        return sent

    def relay_in(self, fd: int, size: int) -> bytes:
        if type(self.kernel.file(fd)) is not Sock:
            return self.kernel.read_pipe(fd, size)
        data = self.kernel.read(fd, size)
        self.model.on_relay_in(self.kernel.files[fd], data)
        return data

    def relay_out(self, fd: int, data: Any) -> int:
        sent = self.kernel.write(fd, data)
        self.model.on_relay_out(self.kernel.files[fd], bytes(data[:sent]))
        return sent

    def splice(self, source: int, sink: int, size: int, flags: int = 0) -> int:
        kernel = self.kernel
        if type(kernel.file(source)) is Sock:
            if not kernel.setting.splices:
                raise OSError(errno.EINVAL, "no splicing")
            pipe = kernel.file(sink)
            room = pipe.room[0] - len(pipe.data)
            if room <= 0:
                raise BlockingIOError(errno.EAGAIN, "full")
            data = self.relay_in(source, min(size, room))
            pipe.data.extend(data)
            return len(data)
        pipe = kernel.file(source)
        sent = self.relay_out(sink, pipe.data[:size])
        del pipe.data[:sent]
        return sent

    def unread(self, fd: int, request: int, answer: bytes) -> bytes:
        return len(self.kernel.file(fd).rx).to_bytes(4, sys.byteorder)

    def fcntl(self, fd: int, operation: int, argument: int = 0) -> int:
        room = self.kernel.file(fd).room
        found: int = room[0]
        return found


def _resolve(kernel: Kernel, host: str | bytes, port: int) -> list[Any]:
    if len(kernel.files) >= kernel.limit:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # as if it had to open a file
    name = host if isinstance(host, str) else host.decode()
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (name, port))]


def _fakes(kernel: Kernel) -> Iterator[tuple[ModuleType, str, Any]]:
    """Yield where each of the fake modules belongs."""
    calls = Calls(kernel)
    Socket.kernel = kernel
    of_socket = SimpleNamespace(
        socket=Socket, socketpair=lambda: _pair(kernel), gaierror=socket.gaierror,
        getaddrinfo=lambda host, port, **_: _resolve(kernel, host, port),
        **{name: getattr(socket, name) for name in (
            "AF_INET", "AF_INET6", "AF_UNIX", "AI_NUMERICHOST", "SHUT_WR", "SOCK_STREAM", "SOL_SOCKET", "SO_ACCEPTCONN",
            "SO_ERROR", "SO_LINGER")},
    )  # fmt: skip
    for module in (pollers, sockets, syscalls, watcher):
        yield module, "socket", of_socket
    of_select = SimpleNamespace(
        epoll=lambda: Epoll(kernel), EPOLLIN=select.EPOLLIN, EPOLLOUT=select.EPOLLOUT, EPOLLRDHUP=select.EPOLLRDHUP,
        EPOLLET=select.EPOLLET, EPOLLHUP=select.EPOLLHUP, EPOLLERR=select.EPOLLERR,
    )  # fmt: skip
    yield pollers, "select", of_select
    yield sockets, "select", SimpleNamespace(poll=lambda: Poll(kernel))
    yield sockets, "ioctl", calls.unread
    yield pollers, "time", SimpleNamespace(monotonic=lambda: kernel.now_s)
    yield pollers, "threading", SimpleNamespace(get_ident=lambda: kernel.thread)
    common = {
        "close": kernel.close, "dup": kernel.dup, "set_blocking": lambda fd, flag: None, "strerror": os.strerror,
        "fsencode": os.fsencode,
    }  # fmt: skip
    plain = SimpleNamespace(**common)
    for module in (pending, relays, fanout, loop, watcher, sockets):
        yield module, "os", plain
    yield syscalls, "os", SimpleNamespace(
        **common, read=calls.receive, readv=calls.receive_into, write=calls.send
    )  # fmt: skip
    yield flows, "os", SimpleNamespace(
        **common, read=calls.relay_in, write=calls.relay_out, pipe2=lambda flags: kernel.pipe(),
        O_NONBLOCK=os.O_NONBLOCK, O_CLOEXEC=os.O_CLOEXEC,
    )  # fmt: skip
    yield flows, "_splice", calls.splice
    yield flows, "fcntl", SimpleNamespace(
        fcntl=calls.fcntl, F_SETPIPE_SZ=fcntl.F_SETPIPE_SZ, F_GETPIPE_SZ=fcntl.F_GETPIPE_SZ
    )  # fmt: skip
    yield watcher, "sleep", lambda _: kernel.other.yield_to()
    yield watcher, "RLock", lambda: Gate(kernel.other)
    yield outboxes, "os", SimpleNamespace(**common, writev=calls.publish)


LIMITS: dict[str, tuple[ModuleType, ...]] = {
    "ACCEPTS_PER_PASS": (loop,),
    "BATCH_MAX": (loop,),
    "BULK_AFTER": (flows,),
    "BULK_LEAST": (flows,),
    "BULK_MIN": (flows,),
    "EVENTS_MAX": (loop, pollers),
    "HOLES_MIN": (group,),
    "PASSES_PER_POLL": (loop,),
    "PIPES_MAX": (flows,),
    "PIPE_BYTES_MIN": (flows,),
    "RECEIVES_FIRST": (loop,),
    "RECEIVES_MIN": (loop,),
    "SEND_MAX": (syscalls, outboxes),
    "SEND_ROUNDS": (loop,),
    "STALE_MIN": (timers,),
    "TURNS_MAX": (fanout,),
    "TURN_MAX": (flows,),
    "VECTOR_MAX": (outboxes,),
}
"""Constants that a setting may make small, and where they are."""


@contextmanager
def simulated(kernel: Kernel) -> Iterator[None]:
    """Put the fake modules into their places, and the real ones back."""
    sockets._numeric.cache_clear()  # of an earlier run's look-ups
    places = list(_fakes(kernel))
    places += [(module, name, value) for name, value in kernel.setting.limits for module in LIMITS[name]]
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)
