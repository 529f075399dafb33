"""Names of servers, looked up again and again in a thread: asking a name server blocks."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from weakref import ref

TTL_MIN_S, TTL_MAX_S = 1.0, 3600.0
"""Records that may not be kept at all are asked for once a second, and nobody relies on one for a day."""

RETRY_S = 1.0
"""What is between the first failure and the next lookup. It doubles each time, up to the interval."""

JITTER = 0.1
"""Lookups come up to so much earlier or later than the interval says: daemons must not ask in step."""


@dataclass(frozen=True)
class Answer:
    """What a lookup brought."""

    name: str
    hosts: tuple[str, ...]
    """Numeric addresses, sorted. If it failed, those of the last lookup that did not."""
    error: str = ""
    is_final: bool = True
    """Whether asking again soon would be in vain: it is found, or it is known that there is no such name."""


def look_up(name: str) -> tuple[str, ...]:
    """Return the addresses of a name, as the system finds them: /etc/hosts, search domains and all.

    Raises:
        OSError: it has none, or nobody answers.
        UnicodeError: it is no name.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(sorted({str(address[0]) for *_, address in found}))


def ttl_of(name: str) -> float | None:
    """Return for how many seconds the name server says that a name's addresses are good; None: nobody says.

    The addresses themselves are the system's to find (`look_up`): it alone knows /etc/hosts.
    """
    try:
        import dns.exception  # an extra; and late, for it takes some MiB that a worker without names does not need
        import dns.resolver
    except ImportError:
        return None
    ttls = []
    for kind in ("A", "AAAA"):
        try:
            answer = dns.resolver.resolve(name, kind, search=True, lifetime=2.0)
        except (dns.exception.DNSException, OSError):
            continue
        ttls.append(float(answer.rrset.ttl))
    return min(ttls, default=None)


class Names:
    """Looks names up until nobody references it any more.

    Args:
        names: which.
        interval_s: how often, where no TTL is known.
        tell: called with every Answer, in the thread.
        look_up, ttl_of: as the functions of this module.
    """

    def __init__(
        self,
        names: Iterable[str],
        interval_s: float,
        tell: Callable[[Answer], None],
        *,
        look_up: Callable[[str], tuple[str, ...]] = look_up,
        ttl_of: Callable[[str], float | None] = ttl_of,
    ) -> None:
        self._interval_s = interval_s
        self._tell = tell
        self._look_up = look_up
        self._ttl_of = ttl_of
        self._due = [(0.0, name) for name in sorted(set(names))]  # a heap
        self._failures: Counter[str] = Counter()  # in a row
        self._dice = random.Random()
        self._end = threading.Event()

    def start(self) -> None:
        """Begin, in a thread that the end of the process does not wait for."""
        threading.Thread(target=_run, args=(ref(self), self._end), name="gaiod-names", daemon=True).start()

    def look_up_due(self, now_s: float) -> float:
        """Look up whom it is time to; return for how many seconds nobody else is due."""
        while self._due[0][0] <= now_s:
            _, name = heappop(self._due)
            heappush(self._due, (now_s + self._look_up_one(name), name))
        return self._due[0][0] - now_s

    def _look_up_one(self, name: str) -> float:
        """Look one up, and return in how many seconds to do it again."""
        ttl_s = None
        try:
            answer = Answer(name, self._look_up(name))
        except (OSError, UnicodeError) as error:
            answer = Answer(name, (), str(error), getattr(error, "errno", None) != socket.EAI_AGAIN)
            self._failures[name] += 1
        else:
            ttl_s = self._ttl_of(name)
            self._failures[name] = 0
        self._tell(answer)
        if answer.error:
            return min(RETRY_S * 2.0 ** min(self._failures[name] - 1, 16), self._interval_s)
        if ttl_s is not None:
            return min(max(ttl_s, TTL_MIN_S), TTL_MAX_S)
        return self._interval_s * self._dice.uniform(1 - JITTER, 1 + JITTER)

    def __del__(self) -> None:
        self._end.set()


def _run(names: "ref[Names]", end: threading.Event) -> None:
    """Look names up in this thread. It keeps nobody alive while it waits."""
    wait_s = 0.0
    while not end.wait(wait_s):
        found = names()
        if found is None:
            return
        wait_s = found.look_up_due(time.monotonic())
        del found
