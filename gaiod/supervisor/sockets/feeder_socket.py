"""What feeders have one after the other: the socket that workers connect to, and the journal."""

import os
import shutil
import socket
import sys
import tempfile

from gaiod.supervisor.processes.slots import anonymous_file

BACKLOG = 1024
"""More than there are workers of all generations."""


class FeederSocket:
    """Where workers connect to. The supervisor has it, so that it outlives the feeder: who connects meanwhile waits.

    Attributes:
        journal: the descriptor of the memory in which each feeder leaves what the next must know
            (`gaiod.feeder.journal`).
    """

    def __init__(self) -> None:
        self.journal = anonymous_file("gaiod-journal")
        self._folder: str | None = None
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

    def close(self) -> None:
        """Close it."""
        self._socket.close()
        os.close(self.journal)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
