"""The worker that hands its connections over: it offers them, and lets go of what was accepted.

Theory of operation
===================

A connection is offered with everything that is tied to it, as a unit (`core/handover.py`), between two passes of the
loop: all completions of the last one are dealt with. From then on nobody touches its socket, until the offer is
committed (it is the taker's), or it is resumed (it is the giver's). One rule decides when either process dies: what is
not committed when the stream ends belongs to the taker if the giver has died, and to the giver if the taker has.

What was asked of a connection after it was offered is not in the offer. So that one is kept, and the commit says so.
It is resumed when the commit is with the kernel, and not before: a giver that died in between would leave the same
connection to the taker, which does not know what was sent since.

What is published for the member of a group meanwhile is known by its position in the feed: the taker says which
position it had reached when the member joined there, and the commit brings what the giver has had up to that one.
The taker does not accept before it has reached the position of the offer, nor does the giver commit before it has
reached that of the taker. So there is no gap, and no message twice.
"""

import errno
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    Link,
    Parts,
    Positions,
    plain_header,
    send_descriptors,
)
from gaiod.worker.listener import Listener

log = logging.getLogger("gaiod.worker")

UNITS_MAX = 100
"""In one offer: it takes some milliseconds, for which its connections stand still."""

OFFER_BYTES = 1 << 20
UNIT_MAX_BYTES = 64 << 20
"""What one unit may have waiting, to be handed over: it is copied, and both workers stand still meanwhile."""

OFFERS_MAX = 2
"""Offers of one link that are not committed."""

PASS_S = 0.002
"""What one pass may be delayed by."""

AGAIN_S = 0.05
"""When to ask again for what was not quiet."""

ACCEPT_TIMEOUT_S = 2.0
"""What the taker may take to accept an offer."""


@dataclass(slots=True, eq=False)
class _Offered:
    """A unit that is offered."""

    listener: Listener
    unit: Unit


@dataclass(slots=True, eq=False)
class _Offer:
    """What was sent, and not committed. `accepted`: what the taker has said."""

    number: int
    units: list[_Offered]
    deadline_s: float
    accepted: dict[str, Any] | None = None


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
        takers: their addresses, as `Taker.address`.
        listeners: whose connections.
        positions: tells how far the feed has come.
        timeout_s: what it may take; then what is left stays.
        after_pass: has something called once the completions of a pass are dealt with.
        done: called with the outcome.
    """

    def __init__(
        self,
        watcher: Watcher,
        takers: Sequence[Mapping[str, str]],
        listeners: Sequence[Listener],
        *,
        positions: Positions,
        timeout_s: float,
        after_pass: Callable[[Callable[[], None]], None],
        done: Callable[[Outcome], None],
    ) -> None:
        self.watcher = watcher
        self.positions = positions
        self.outcome = Outcome()
        self._began_s = time.monotonic()
        self.deadline_s = self._began_s + timeout_s
        self._after_pass = after_pass
        self._done: Callable[[Outcome], None] | None = done
        self._waiting: deque[tuple[Listener, Conn]] = deque()
        self._again: list[tuple[Listener, Conn]] = []
        self._again_s = 0.0
        for listener in listeners:
            for conn in listener.clients():
                if listener.hands_over:
                    self._waiting.append((listener, conn))
                else:
                    self.stays(listener, "handler")
        wanted = takers if self._waiting else ()
        self._links = [_Link(self, taker["stream"], taker["descriptors"]) for taker in wanted]
        self.look(None)

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

    def next_waiting(self) -> tuple[Listener, Conn] | None:
        """Return a connection that is to be offered; None: there is none now."""
        while self._waiting:
            listener, conn = self._waiting.popleft()
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
            self._waiting.extend(self._again)
            self._again.clear()
            self._again_s = now_s + AGAIN_S
        for link in self._links:
            link.look(now_s)
        self._links = [link for link in self._links if link.is_pending or not link.is_over]
        if not is_late:
            self._offer(now_s + PASS_S)
        if not any(link.is_pending for link in self._links) and (
            is_late or not self._links or not (self._waiting or self._again)
        ):
            self._end("timeout" if is_late else "lost")
            return
        wait_s = 0.0 if self._waiting and any(link.has_room for link in self._links) else LOOK_S
        self.watcher.timer(now_s + wait_s, context=self.look)

    def _offer(self, until_s: float) -> None:
        for link in self._links:
            while self._waiting and link.has_room and time.monotonic() < until_s:
                if not link.offer(until_s):
                    break

    def _end(self, why: str) -> None:
        while (left := self.next_waiting()) is not None:
            self.stays(left[0], why)
        for listener, conn in self._again:
            if not conn.closed:
                self.stays(listener, "not_quiet")
        for link in self._links:
            link.close()
        self.outcome.took_s = time.monotonic() - self._began_s
        done, self._done = self._done, None
        if done is not None:
            done(self.outcome)


class _Link(Link):
    """The stream to one taker."""

    def __init__(self, giver: Giver, stream: str, descriptors: str) -> None:
        super().__init__(None, "takes connections over")
        self.offers: dict[int, _Offer] = {}
        self.is_over = False
        self._giver = giver
        self._descriptors = descriptors
        self._hello: dict[str, Any] | None = None
        self._token = b""
        self._next = 1
        self._to_resume: list[_Offered] = []  # once what was said is with the kernel
        self._units_max = UNITS_MAX
        try:
            self._conn = giver.watcher.connect(stream, context=self)
        except OSError:
            self._break()

    @property
    def has_room(self) -> bool:
        """Whether it can take another offer."""
        return self._hello is not None and not self.is_over and len(self.offers) < OFFERS_MAX

    @property
    def is_pending(self) -> bool:
        """Whether connections are offered, or the taker has not been told what became of them."""
        is_sending = self._conn is not None and not self._conn.closed and self._conn.pending_write_bytes > 0
        return is_sending or bool(self.offers or self._to_resume)

    def close(self) -> None:
        """End it in order, and take back what is not committed: the taker has to read that, or it would keep it."""
        if self.is_over:
            return
        for offer in list(self.offers.values()):
            self._cancel(offer)
        self.is_over = True
        if self._conn is not None:
            self._conn.close()

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
            waiting = giver.next_waiting()
            if waiting is None:
                break
            each = self._detach(*waiting)
            if each is None:
                continue
            if count + len(each.unit.conns) > min(DESCRIPTORS_MAX, self._hello["descriptors"]):
                each.unit.resume()
                if not offered:
                    giver.stays(waiting[0], "descriptors")
                    continue
                giver.ask_again(*waiting)
                break
            plain = self._describe(each, parts)
            if plain is not None:
                offered.append(each)
                told.append(plain)
                count += len(each.unit.conns)
        if not offered:
            return False
        self._send_offer(offered, told, parts)
        return True

    def _detach(self, listener: Listener, conn: Conn) -> _Offered | None:
        """Take a connection out of the loop, if the taker may have it and it is quiet."""
        assert self._hello is not None
        giver = self._giver
        known = self._hello["listeners"].get(listener.name)
        if known is None or listener.state_version not in known["versions"]:
            giver.stays(listener, "version")
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
        conn = unit.conns[0]
        state, why_not = listener.leave(conn)
        if state is None:
            unit.resume()
            if why_not == "not_quiet":
                giver.ask_again(listener, conn)
            else:
                giver.stays(listener, why_not)
            return None
        told, blobs = unit.describe()
        size = sum(len(blob) for blob in blobs)
        reason = "size" if size > UNIT_MAX_BYTES else self._lack_of_feed(listener, told)
        if reason:
            unit.resume()
            giver.stays(listener, reason)
            return None
        giver.outcome.held_bytes += size
        return {
            "listener": listener.name,
            "version": listener.state_version,
            "state": parts.add(state),
            "conns": told,
            "clients": [listener.is_client(conn) for conn in unit.conns],
            "partner": _index_of(listener.partner_of(conn), unit.conns),
            "headers": [plain_header(conn.proxy_header) for conn in unit.conns],
            "parts": [parts.add(blob) for blob in blobs],
        }

    def _lack_of_feed(self, listener: Listener, told: list[dict[str, Any]]) -> str:
        """Return why the messages of a group's member would not go on where they end; empty: they would."""
        assert self._hello is not None
        if not any("topics" in each for each in told):
            return ""
        own, theirs = self._giver.positions().get(listener.name), self._hello["listeners"][listener.name]["feed"]
        return "" if (own and own[0]) == theirs else "feed"

    def _send_offer(self, offered: list[_Offered], told: list[dict[str, Any]], parts: Parts) -> None:
        number, self._next = self._next, self._next + 1
        descriptors = [conn.fileno() for each in offered for conn in each.unit.conns]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                send_descriptors(sock, self._descriptors, self._token, number, descriptors)
        except OSError as error:
            self._take_back(offered)
            if error.errno in (errno.EAGAIN, errno.ETOOMANYREFS):
                self._units_max = max(1, self._units_max // 2)
            else:
                self.close()
            return
        names = {each.listener.name for each in offered}
        positions = {name: at[1] for name, at in self._giver.positions().items() if name in names}
        self.offers[number] = _Offer(number, offered, time.monotonic() + ACCEPT_TIMEOUT_S)
        self._say({"offer": number, "quiet_s": time.monotonic(), "units": told, "positions": positions}, parts)

    def _take_back(self, offered: Sequence[_Offered]) -> None:
        """Go on with connections here, and offer them again."""
        for each in offered:
            each.unit.resume()
            if not each.unit.conns[0].closed:
                self._giver.ask_again(each.listener, each.unit.conns[0])

    # -- what becomes of it ----------------------------------------------------------------------------

    def look(self, now_s: float) -> None:
        """Commit what waited for the feed, and cancel what was not accepted in time."""
        for offer in list(self.offers.values()):
            if offer.accepted is not None and self._is_fed(offer.accepted["positions"]):
                self._commit(offer)
            elif now_s >= offer.deadline_s:
                self._cancel(offer)

    def _is_fed(self, positions: Mapping[str, int]) -> bool:
        own = self._giver.positions()
        return all(name not in own or own[name][1] >= at for name, at in positions.items())

    def _commit(self, offer: _Offer) -> None:
        """Let go of what was accepted, and keep what was not, or was touched since."""
        assert offer.accepted is not None
        del self.offers[offer.number]
        refused = offer.accepted["refused"]
        kept, gone = [], []
        parts = Parts()
        messages = []
        for i, each in enumerate(offer.units):
            why = refused.get(str(i))
            if why is None and not each.unit.is_touched:
                gone.append(each)
                messages += self._messages(i, each, offer.accepted["positions"], parts)
                continue
            kept.append(i)
            self._to_resume.append(each)
            if why is None:
                self._giver.ask_again(each.listener, each.unit.conns[0])
            else:
                self._giver.stays(each.listener, why)
        self._say({"commit": offer.number, "kept": kept, "messages": messages}, parts)
        for each in gone:
            conns = each.unit.conns
            each.unit.release()
            self._giver.outcome.moved += 1
            each.listener.went(conns)

    def _messages(self, i: int, each: _Offered, positions: Mapping[str, int], parts: Parts) -> list[Any]:
        """Return what was published for a unit's connections since it was offered."""
        told = []
        for number, conn in enumerate(each.unit.conns):
            messages = each.unit.messages_until(conn, positions.get(each.listener.name, 0))
            if messages:
                told.append([i, number, [[topic, parts.add(data)] for topic, data in messages]])
        return told

    def _cancel(self, offer: _Offer) -> None:
        del self.offers[offer.number]
        self._say({"cancel": offer.number})
        self._to_resume += offer.units
        for each in offer.units:
            self._giver.stays(each.listener, "timeout")

    # -- the stream ------------------------------------------------------------------------------------

    def take(self, message: dict[str, Any], parts: list[bytes]) -> None:
        """As `Link.take`."""
        if "format" in message:
            self._take_hello(message)
        else:
            self._take_accept(message)
        self._giver.look(None)

    def give_up(self) -> None:
        """As `Link.give_up`."""
        self.close()

    def said(self) -> None:
        """Go on with what was kept: the taker is going to read that."""
        kept, self._to_resume = self._to_resume, []
        for each in kept:
            each.unit.resume()

    def _take_hello(self, message: dict[str, Any]) -> None:
        if message["format"] != FORMAT:
            log.warning("connections cannot be handed to a worker of another version: they drain")
            self.close()
            return
        self._token = bytes.fromhex(message["token"])
        self._hello = message

    def _take_accept(self, message: dict[str, Any]) -> None:
        offer = self.offers.get(message["accept"])
        if offer is None:
            self._say({"cancel": message["accept"]})  # it was cancelled before
        else:
            refused = dict(message["refused"])
            known = {key: why if why in STAY_REASONS else "refused" for key, why in refused.items()}
            offer.accepted = {"refused": known, "positions": dict(message["positions"])}
            self.look(time.monotonic())

    def on_completion(self, result: OpResult) -> None:
        """Take the beginning or the end of the stream."""
        if result.operation is OpType.CONNECT and result.error is None:
            if not result.conn.closed:  # by the end of a hand-over that was short
                result.conn.read()
        elif result.operation is OpType.CLOSE:
            self.said()  # it was said, or there is nobody to whom
        elif not self.is_over:
            self._break()

    def _break(self) -> None:
        """Take note that the taker is gone: what is not committed is this worker's."""
        self.is_over = True
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.abort()
        self.said()
        offers, self.offers = self.offers, {}
        for offer in offers.values():
            self._take_back(offer.units)
        self._giver.look(None)


def _index_of(partner: Conn | None, conns: list[Conn]) -> int | None:
    return conns.index(partner) if partner is not None and partner in conns else None
