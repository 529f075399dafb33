"""Who is healthy: what failed connects say of an endpoint, and what checks say."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gaiod import Conn, OpResult

from .options import EXPECT_MAX_BYTES, CheckOptions, PassiveOptions
from .servers import Endpoint

if TYPE_CHECKING:
    from . import Proxy

FIRST_SHARE = 0.1
"""Of its weight that an endpoint has when it comes back: a cold cache must not get everybody at once."""

JITTER = 0.1
"""Checks come up to so much earlier or later than the interval says: workers must not ask in step."""


class Passive:
    """What failed connects lead to: so many in a row eject an endpoint, each time for twice as long."""

    def __init__(self, options: PassiveOptions) -> None:
        self.options = options

    def failed(self, endpoint: Endpoint, now_s: float) -> float:
        """Take note of a connect that failed; return for how many seconds that ejects the endpoint, 0: it does not."""
        endpoint.failures += 1
        if endpoint.failures < self.options.failures or endpoint.ejected_until_s:
            return 0.0
        duration_s = min(self.options.eject * 2.0 ** min(endpoint.ejections, 32), self.options.eject_max)
        endpoint.failures = 0
        endpoint.ejections += 1
        endpoint.ejected_until_s = now_s + duration_s
        return duration_s

    def succeeded(self, endpoint: Endpoint) -> None:
        """Take note of a connect that succeeded; only who has its full share again is as good as new."""
        endpoint.failures = 0
        if endpoint.returned_s is None and not endpoint.ejected_until_s:
            endpoint.ejections = 0

    def returned(self, endpoint: Endpoint, now_s: float) -> None:
        """Let an endpoint that comes back begin with little."""
        endpoint.failures = 0
        endpoint.returned_s = now_s
        self.raise_weight(endpoint, now_s)

    def raise_weight(self, endpoint: Endpoint, now_s: float) -> None:
        """Give an endpoint that has come back the share that is due."""
        assert endpoint.returned_s is not None
        age_s = now_s - endpoint.returned_s
        share = 1.0 if age_s >= self.options.slow_start else max(FIRST_SHARE, age_s / self.options.slow_start)
        endpoint.weight = endpoint.server.weight * share
        if share == 1.0:
            endpoint.returned_s = None


class Verdict:
    """What the checks of one endpoint add up to: `fall` failures in a row: down; `rise` successes in a row: up."""

    def __init__(self, options: CheckOptions) -> None:
        self._options = options
        self._against = 0  # results in a row that contradict it
        self.is_down = False

    def take(self, passed: bool) -> bool:
        """Take a result; tell whether it changed the verdict."""
        if passed != self.is_down:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._options.rise if self.is_down else self._options.fall):
            return False
        self._against = 0
        self.is_down = not self.is_down
        return True


class Checks:
    """The checks of one endpoint, one after the other, as long as its name leads to it."""

    def __init__(self, proxy: "Proxy", endpoint: Endpoint, options: CheckOptions, dice: random.Random) -> None:
        self._proxy = proxy
        self._endpoint = endpoint
        self._options = options
        self._dice = dice
        self._verdict = Verdict(options)

    def start(self) -> None:
        """Begin within the next interval, or soon."""
        self._proxy.timer(self._dice.random() * self._options.interval, self)

    def ring(self) -> None:
        """Check once: it is time."""
        if self._endpoint.is_gone:
            return
        options = self._options
        send = options.send.encode()
        if self._proxy.announces:
            send = self._proxy.header_for(None) + send
        probe = Probe(send, options.expect.encode(), self._done)
        deadline_s = time.monotonic() + options.timeout
        try:
            conn = self._proxy.connect(
                self._endpoint.target, data=probe, deadline=deadline_s, options=self._proxy.options_of(self._endpoint)
            )
        except OSError:  # this process lacks a descriptor: that says nothing about the server
            self._again()
        else:
            probe.begin(conn, deadline_s)

    def _done(self, passed: bool) -> None:
        endpoint = self._endpoint
        if endpoint.is_gone:
            return
        endpoint.server.stats.checked(passed)
        if self._verdict.take(passed):
            self._proxy.set_down(endpoint, self._verdict.is_down)
        self._again()

    def _again(self) -> None:
        self._proxy.timer(self._options.interval * self._dice.uniform(1 - JITTER, 1 + JITTER), self)


class Probe:
    """One check: the `data` of its connection. Passed: the server took the connection, and answered as expected."""

    __slots__ = ("_deadline_s", "_done", "_expect", "_passed", "_received", "_send")

    def __init__(self, send: bytes, expect: bytes, done: Callable[[bool], None]) -> None:
        self._send = send
        self._expect = expect
        self._done = done
        self._received = b""
        self._passed = False
        self._deadline_s = 0.0

    def begin(self, conn: Conn, deadline_s: float) -> None:
        """Write and read as soon as it is connected, at most until the deadline."""
        self._deadline_s = deadline_s
        if self._send:
            conn.write(self._send, deadline=deadline_s)

    def connected(self, conn: Conn, result: OpResult) -> None:
        """Go on once it is connected, or failed to."""
        if result.error is not None:
            conn.abort()
        elif self._expect:
            conn.read(deadline=self._deadline_s)
        elif not self._send:
            self._pass(conn)

    def wrote(self, conn: Conn) -> None:
        """Be content with having sent, where no answer is expected."""
        if not self._expect:
            self._pass(conn)

    def read(self, conn: Conn, data: bytes) -> None:
        """Look for what is expected in what has come so far."""
        self._received += data
        if self._expect in self._received[:EXPECT_MAX_BYTES]:
            self._pass(conn)
        elif len(self._received) < EXPECT_MAX_BYTES:
            conn.read(deadline=self._deadline_s)
        else:
            conn.abort()

    def closed(self, conn: Conn, reason: str) -> None:
        """Tell what came of it. Whatever goes wrong closes the connection, so nothing else can."""
        self._done(self._passed)

    def _pass(self, conn: Conn) -> None:
        self._passed = True
        conn.close()
