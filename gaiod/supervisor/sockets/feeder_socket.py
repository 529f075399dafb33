"""What feeders have one after the other: the socket that workers connect to, and the journal."""

import os
import shutil
import socket
import sys
import tempfile
from typing import Any

from gaiod.supervisor.processes.slots import anonymous_file

BACKLOG = 1024
"""More than there are workers of all generations."""


class FeederSocket:
    """Where workers connect to. The supervisor has it, so that it outlives the feeder: who connects meanwhile waits.

    Attributes:
        journal: the descriptor of the memory in which each feeder leaves what the next must know
            (`gaiod.feeder.journal`).
    """

    def __init__(self, inherited: dict[str, Any] | None = None) -> None:
        """Make them, or take over what `handed_over` has returned in another process.

        Raises:
            OSError: the system lacks something.
        """
        self._folder: str | None = None
        if inherited is not None:
            self._socket = socket.socket(fileno=inherited["links"])
            self.journal: int = inherited["journal"]
            self.address: str = inherited["address"]
            self._folder = inherited["folder"]
            for fd in self.fds:
                os.set_inheritable(fd, False)
            return
        self.journal = anonymous_file("gaiod-journal")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if sys.platform == "linux":
                self._socket.bind("")  # the kernel finds a name that is no file, and nobody else's (man 7 unix)
                self.address = "\0" + self._socket.getsockname()[1:].decode("ascii")
            else:
                self._folder = tempfile.mkdtemp(prefix="gaiod-")
                self.address = os.path.join(self._folder, "feeder.sock")
                self._socket.bind(self.address)
            self._socket.listen(BACKLOG)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    @property
    def fds(self) -> list[int]:
        """The descriptors that `handed_over` names."""
        return [self._socket.fileno(), self.journal]

    def handed_over(self) -> dict[str, Any]:
        """Return what another process takes over, with the descriptors."""
        links, journal = self.fds
        return {"links": links, "journal": journal, "address": self.address, "folder": self._folder}

    def close(self, *, keep_files: bool = False) -> None:
        """Close it; `keep_files`: another process goes on with it."""
        self._socket.close()
        os.close(self.journal)
        if self._folder is not None and not keep_files:
            shutil.rmtree(self._folder, ignore_errors=True)
