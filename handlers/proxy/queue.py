"""The queue of clients that wait for a server: bounded, and nobody waits longer than the timeout."""

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from .options import QueueOptions
from .pool import Pool
from .session import Session

if TYPE_CHECKING:
    from . import Proxy


class Queue:
    """First come, first served. All wait equally long at most, so the oldest is also the first to give up.

    A client that closes meanwhile leaves at once, wherever it stands. Each pool has one.

    Attributes:
        waiting: who, the oldest first, and until when.
    """

    def __init__(self, proxy: "Proxy", pool: Pool, options: QueueOptions) -> None:
        self._proxy = proxy
        self._pool = pool
        self._options = options
        self._has_timer = False
        self.waiting: OrderedDict[Session, float] = OrderedDict()

    def join(self, session: Session) -> bool:
        """Let a client wait behind the others; tell whether there was room."""
        if len(self.waiting) >= self._options.length:
            return False
        self.waiting[session] = time.monotonic() + self._options.timeout
        self._proxy.count("upstream_queued", 1)
        self._come_back_in(self._options.timeout)
        return True

    def serve(self) -> None:
        """Connect as many as there is room for, the oldest first."""
        proxy = self._proxy
        while self.waiting:
            session = next(iter(self.waiting))
            endpoint = proxy.choose(session)
            if endpoint is None and self._pool.is_waiting_worthwhile:
                return
            self.leave(session)
            if endpoint is None:
                proxy.refuse(session, self._pool.lack)
            else:
                session.connect(endpoint)

    def ring(self) -> None:
        """Let those go who have waited too long, and come back for the next."""
        self._has_timer = False
        now_s = time.monotonic()
        while self.waiting:
            session, until_s = next(iter(self.waiting.items()))
            if until_s > now_s:
                self._come_back_in(until_s - now_s)
                return
            self.leave(session)
            self._proxy.count("upstream_queue_timeouts")
            lack = self._pool.lack
            self._proxy.refuse(session, "queue_timeout" if lack == "full" else lack)

    def leave(self, session: Session) -> None:
        """Let a client wait no more, if it does."""
        if self.waiting.pop(session, None) is not None:
            self._proxy.count("upstream_queued", -1)

    def _come_back_in(self, delay_s: float) -> None:
        if not self._has_timer:
            self._has_timer = True
            self._proxy.timer(delay_s, self)
