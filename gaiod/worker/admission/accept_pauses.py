"""How long a listener did not accept because the kernel had no descriptor or no memory for a connection."""

import errno
import time
from collections.abc import Callable, Iterable

from gaiod.core.connection import Conn

MEMORY = frozenset({errno.ENOBUFS, errno.ENOMEM})


class AcceptPauses:
    """Counts the rests of a listener's sockets, the present one included, for the reason that was seen last.

    The core keeps the time (`Conn.rested_s`), and tells why by the errors of accepting.

    Args:
        count: adds nanoseconds to one of `PAUSE_REASONS`.
    """

    def __init__(self, count: Callable[[str, int], None]) -> None:
        self._count = count
        self._counted_s = 0.0
        self._reason = "fd"

    def failed(self, sockets: Iterable[Conn], code: int | None) -> None:
        """Take note of a failure of accepting: what follows is because of it."""
        self.look(sockets)
        self._reason = "memory" if code in MEMORY else "fd"

    def look(self, sockets: Iterable[Conn]) -> None:
        """Count what came since the last look; the last time before they are closed."""
        now_s = time.monotonic()
        rested_s = sum(sock.rested_s(now_s) for sock in sockets)
        if rested_s > self._counted_s:
            self._count(self._reason, int((rested_s - self._counted_s) * 1e9))
            self._counted_s = rested_s
