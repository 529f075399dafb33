"""Who is healthy: what failed connects say of an endpoint, and what checks say."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gaiod import Conn, OpResult, Termination

from .failures import NO_ANSWER, is_ours, words_for
from .options import EXPECT_MAX_BYTES, CheckOptions, PassiveOptions
from .servers import Endpoint, Target

if TYPE_CHECKING:
    from . import Proxy

FIRST_SHARE = 0.1
"""Of its weight that an endpoint has when it comes back: a cold cache must not get everybody at once."""

SOON, DOWN = 0.1, 0.75
"""Of the interval: when an endpoint's first check comes, and what is between the checks that bring it up again; and
what is between those of one that is down. So a server that is back is used within an interval, with the default `rise`.
"""

JITTER = 0.1
"""Checks come up to so much earlier or later than the interval says: workers must not ask in step."""


SHOWN_BYTES = 60
"""Of an answer that the log repeats: enough to recognise it by."""

ENDINGS = {
    "deadline": NO_ANSWER,
    "peer_eof": "the server closed the connection",
    "peer_reset": "the server reset the connection",
}
"""What the log says of a check whose connection was closed for that reason."""


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
        endpoint.ejected_s = now_s
        endpoint.ejected_until_s = now_s + duration_s
        return duration_s

    def checked(self, endpoint: Endpoint, passed: bool, began_s: float) -> bool:
        """Take note of a check that began at `began_s`; tell whether it ends the endpoint's ejection.

        It does, unless clients could not connect after a check had ended the last one: then checks do not see
        what clients see, and the ejection runs its (growing) time. A check that fails sees something again.
        """
        if not passed:
            endpoint.is_on_trial = False
            return False
        if not endpoint.ejected_until_s or began_s < endpoint.ejected_s or endpoint.is_on_trial:
            return False
        endpoint.is_on_trial = True
        return True

    def succeeded(self, endpoint: Endpoint) -> None:
        """Take note of a connect that succeeded; only who has its full share again is as good as new."""
        endpoint.failures = 0
        endpoint.is_on_trial = False
        if endpoint.returned_s is None and not endpoint.ejected_until_s:
            endpoint.ejections = 0

    def told(self, endpoint: Endpoint) -> dict[str, Any] | None:
        """Return what other workers have to know of an endpoint's ejections: `recall` takes it. None: nothing."""
        if not endpoint.ejections:
            return None
        return {
            "ejections": endpoint.ejections,
            "ejected_s": endpoint.ejected_s,
            "until_s": endpoint.ejected_until_s,
            "on_trial": endpoint.is_on_trial,
            "returned_s": endpoint.returned_s,
            "why": endpoint.trouble,
        }

    def recall(self, endpoint: Endpoint, told: dict[str, Any] | None, now_s: float) -> None:
        """Take over what `told` has returned in another worker, now or some time ago."""
        endpoint.failures = 0
        if told is None:
            endpoint.ejections, endpoint.ejected_until_s, endpoint.is_on_trial = 0, 0.0, False
            return
        endpoint.ejections = told["ejections"]
        endpoint.ejected_s = told["ejected_s"]
        endpoint.is_on_trial = told["on_trial"]
        endpoint.trouble = told["why"]
        until_s = told["until_s"]
        endpoint.ejected_until_s = until_s if until_s > now_s else 0.0
        if not endpoint.ejected_until_s:
            self.recall_return(endpoint, until_s or told["returned_s"], now_s)

    def recall_return(self, endpoint: Endpoint, returned_s: float | None, now_s: float) -> None:
        """Take over when an endpoint came back; None: it was never away. The latest time counts, while it matters."""
        if returned_s is not None and now_s < returned_s + self.options.slow_start:
            endpoint.returned_s = max(returned_s, endpoint.returned_s or returned_s)

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
    """What the checks of one endpoint add up to: `fall` failures in a row: down; `rise` successes in a row: up.

    Before the first result nothing speaks for the endpoint, so a first one that is a failure is enough.
    """

    def __init__(self, options: CheckOptions, *, is_known: bool = False, is_down: bool = False) -> None:
        """Begin with what another worker knows, if it does."""
        self._options = options
        self._against = 0 if is_known else options.fall - 1  # results in a row that contradict it
        self.is_down = is_down

    @property
    def is_rising(self) -> bool:
        """Whether it is down, and the last result says otherwise."""
        return self.is_down and self._against > 0

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
    """The checks of one endpoint, one after the other, as long as its name leads to it, and this worker leads."""

    def __init__(self, proxy: "Proxy", endpoint: Endpoint, options: CheckOptions, dice: random.Random) -> None:
        self._proxy = proxy
        self._endpoint = endpoint
        self._options = options
        self._dice = dice
        self._verdict = Verdict(options, is_known=endpoint.is_known, is_down=endpoint.is_down)
        self._began_s = 0.0
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to check."""
        return self._is_stopped or self._endpoint.is_gone or self._endpoint.server.mode == "maint"

    def stop(self) -> None:
        """Check no more."""
        self._is_stopped = True

    def start(self) -> None:
        """Begin soon: nothing is known of the endpoint, or who checked it has ended."""
        self._proxy.timer(self._dice.random() * SOON * self._options.interval, self)

    def ring(self) -> None:
        """Check once: it is time."""
        if self.is_over:
            return
        options = self._options
        send = options.send_bytes
        if self._proxy.announces and self._endpoint.server.tls is None:
            send = self._proxy.header_for(None) + send
        probe = Probe(self._endpoint.target, send, options.expect_bytes, self._done)
        self._began_s = time.monotonic()
        deadline_s = self._began_s + options.timeout
        try:
            conn = self._proxy.connect_to(self._endpoint, None, data=probe, deadline_s=deadline_s)
        except OSError:  # this process lacks a descriptor: that says nothing about the server
            self._again()
        else:
            probe.begin(conn, deadline_s)

    def _done(self, passed: bool | None, failure: str) -> None:
        """Take what came of a check, and why if it failed; None: this machine could not check."""
        endpoint, proxy = self._endpoint, self._proxy
        if self.is_over:
            return
        if passed is not None:
            endpoint.server.stats.checked(passed)
            proxy.checked(endpoint, passed, self._began_s)
            if self._verdict.take(passed):
                took_ms = (time.monotonic() - self._began_s) * 1e3
                proxy.set_down(endpoint, None if passed else f"{failure}, after {took_ms:.0f} ms")
        self._again()

    def _again(self) -> None:
        verdict = self._verdict
        share = SOON if verdict.is_rising else DOWN if verdict.is_down else 1.0
        self._proxy.timer(share * self._options.interval * self._dice.uniform(1 - JITTER, 1 + JITTER), self)


class Probe:
    """One check: the `data` of its connection. Passed: the server took the connection, and answered as expected."""

    __slots__ = ("_deadline_s", "_done", "_expect", "_failure", "_passed", "_received", "_send", "_step", "_target")

    def __init__(self, target: Target, send: bytes, expect: bytes, done: Callable[[bool | None, str], None]) -> None:
        self._target = target
        self._send = send
        self._expect = expect
        self._done = done
        self._received = b""
        self._step = "connect"
        self._passed: bool | None = False  # None: it says nothing about the server
        self._failure = ""  # why it failed; empty: how it closes will tell
        self._deadline_s = 0.0

    def begin(self, conn: Conn, deadline_s: float) -> None:
        """Write and read as soon as it is connected, at most until the deadline."""
        self._deadline_s = deadline_s
        if self._send:
            conn.write(self._send, deadline=deadline_s)

    def connected(self, conn: Conn, result: OpResult) -> None:
        """Go on once it is connected, or failed to."""
        if result.error is not None:
            if is_ours(result.error, self._target):
                self._passed = None
            self._failure = words_for(result.error, self._target, is_there=conn.peer_address is not None)
            conn.abort()
            return
        self._step = "send" if self._send else "expect"
        if self._expect:
            conn.read(deadline=self._deadline_s)
        elif not self._send:
            self._pass(conn)

    def wrote(self, conn: Conn) -> None:
        """Be content with having sent, where no answer is expected."""
        self._step = "expect"
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
            self._failure = f"it is not in the first {EXPECT_MAX_BYTES} bytes"
            conn.abort()

    def closed(self, conn: Conn, reason: str) -> None:
        """Tell what came of it. Whatever goes wrong closes the connection, so nothing else can."""
        failure = self._failure or ENDINGS.get(reason, reason)
        if reason == "tls_error" and isinstance(reason, Termination):
            failure = f"TLS failed: {reason.cause}"
        if self._step == "expect":
            came = shown_bytes(self._received) if self._received else "nothing"
            failure = f"expected {shown_bytes(self._expect)}, got {came}; {failure}"
        self._done(self._passed, f"{self._step}: {failure}")

    def _pass(self, conn: Conn) -> None:
        self._passed = True
        conn.close()


def shown_bytes(data: bytes) -> str:
    """Make what a server said fit for the log: one line, printable, not too long."""
    text = repr(data[:SHOWN_BYTES])[2:-1].replace('"', '\\"').replace("\\'", "'")
    return f'"{text}{"..." if len(data) > SHOWN_BYTES else ""}"'
