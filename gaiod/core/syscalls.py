"""The system calls of the interpreted engine: the standard library, nothing compiled.

`_syscalls.pyx` is the same interface for the compiled engine. A call returns what the kernel said,
`-errno` for a failure, and never raises for what the network did.
"""

import errno
import os
import select
import socket
import sys
from typing import Any

from gaiod.core.pollers import EpollPoller, KqueuePoller

SO_PEERNAME = 28
"""Linux's number, which the module does not name."""

SEND_MAX = 256 * 1024
"""Most bytes one connection may send or receive in one call: its share of a pass."""

if hasattr(select, "epoll"):  # noqa: SIM108 - mypy takes no conditional expression for a type
    Poller = EpollPoller
else:
    Poller = KqueuePoller  # type: ignore[misc,assignment]


class Batch:
    """System calls collected, made in one go, and their results.

    Attributes:
        exhausted: how often the swap buffer's memory could not be used again.
        count: calls added since the last `reset`.

    The swap "buffer" of this engine is a new `bytes` per read: there is no memory to share, and so
    none that could show another connection's bytes. Views are released by `recycle` all the same.
    """

    def __init__(self, buffer_size: int) -> None:
        self.exhausted = 0  # always: a `bytes` of one's own cannot be held against others
        self._buffer_size = buffer_size
        self.count = 0
        self._calls: list[tuple[int, Any, int, Any]] = []
        self._operations: list[Any] = []
        self._results: list[int] = []
        self._wanted: list[int] = []
        self._data: list[Any] = []
        self._views: list[memoryview] = []

    def pin(self, data: Any, writable: bool) -> Any:
        """Return `data` in the form in which a batch takes it, its memory pinned as long as that is kept.

        Raises:
            TypeError: not a buffer, not contiguous, or read-only where it has to be written to.
        """
        if type(data) is bytes and not writable:
            return data
        view = memoryview(data).cast("B")
        if writable and view.readonly:
            raise TypeError(f"cannot read into a read-only {type(data).__name__}; pass a bytearray")
        return view

    def length(self, pinned: Any) -> int:
        """Return the bytes of what `pin` returned."""
        return len(pinned)

    def reset(self) -> None:
        """Forget the last batch."""
        self.count = 0
        self._calls.clear()
        self._operations.clear()
        self._results.clear()
        self._wanted.clear()
        self._data.clear()

    def add_send(self, fd: int, data: Any, offset: int, operation: Any) -> None:
        """Add a send of `data[offset:]`."""
        self._add(fd, data, offset, operation)

    def send(self) -> None:
        """Make all the sends."""
        for fd, data, offset, session in self._calls:
            wanted = min(len(data) - offset, SEND_MAX)
            self._wanted.append(wanted)
            if session is not None:
                self._results.append(session.send(fd, data, offset, wanted))
                continue
            whole = offset == 0 and wanted == len(data)
            try:
                sent = os.write(fd, data if whole else memoryview(data)[offset : offset + wanted])
            except OSError as error:
                sent = -(error.errno or errno.EIO)
            self._results.append(sent)

    def add_receive(self, fd: int, data: Any, offset: int, operation: Any) -> None:
        """Add a receive into `data[offset:]`, or into the swap buffer if `data` is None."""
        self._add(fd, data, offset, operation)

    def _add(self, fd: int, data: Any, offset: int, operation: Any) -> None:
        self._calls.append((fd, data, offset, None))
        self._operations.append(operation)
        self.count += 1

    def secure(self, session: Any) -> None:
        """Let the call that was added last go through a TLS session."""
        self._calls[-1] = (*self._calls[-1][:3], session)

    def receive(self) -> int:
        """Make the receives, and return how many were made (here always all)."""
        for fd, data, offset, session in self._calls:
            wanted = self._buffer_size if data is None else min(len(data) - offset, SEND_MAX)
            received: Any = None
            try:
                if session is not None:
                    memory = memoryview(bytearray(wanted)) if data is None else data[offset : offset + wanted]
                    size = session.receive(fd, memory)
                    received = bytes(memory[: max(0, size)]) if data is None else None
                elif data is None:
                    received = os.read(fd, wanted)
                    size = len(received)
                else:
                    size = os.readv(fd, [data[offset : offset + wanted]])
            except OSError as error:
                size = -(error.errno or errno.EIO)
            self._results.append(size)
            self._wanted.append(wanted)
            self._data.append(received)
        return len(self._calls)

    def operation(self, i: int) -> Any:
        """Return what call `i` was added for."""
        return self._operations[i]

    def result(self, i: int) -> int:
        """Return the bytes that call `i` moved, or `-errno`."""
        return self._results[i]

    def wanted(self, i: int) -> int:
        """Return the bytes that call `i` asked for."""
        return self._wanted[i]

    def view(self, i: int) -> memoryview:
        """Return what receive `i` put into the swap buffer: read-only, until `recycle`."""
        view = memoryview(self._data[i])
        self._views.append(view)
        return view

    def own(self, data: Any) -> Any:
        """Return `data`, safe to keep beyond `recycle`: pinned memory here always is."""
        return data

    def rest(self, pinned: Any, offset: int) -> bytes:
        """Return a copy of what `pin` returned, from `offset` on; all of a `bytes` is that itself."""
        return bytes(pinned[offset:])

    def keep(self, data: Any) -> None:
        """Let the view `data` live through the next `recycle`: nothing to do for pinned memory."""

    def recycle(self) -> None:
        """Release the views handed out since the last call."""
        for view in self._views:
            try:
                view.release()
            except BufferError:
                pass  # somebody holds an export of it; it shows its own bytes and nobody else's
        self._views.clear()

    def close(self) -> None:
        """Release everything."""
        self.recycle()


def accept(fd: int) -> int:
    """Accept one connection, non-blocking and close-on-exec: its descriptor, or `-errno`."""
    listener = socket.socket(fileno=fd)
    try:
        connection, _ = listener.accept()
    except OSError as error:
        return -(error.errno or errno.EIO)
    finally:
        listener.detach()
    connection.setblocking(False)
    return connection.detach()


def open_stream(family: int) -> int:
    """Make a stream socket, non-blocking and close-on-exec: its descriptor, or `-errno`."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return -(error.errno or errno.EIO)
    sock.setblocking(False)
    return sock.detach()


def set_option(fd: int, level: int, name: int, value: int | bytes) -> int:
    """Set an option of a socket, a number or bytes: 0, or `-errno`."""
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(level, name, value)
    except OSError as error:
        return -(error.errno or errno.EIO)
    finally:
        sock.detach()
    return 0


def connect(fd: int, family: int, address: Any) -> int:
    """Begin a connection to an address as `sockets.resolve_numeric` returns it: 0, or `-errno`."""
    sock = socket.socket(family, socket.SOCK_STREAM, fileno=fd)
    try:
        return -sock.connect_ex(address)
    finally:
        sock.detach()


def peer_name(fd: int) -> bytes:
    """Return the address of a socket's other end, a `struct sockaddr`; b"" if nobody knows it.

    Linux knows it also after a reset, when getpeername() does not any more: SO_PEERNAME.
    """
    sock = socket.socket(fileno=fd)
    try:
        if sys.platform != "linux":
            return b""
        name = _option(sock, SO_PEERNAME, 16) or _option(sock, SO_PEERNAME, 2)  # IPv4; a unix socket without a name
        is_longer = name[:2] == socket.AF_INET6.to_bytes(2, sys.byteorder)
        return _option(sock, SO_PEERNAME, 28) if is_longer else name
    finally:
        sock.detach()


def _option(sock: socket.socket, name: int, size: int) -> bytes:
    """Return the first bytes of an option of a socket; b"" if it has fewer, or none."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, name, size)
    except OSError:
        return b""


def take_error(fd: int) -> int:
    """Return and clear the socket's pending error: 0, or an errno."""
    sock = socket.socket(fileno=fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        sock.detach()


def shutdown_write(fd: int) -> None:
    """Send a FIN; a connection that is gone already needs none."""
    sock = socket.socket(fileno=fd)
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        sock.detach()
