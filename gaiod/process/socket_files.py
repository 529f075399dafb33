"""Unix sockets that listen, and their files: the same for listeners, the control socket, metrics and sources.

The kernel ties a socket to its file once, and for good. A file that was removed, by a cleaner of /tmp, say, leaves a
socket that nobody reaches; and a file that is there may be somebody else's by now. So a socket knows the inode of
its file, which no other file can have while the socket is open.
"""

import errno
import logging
import os
import socket
import stat
from typing import Any

log = logging.getLogger("gaiod.sockets")

MODE = 0o755
"""Of a socket's file, unless something else is asked for: to connect takes the right to write it."""

LOOK_INTERVAL_S = 1.0
"""How often it is looked whether files are still there. It takes microseconds."""

Inode = tuple[int, int]
"""A device, and the number of a file on it."""


class UnixListener(socket.socket):
    """A unix socket that listens at a file of its own.

    Attributes:
        path: of the file.
        inode: the file's; None: it has none.
    """

    def __init__(self, fileno: int | None = None, *, mode: int = MODE) -> None:
        """Make a socket for `at`, or take over one that listens already, at a file that it has somewhere.

        Args:
            fileno: of the one that listens. What is at its address is believed to be its file.
            mode: of that file.
        """
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fileno)
        self.path = "" if fileno is None else str(self.getsockname())
        self.inode = _inode_of(self.path) if self.path else None
        self._mode = mode
        self._backlog = socket.SOMAXCONN
        self._trouble = ""

    @classmethod
    def at(cls, path: str, *, mode: int = MODE, backlog: int) -> "UnixListener":
        """Listen at a path. A socket file that nobody listens at any more is replaced, and nothing else.

        Args:
            path: of the file, which has `mode` from the first moment on.
            mode: its permissions.
            backlog: how many may wait to be accepted.

        Raises:
            OSError: it cannot be had. EADDRINUSE: somebody listens there; EEXIST: it is no socket.
        """
        sock = cls()
        try:
            sock._bind(path, mode)
            sock.listen(backlog)
        except BaseException:
            sock.remove_file()
            sock.close()
            raise
        return sock

    def listen(self, backlog: int = socket.SOMAXCONN, /) -> None:
        """As of any socket."""
        super().listen(backlog)
        self._backlog = backlog

    def dup(self) -> Any:
        """Return another descriptor of the socket. The file stays this one's."""
        return socket.socket(fileno=os.dup(self.fileno()))

    def change_mode(self, mode: int) -> None:
        """Let the file have other permissions, if it is this socket's.

        Raises:
            OSError: it cannot.
        """
        if mode != self._mode:
            self._mode = mode
            if self.inode is not None and _inode_of(self.path) == self.inode:
                os.chmod(self.path, mode)

    def remove_file(self) -> None:
        """Remove the file if it is this socket's. To be called before the socket is closed.

        Where the rights for it are missing the file stays, and the next who listens there replaces it.
        """
        if self.inode is not None and _inode_of(self.path) == self.inode:
            try:
                os.unlink(self.path)
            except OSError:
                pass
        self.inode = None

    def renewed(self) -> "UnixListener | None":
        """Return a socket to listen with instead of this one, if its file was removed; None: it goes on as it is.

        What is wrong is logged, once for as long as it stays so.
        """
        inode = _inode_of(self.path)
        if inode is not None and inode == self.inode:
            self._trouble = ""
            return None
        if inode is not None:
            self._tell(
                f"{self.path}: another file is there now, so clients cannot reach this daemon by it; leaving it alone: "
                "remove it, and it is made anew"
            )
            return None
        try:
            sock = UnixListener.at(self.path, mode=self._mode, backlog=self._backlog)
        except OSError as error:
            self._tell(f"{self.path}: the file was removed, and cannot be recreated: {error.strerror}; trying again")
            return None
        log.warning("%s: the file was removed; it is recreated, and clients can connect again", self.path)
        return sock

    def _bind(self, path: str, mode: int) -> None:
        clear_path(path)
        usual = os.umask(0o777 & ~mode) if mode != MODE else None  # the umask is the process's, and its threads'
        try:
            self.bind(path)
        finally:
            if usual is not None:
                os.umask(usual)
        self.path = path
        self.inode = _inode_of(path)
        self._mode = mode

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("%s", trouble)


def clear_path(path: str) -> None:
    """Remove a socket file that nobody listens at any more.

    Raises:
        OSError: somebody listens there (EADDRINUSE), it is not ours to ask (EACCES), or it is no socket (EEXIST); or it
            cannot be removed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file, and it is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # one that listens and is busy would keep us waiting: EAGAIN says that it lives
        answer = probe.connect_ex(path)
    if answer == errno.ECONNREFUSED:
        os.unlink(path)
    elif answer in (errno.EACCES, errno.EPERM):
        raise OSError(answer, os.strerror(answer), path)  # somebody else's, who may listen or not
    elif answer != errno.ENOENT:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _inode_of(path: str) -> Inode | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
