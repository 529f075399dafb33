"""The queue of clients that wait for a server: bounded, and nobody waits longer than the timeout."""

import time
from collections import deque
from typing import TYPE_CHECKING

from .options import QueueOptions
from .session import Session

if TYPE_CHECKING:
    from . import Proxy


class Queue:
    """First come, first served. All wait equally long at most, so the oldest is also the first to give up.

    A client that hangs up meanwhile is noticed when its turn comes, or its time.
    """

    def __init__(self, proxy: "Proxy", options: QueueOptions) -> None:
        self._proxy = proxy
        self._options = options
        self._waiting: deque[tuple[float, Session]] = deque()  # until when, and who

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, session: Session) -> bool:
        """Let a client wait behind the others; tell whether there was room."""
        if len(self._waiting) >= self._options.length:
            return False
        self._waiting.append((time.monotonic() + self._options.timeout, session))
        self._proxy.count("upstream_queued", 1)
        if len(self._waiting) == 1:
            self._proxy.timer(self._options.timeout, self)
        return True

    def serve(self) -> None:
        """Connect as many as there is room for, the oldest first."""
        proxy = self._proxy
        while self._waiting:
            session = self._waiting[0][1]
            if session.client is None:
                self._leave()
                continue
            endpoint = proxy.choose(session)
            if endpoint is None and proxy.pool.is_waiting_worthwhile:
                return
            self._leave()
            if endpoint is None:
                proxy.refuse(session, proxy.pool.lack)
            else:
                session.connect(endpoint)

    def ring(self) -> None:
        """Let those go who have waited too long, and come back for the next."""
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            session = self._leave()
            if session.client is not None:
                self._proxy.count("upstream_queue_timeouts")
                lack = self._proxy.pool.lack
                self._proxy.refuse(session, "queue_timeout" if lack == "full" else lack)
        if self._waiting:
            self._proxy.timer(self._waiting[0][0] - now_s, self)

    def _leave(self) -> Session:
        self._proxy.count("upstream_queued", -1)
        return self._waiting.popleft()[1]
