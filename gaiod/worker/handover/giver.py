"""The worker that hands its connections over: it offers them, and lets go of what was accepted.

Theory of operation
===================

A connection is offered with everything that is tied to it, as a unit (`core/handover.py`), between two passes of the
loop: all completions of the last one are dealt with. From then on nobody touches its socket, until the offer is
committed (it is the taker's), or it is resumed (it is the giver's). One rule decides when the stream ends: what is not
committed belongs to the taker if the giver has died, and to the giver in every other case. The taker cannot tell that
from the stream. So the giver has a lifeline (`wire.py`), and before it takes anything back, it puts a byte in there. A
taker that wakes up a minute later finds it.

A commit counts from when all of it is with the kernel. A taker that lives is going to read it, and one that sees only a
part goes by the lifeline. Until then the giver neither lets go of what is to go, nor touches what is to stay.

The giver takes everything back when the taker has died, says what makes no sense, or shows no progress for 2 s: it
hangs, perhaps before it has received all of an offer. The link is over then. Clients stand still for no longer, and for
that twice at most. A taker that hung gets a new link, and more when it has said something there.

A connection may be what its takers die of: its handler's `on_arrive` ends the process. So what a taker had not accepted
when it died is suspect, and is offered once more, before all else and alone. Who cost its taker its life again stays.
After two of these, all of the listener stays: then it is the handler, and no longer one connection.

What was asked of a connection after it was offered is not in the offer. So that one is kept, and the commit says so.

What is published for the member of a group meanwhile is known by its position in the feed: the taker says which
position it had reached when the member joined there, and the commit brings what the giver has had up to that one.
The taker does not accept before it has reached the position of the offer, nor does the giver commit before it has
reached that of the taker. So there is no gap, and no message twice.
"""

import errno
import logging
import os
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.errors import NotQuiet, UsageError
from gaiod.core.handover import Unit
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.stats.cells import STAY_REASONS
from gaiod.worker.handover.wire import (
    DESCRIPTORS_MAX,
    FORMAT,
    LOOK_S,
    FrameError,
    Link,
    Parts,
    Positions,
    close_all,
    plain_header,
    send_descriptors,
)
from gaiod.worker.listener import Listener
from gaiod.worker.names import Names

log = logging.getLogger("gaiod.worker")

UNITS_MAX = 100
"""In one offer: it takes some milliseconds, for which its connections stand still."""

OFFER_BYTES = 1 << 20
UNIT_MAX_BYTES = 64 << 20
"""What one unit may have waiting, to be handed over: it is copied, and both workers stand still meanwhile."""

OFFERS_MAX = 2
"""Offers of one link that are not committed."""

HELLO_S = 1.0
"""What a taker may take to say what it takes. Then others get its share: it is busy, or hangs."""

PASS_S = 0.002
"""What one pass may be delayed by."""

AGAIN_S = 0.05
"""When to ask again for what was not quiet."""

DEATHS_MAX = 2
"""Takers that one connection may cost, and of which connections of one listener may be the cause for certain."""

PROGRESS_TIMEOUT_S = 2.0
"""For how long the taker may show no progress, while connections are offered: it has received or said nothing."""


@dataclass(slots=True, eq=False)
class _Offered:
    """A unit that is offered."""

    listener: Listener
    unit: Unit

    @property
    def clients(self) -> int:
        """How many of its connections are clients'."""
        return sum(map(self.listener.is_client, self.unit.conns))


@dataclass(slots=True, eq=False)
class _Accept:
    """What the taker has said of an offer: why it refuses units, by their numbers, and how far its feed had come."""

    refused: dict[str, str]
    positions: dict[str, int]


@dataclass(slots=True, eq=False)
class _Offer:
    """What is not committed. `kept`: the numbers of units that are to stay, once the commit is on its way."""

    number: int
    units: list[_Offered]
    accepted: _Accept | None = None
    kept: set[int] | None = None


@dataclass(slots=True, eq=False)
class _Hello:
    """What the taker is: how many descriptors it has room for yet; each listener's handler, its versions, its feed."""

    token: bytes
    descriptors: int
    handlers: dict[str, str]
    versions: dict[str, set[int]]
    feeds: dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """What became of a hand-over.

    Attributes:
        moved: connections of clients that another worker serves now.
        stayed: how many did not, by reason (`stats.cells.STAY_REASONS`).
        held_bytes: what waited, and was carried.
        took_s: from the beginning to the end.
    """

    moved: int = 0
    stayed: dict[str, int] = field(default_factory=dict)
    held_bytes: int = 0
    took_s: float = 0.0


class Giver:
    """Hands the connections of a worker to others.

    Args:
        watcher: the worker's.
        takers: their addresses, as `Taker.address`; `add_takers` adds others. `counts` of one say of which listener
            it gets how many connections; without them all go, and each gets its share.
        listeners: whose connections.
        names: of the worker's connections.
        positions: tells how far the feed has come.
        timeout_s: what it may take; then what is left stays.
        after_pass: has something called once the completions of a pass are dealt with.
        done: called with the outcome.
        before: the worker's last one, which knows of what takers have died. It counts where some connections are to go:
            that is tried again and again. All go because somebody wants it, perhaps with another handler.

    Attributes:
        why: why what is left stays, if no taker is left either.
    """

    def __init__(
        self,
        watcher: Watcher,
        takers: Sequence[Mapping[str, Any]],
        listeners: Sequence[Listener],
        *,
        names: Names,
        positions: Positions,
        timeout_s: float,
        after_pass: Callable[[Callable[[], None]], None],
        done: Callable[[Outcome], None],
        before: "Giver | None" = None,
    ) -> None:
        self.watcher = watcher
        self.names = names
        self.positions = positions
        self.outcome = Outcome()
        self.why = "lost"
        self._began_s = time.monotonic()
        self.deadline_s = self._began_s + timeout_s
        self._after_pass = after_pass
        self._done: Callable[[Outcome], None] | None = done
        self._waiting: defaultdict[Listener, deque[Conn]] = defaultdict(deque)
        self._again: list[tuple[Listener, Conn]] = []
        self._again_s = 0.0
        self.gives_all = not any("counts" in taker for taker in takers)
        self._unshared: Counter[str] = Counter()  # connections of each listener that no taker gets yet
        for listener in listeners:
            conns = listener.clients()
            if listener.hands_over:
                self._waiting[listener].extend(conns)
                self._unshared[listener.name] = len(conns) if self.gives_all else 0
                continue
            for _ in conns if self.gives_all else ():
                self.stays(listener, "handler")
        self._links: list[_Link] = []
        self._known: set[str] = set()  # where takers are, or were
        self._have_waited: set[Conn] = set()
        self._deaths: Counter[Conn] = Counter()  # of takers that were building it
        self._deaths_alone: Counter[Listener] = Counter()  # of takers that were building nothing else
        if before is not None and not self.gives_all:
            self._deaths.update({conn: deaths for conn, deaths in before._deaths.items() if not conn.closed})
            self._deaths_alone.update(before._deaths_alone)
        if any(self._waiting.values()):
            self.add_takers(takers)
        self._share()
        self.look(None)

    def add_takers(self, takers: Iterable[Mapping[str, Any]]) -> None:
        """Hand over to these, too: they serve since a moment ago, perhaps instead of others."""
        for taker in takers:
            if taker["stream"] not in self._known and self._done is not None:
                self._known.add(taker["stream"])
                counts = Counter(taker.get("counts", {}))
                self._links.append(_Link(self, taker["stream"], taker["descriptors"], counts))

    def add(self, listener: Listener, conn: Conn) -> None:
        """Hand over this connection, too: it has come since."""
        self._unshared[listener.name] += 1
        self.ask_again(listener, conn)

    def call_again(self, stream: str, descriptors: str) -> None:
        """Hand over to a taker that hung, once it does not any more: then it says what it takes."""
        self._links.append(_Link(self, stream, descriptors, Counter()))

    def has_waited(self, conn: Conn) -> bool:
        """Tell whether a connection has stood still for a taker that hung before; from now on it has."""
        has_waited = conn in self._have_waited
        self._have_waited.add(conn)
        return has_waited

    def is_suspect(self, conn: Conn) -> bool:
        """Tell whether a taker may have died of a connection."""
        return self._deaths[conn] > 0

    def is_deadly(self, listener: Listener, conn: Conn) -> bool:
        """Tell whether a connection costs too many takers, or its listener does."""
        return self._deaths[conn] >= DEATHS_MAX or self._deaths_alone[listener] >= DEATHS_MAX

    def note_death(self, units: Sequence[_Offered]) -> None:
        """Take note of what a taker was building when it died; it is still to be taken back."""
        if self.is_suspect(units[0].unit.conns[0]):
            self._deaths_alone[units[0].listener] += 1
            log.error(
                "a worker ended again while it took over a connection of listener %s, which stays here; "
                "look at what on_arrive of its handler does",
                units[0].listener.name,
            )
        for each in units:
            self._deaths.update(each.unit.conns)

    def cut_short(self) -> None:
        """Offer nothing more: all connections are to go, and no longer just some."""
        for link in self._links:
            link.wanted.clear()
        self._waiting.clear()
        self._again.clear()

    @property
    def is_over(self) -> bool:
        """Whether the outcome was told."""
        return self._done is None

    def stays(self, listener: Listener, reason: str) -> None:
        """Take note that a client's connection is not handed over."""
        self.outcome.stayed[reason] = self.outcome.stayed.get(reason, 0) + 1
        listener.count_stayed(reason)

    def ask_again(self, listener: Listener, conn: Conn) -> None:
        """Offer a connection later."""
        self._again.append((listener, conn))

    def ask_next(self, listener: Listener, conn: Conn) -> None:
        """Offer a connection before the others of its listener."""
        self._waiting[listener].appendleft(conn)

    def next_for(self, wanted: Mapping[str, int]) -> tuple[Listener, Conn] | None:
        """Return a connection to offer to who gets so many of each listener; None: there is none now."""
        for listener, conns in self._waiting.items():
            while conns and wanted[listener.name] > 0:
                conn = conns.popleft()
                if not conn.closed:
                    return listener, conn
        return None

    def look(self, result: OpResult | None) -> None:
        """Go on once this pass is over; and see how far it is."""
        if self._done is not None:
            self._after_pass(self._go_on)

    def _go_on(self) -> None:
        if self._done is None:
            return
        now_s = time.monotonic()
        is_late = now_s >= self.deadline_s
        if self._again and not is_late and now_s >= self._again_s:
            for listener, conn in self._again:
                self._waiting[listener].append(conn)
            self._again.clear()
            self._again_s = now_s + AGAIN_S
        commits = sum([link.look(now_s) for link in self._links])
        self._take_shares(now_s)
        if not is_late and not commits:  # a commit is on its way first: clients wait for it, and the taker
            self._offer(now_s + PASS_S)
        if not any(link.offers for link in self._links):
            if is_late:
                self._end("timeout" if self._links else self.why, "not_quiet" if self._links else self.why)
                return
            if any(link.is_full for link in self._links) and not any(self._is_open(link) for link in self._links):
                self.why = "descriptors"
            is_replaced = self.gives_all and self.why == "lost"  # who serves instead of a taker will be told
            is_hopeless = self.why == "descriptors" if self._links else not is_replaced
            if is_hopeless or not self._has_more():
                self._end(self.why, self.why)
                return
        is_busy = commits or any(link.has_room and self._has_for(link) for link in self._links)
        wait_s = 0.0 if is_busy else LOOK_S
        self.watcher.timer(now_s + wait_s, context=self.look)

    def _take_shares(self, now_s: float) -> None:
        """Take the shares of takers that are gone or full, or have not even said what they take: others get them."""
        is_slow = now_s >= self._began_s + HELLO_S
        for link in self._links:
            if not link.is_usable and (link.is_heard or link.is_over or (is_slow and self.gives_all)):
                self._unshared += link.wanted
                link.wanted.clear()
        self._links = [link for link in self._links if not link.is_over]
        self._share()

    def _share(self) -> None:
        """Divide what nobody gets among the takers, evenly. Who is first differs: many workers may have one each."""
        links = [link for link in self._links if link.is_usable] or [link for link in self._links if not link.is_heard]
        if not (links and self.gives_all):
            return
        first = self.names.place["worker"]
        for name, count in self._unshared.items():
            for i in range(len(links)):
                links[(first + i) % len(links)].wanted[name] += (count + len(links) - 1 - i) // len(links)
        self._unshared.clear()

    def _is_open(self, link: "_Link") -> bool:
        """Tell whether a taker gets something, and may yet take it."""
        return not link.is_full and any(count > 0 for count in link.wanted.values())

    def _has_for(self, link: "_Link") -> bool:
        return any(conns and link.wanted[listener.name] > 0 for listener, conns in self._waiting.items())

    def _has_more(self) -> bool:
        """Tell whether there is a connection that some taker gets, or would get."""
        listeners = {each for each, conns in self._waiting.items() if any(not conn.closed for conn in conns)}
        listeners |= {listener for listener, conn in self._again if not conn.closed}
        if self.gives_all:
            return bool(listeners)
        return any(link.wanted[listener.name] > 0 for listener in listeners for link in self._links)

    def _offer(self, until_s: float) -> None:
        for link in self._links:
            while link.has_room and time.monotonic() < until_s:
                if not link.offer(until_s):
                    break

    def _end(self, why: str, why_again: str) -> None:
        """Tell the outcome. What is left stays: all of it, or as many as were to go."""
        left = self._unshared
        for link in self._links:
            left += link.wanted
            link.close()
        again = [(listener, conn, why_again) for listener, conn in self._again]
        waiting = [(listener, conn, why) for listener, conns in self._waiting.items() for conn in conns]
        for listener, conn, reason in (*again, *waiting):
            if not conn.closed and (self.gives_all or left[listener.name] > 0):
                left[listener.name] -= 1
                self.stays(listener, reason)
        self.outcome.took_s = time.monotonic() - self._began_s
        done, self._done = self._done, None
        if done is not None:
            done(self.outcome)


class _Link(Link):
    """The stream to one taker.

    What happens to it is noted, and dealt with by `look`, between two passes: then it is known of all that was said
    whether it is with the kernel.
    """

    def __init__(self, giver: Giver, stream: str, descriptors: str, wanted: Counter[str]) -> None:
        super().__init__(None, "takes connections over")
        self.wanted = wanted  # how many connections of each listener it is yet to get
        self.offers: dict[int, _Offer] = {}
        self.is_over = False
        self.is_full = False  # the taker has too few descriptors left for the next unit
        self._giver = giver
        self._stream = stream
        self._descriptors = descriptors
        self._hello: _Hello | None = None
        self._next = 1
        self._units_max = UNITS_MAX
        self._lifeline: tuple[int, ...] = ()
        self._broken = ""  # why nothing more can be said to the taker
        self._is_leaving = False  # the taker is on its way out
        self._unsent_bytes = 0  # when it was looked last
        self._progress_s = 0.0
        try:
            self._lifeline = os.pipe()
            self._conn = giver.watcher.connect(stream, context=self)
        except OSError:
            self._broken = "lost"

    @property
    def is_heard(self) -> bool:
        """Whether the taker has said what it takes."""
        return self._hello is not None

    @property
    def is_usable(self) -> bool:
        """Whether it takes connections."""
        return self._hello is not None and not (self._broken or self._is_leaving or self.is_full)

    @property
    def has_room(self) -> bool:
        """Whether it can take another offer. None is made beside one of a suspect."""
        is_tried = any(
            offer.accepted is None and self._giver.is_suspect(offer.units[0].unit.conns[0])
            for offer in self.offers.values()
        )
        is_free = sum(offer.kept is None for offer in self.offers.values()) < OFFERS_MAX
        return self.is_usable and is_free and not is_tried

    def close(self) -> None:
        """End it in order: nothing is offered."""
        self.is_over = True
        if self._conn is not None:
            self._conn.close()
        close_all(self._lifeline)

    def _take_all_back(self) -> None:
        """End it, and go on with what is not committed. Before that the taker is told, where it cannot miss it."""
        self.is_over = True
        if self._lifeline:
            os.write(self._lifeline[1], b"x")
        if self._conn is not None:
            self._conn.abort()
        close_all(self._lifeline)
        self._giver.why = self._broken
        for offer in self.offers.values():
            if self._broken == "lost" and offer.accepted is None:
                self._giver.note_death(offer.units)
            self._take_back(offer.units, has_copies=True)
        self.offers.clear()
        if self._broken == "timeout":
            self._giver.call_again(self._stream, self._descriptors)

    # -- offering --------------------------------------------------------------------------------------

    def offer(self, until_s: float) -> bool:
        """Offer as many connections as fit; tell whether it was any."""
        assert self._hello is not None
        giver = self._giver
        offered: list[_Offered] = []
        told: list[dict[str, Any]] = []
        parts = Parts()
        count = 0
        while len(offered) < self._units_max and parts.size < OFFER_BYTES and time.monotonic() < until_s:
            waiting = giver.next_for(self.wanted)
            if waiting is None:
                break
            is_suspect = giver.is_suspect(waiting[1])
            if is_suspect and offered:
                giver.ask_next(*waiting)
                break
            each = self._detach(*waiting)
            if each is None:
                continue
            size = len(each.unit.conns)
            if count + size > min(DESCRIPTORS_MAX, self._hello.descriptors):
                each.unit.resume()
                if size > DESCRIPTORS_MAX:
                    self._stays(waiting[0], "descriptors")
                    continue
                giver.ask_again(*waiting)
                self.is_full = not offered
                break
            plain = self._describe(each, parts)
            if plain is not None:
                offered.append(each)
                told.append(plain)
                count += size
                self.wanted[each.listener.name] -= each.clients
                if is_suspect:
                    break
        if not offered:
            return False
        self._send_offer(offered, told, parts)
        return True

    def _stays(self, listener: Listener, reason: str) -> None:
        """Take note that a connection which was to go there does not, and none in its place."""
        self.wanted[listener.name] -= 1
        self._giver.stays(listener, reason)

    def _detach(self, listener: Listener, conn: Conn) -> _Offered | None:
        """Take a connection out of the loop, if the taker may have it and it is quiet."""
        assert self._hello is not None
        giver = self._giver
        if self._hello.handlers.get(listener.name, listener.label) != listener.label:
            self._stays(listener, "handler")  # the state is another handler's, whatever its version
            return None
        if listener.state_version not in self._hello.versions.get(listener.name, ()):
            self._stays(listener, "version")
            return None
        if conn.tls is not None:
            self._stays(listener, "tls")
            return None
        if giver.is_deadly(listener, conn):
            self._stays(listener, "lost")
            return None
        if conn.busy:
            giver.ask_again(listener, conn)
            return None
        partner = listener.partner_of(conn)
        conns = [conn] if partner is None or partner.closed else [conn, partner]
        try:
            return _Offered(listener, giver.watcher.detach(*conns))
        except (NotQuiet, UsageError):
            if not conn.closed:
                giver.ask_again(listener, conn)
            return None

    def _describe(self, each: _Offered, parts: Parts) -> dict[str, Any] | None:
        """Return what is said of a unit; None: it stays."""
        giver, listener, unit = self._giver, each.listener, each.unit
        told: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        size = 0
        states, reason = self._leave(listener, unit.conns)
        if not reason:
            told, blobs = unit.describe()
            size = sum(len(blob) for blob in blobs)
            reason = "size" if size > UNIT_MAX_BYTES else self._lack_of_feed(listener, told)
        if reason:
            unit.resume()
            if reason == "not_quiet":
                giver.ask_again(listener, unit.conns[0])
            else:
                self._stays(listener, reason)
            return None
        giver.outcome.held_bytes += size
        plain: dict[str, Any] = {
            "listener": listener.name,
            "version": listener.state_version,
            "states": [None if state is None else parts.add(state) for state in states],
            "conns": told,
            "clients": [listener.is_client(conn) for conn in unit.conns],
            "names": [giver.names.told_of(conn) for conn in unit.conns],
        }
        if len(unit.conns) > 1:
            plain["partners"] = [_partner_of(i, listener, unit.conns, told) for i in range(len(told))]
        if any(conn.proxy_header is not None for conn in unit.conns):
            plain["headers"] = [plain_header(conn.proxy_header) for conn in unit.conns]
        if blobs:
            plain["parts"] = [parts.add(blob) for blob in blobs]
        return plain

    def _leave(self, listener: Listener, conns: list[Conn]) -> tuple[list[bytes | None], str]:
        """Return what the handler says of each client's connection; and why they stay, empty: they can go."""
        states: list[bytes | None] = []
        for conn in conns:
            if conn.context is not listener:
                return states, "handler"  # of another listener, which may not be where this one goes
            state, why_not = listener.leave(conn) if listener.is_client(conn) else (None, "")
            if why_not and state is None:
                return states, why_not
            states.append(state)
        return states, ""

    def _lack_of_feed(self, listener: Listener, told: list[dict[str, Any]]) -> str:
        """Return why the messages of a group's member would not go on where they end; empty: they would."""
        assert self._hello is not None
        if not any("topics" in each for each in told):
            return ""
        has_own, has_theirs = listener.name in self._giver.positions(), self._hello.feeds[listener.name] is not None
        return "" if has_own == has_theirs else "feed"  # of other options they have the same numbers

    def _send_offer(self, offered: list[_Offered], told: list[dict[str, Any]], parts: Parts) -> None:
        assert self._hello is not None
        number, self._next = self._next, self._next + 1
        descriptors = [self._lifeline[0], *(conn.fileno() for each in offered for conn in each.unit.conns)]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                send_descriptors(sock, self._descriptors, self._hello.token, number, descriptors)
        except OSError as error:
            self._take_back(offered)
            if error.errno in (errno.EAGAIN, errno.ETOOMANYREFS):
                self._units_max = max(1, self._units_max // 2)
            else:
                self._broken = "lost"
            return
        names = {each.listener.name for each in offered}
        positions = {name: at[1] for name, at in self._giver.positions().items() if name in names}
        if not self.offers:
            self._progress_s = time.monotonic()
        self.offers[number] = _Offer(number, offered)
        self._hello.descriptors -= len(descriptors) - 1
        message = {
            "offer": number,
            "quiet_s": time.monotonic(),
            "from": self._giver.names.place,
            "positions": positions,
            "units": told,
        }
        self._say(message, parts)

    def _take_back(self, offered: Sequence[_Offered], *, has_copies: bool = False) -> None:
        """Go on with connections here, and offer them again; but no client waits for a taker that hangs twice."""
        for each in offered:
            each.unit.resume(has_copies=has_copies)  # a taker that hangs does not close them
            if each.unit.conns[0].closed:
                continue
            if self._broken == "timeout" and self._giver.has_waited(each.unit.conns[0]):
                self._giver.stays(each.listener, "timeout")
                continue
            self.wanted[each.listener.name] += each.clients
            if self._broken == "lost" and self._giver.is_suspect(each.unit.conns[0]):
                self._giver.ask_next(each.listener, each.unit.conns[0])
            else:
                self._giver.ask_again(each.listener, each.unit.conns[0])

    # -- what becomes of it ----------------------------------------------------------------------------

    def look(self, now_s: float) -> int:
        """Commit what both feeds have come far enough for; take everything back if the taker does not go on.

        Returns:
            How many offers were committed.
        """
        unsent_bytes = 0 if self._conn is None else self._conn.pending_write_bytes
        if unsent_bytes < self._unsent_bytes:
            self._progress_s = now_s
        self._unsent_bytes = unsent_bytes
        if self.offers and now_s >= self._progress_s + PROGRESS_TIMEOUT_S:
            self._broken = self._broken or "timeout"
        if self._broken:
            self._take_all_back()
            return 0
        if self._is_leaving and not self.offers:
            self._giver.why = "lost"
            self.close()
            return 0
        commits = 0
        for offer in self.offers.values():
            if offer.accepted is not None and offer.kept is None and self._is_fed(offer.accepted.positions):
                self._commit(offer, offer.accepted)
                commits += 1
        return commits

    def _is_fed(self, positions: Mapping[str, int]) -> bool:
        own = self._giver.positions()
        return all(name not in own or own[name][1] >= at for name, at in positions.items())

    def _commit(self, offer: _Offer, accepted: _Accept) -> None:
        """Say which connections are the taker's: those that it accepted, and that were not touched since."""
        offer.kept = set()
        parts = Parts()
        messages = []
        for i, each in enumerate(offer.units):
            if str(i) in accepted.refused or each.unit.is_touched:
                offer.kept.add(i)
            else:
                messages += self._messages(i, each, accepted.positions, parts)
        self._say({"commit": offer.number, "kept": sorted(offer.kept), "messages": messages}, parts, what=offer)

    def said(self, what: Any) -> None:
        """Let go of what was committed, now that it is the taker's for certain, and go on with what was kept."""
        if not isinstance(what, _Offer):
            return
        offer, giver = what, self._giver
        assert self._hello is not None and offer.accepted is not None and offer.kept is not None
        del self.offers[offer.number]
        for i, each in enumerate(offer.units):
            conns = each.unit.conns
            if i not in offer.kept:
                each.unit.release()
                giver.outcome.moved += sum(each.listener.is_client(conn) for conn in conns)
                each.listener.went(conns)
                continue
            each.unit.resume()
            self._hello.descriptors += len(conns)
            self.is_full = False
            why = offer.accepted.refused.get(str(i))
            self._is_leaving |= why == "lost"
            if why is None or why == "lost":
                self.wanted[each.listener.name] += each.clients
                giver.ask_again(each.listener, conns[0])
            else:
                self.wanted[each.listener.name] += each.clients - 1  # others of the unit have an attempt of their own
                giver.stays(each.listener, why)
        giver.look(None)

    def _messages(self, i: int, each: _Offered, positions: Mapping[str, int], parts: Parts) -> list[Any]:
        """Return what was published for a unit's connections since it was offered."""
        told = []
        for number, conn in enumerate(each.unit.conns):
            messages = each.unit.messages_until(conn, positions.get(each.listener.name, 0))
            if messages:
                told.append([i, number, [[topic, parts.add(data)] for topic, data in messages]])
        return told

    # -- the stream ------------------------------------------------------------------------------------

    def take(self, message: dict[str, Any], parts: list[bytes]) -> None:
        """As `Link.take`."""
        self._progress_s = time.monotonic()
        if "format" in message:
            self._take_hello(message)
        else:
            self._take_accept(message)
        self._giver.look(None)

    def give_up(self) -> None:
        """As `Link.give_up`."""
        self._broken = self._broken or "lost"
        self._giver.look(None)

    def _take_hello(self, message: dict[str, Any]) -> None:
        if message["format"] != FORMAT:
            log.warning("connections cannot be handed to a worker of another version: they drain")
            self._broken = "version"
            return
        listeners = dict(message["listeners"])
        self._hello = _Hello(
            bytes.fromhex(message["token"]),
            index(message["descriptors"]),
            {name: str(each["handler"]) for name, each in listeners.items()},
            {name: {index(version) for version in each["versions"]} for name, each in listeners.items()},
            {name: each["feed"] for name, each in listeners.items()},
        )

    def _take_accept(self, message: dict[str, Any]) -> None:
        offer = self.offers.get(message["accept"])
        if offer is None or offer.accepted is not None:
            raise FrameError(f"it accepts offer {message['accept']}, which is not open")
        refused = {
            key: why if why in STAY_REASONS else "refused"  # a later version may have more of them
            for key, why in dict(message["refused"]).items()
        }
        positions = {name: index(at) for name, at in dict(message["positions"]).items()}
        offer.accepted = _Accept(refused, positions)

    def on_completion(self, result: OpResult) -> None:
        """Take the beginning of the stream, or its end: the taker is gone, or wants no more."""
        if result.operation is OpType.CONNECT and result.error is None:
            if not result.conn.closed:  # by the end of a hand-over that was short
                result.conn.read()
        elif result.operation is not OpType.CLOSE:
            self._broken = self._broken or "lost"
            self._giver.look(None)


def _partner_of(i: int, listener: Listener, conns: list[Conn], told: list[dict[str, Any]]) -> int | None:
    """Return the number of a connection's partner: as its handler has it, or where it is relayed to or from."""
    partner = listener.partner_of(conns[i])
    if partner is not None and partner in conns:
        return conns.index(partner)
    relays = [(each.get("relay") or {}).get("to") for each in told]
    return relays[i] if relays[i] is not None else relays.index(i) if i in relays else None
